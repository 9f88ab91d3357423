"""`scores.json`: the scores of a run's last evaluation, and what they belong to."""

import json
import math
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lightning import Trainer

from bev_data.atomic import atomic_path

_PACKAGES = ("bev-ops", "bev-data", "bev-models", "bev-train", "torch", "lightning", "nuscenes-devkit")


def write_scores(trainer: Trainer, scores: Mapping[str, float], settings: Mapping[str, Any]) -> None:
    """Write the scores of an evaluation into the folder of the run.

    Args:
        trainer: that evaluates.
        scores: by name; NaN becomes null.
        settings: of the evaluation.
    """
    folder = Path(trainer.default_root_dir)
    config = folder / "config.yaml"
    content = {
        "scores": {name: None if math.isnan(value) else value for name, value in scores.items()},
        **settings,
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
        "config": str(config) if config.is_file() else None,
        "versions": {name: _version(name) for name in _PACKAGES},
    }
    with atomic_path(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
