"""Render a small world, train a small BEVStereo on it, and score it by the official nuScenes evaluation.

Takes minutes on two CPU cores. A run that was stopped goes on where it was when the command is given again.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bev_data.atomic import atomic_path
from bev_data.nuscenes.taxonomy import CLASSES

CONFIG = "quickstart"
TRAIN_SCENES, VAL_SCENES = 36, 6
# Key frames only: the config takes its history from them.
WORLD: dict[str, Any] = {"image_size": (400, 225), "sweep_hz": 0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bev-train quickstart`."""
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/quickstart"), help="folder for results (%(default)s)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data/quickstart"),
        help="folder for the rendered world (%(default)s)",
    )
    parser.add_argument(
        "--train-scenes", type=int, default=TRAIN_SCENES, help="scenes to train on (%(default)s)"
    )
    parser.add_argument("--val-scenes", type=int, default=VAL_SCENES, help="held-out scenes (%(default)s)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="--key value",
        help="after a lone --: options of `bev-train fit`, over those of the quickstart config",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Render, measure the untrained detector, train, evaluate, and write `metrics.json`.

    Args:
        options: of `add_arguments`.

    Returns:
        What `metrics.json` holds: mAP, NDS, the five true-positive errors, untrained_mAP, depth_abs_rel,
        class_range (metres up to which boxes count), AP per class, minutes, and where the pictures are.
    """
    # Torch and Lightning take seconds to import; `--help` does without.
    from bev_data.world import write_world
    from bev_train.run import run as run_command

    clock = _Clock(options.output / "minutes.json")
    scenes = options.train_scenes + options.val_scenes
    _announce(1, f"Rendering {scenes} scenes into {options.data}")
    write_world(options.data, scenes=scenes, val_scenes=options.val_scenes, **WORLD)
    clock.tick()

    common = [CONFIG, "--data.root", str(options.data)]
    untrained_file = options.output / "untrained.json"
    if not untrained_file.is_file():
        _announce(2, "Scoring the untrained detector on the held-out scenes")
        own = ["--output", str(options.output / "untrained"), "--pictures.count", "0"]
        command = run_command(["validate", *common, *own, *options.overrides])
        _write_json(untrained_file, _scores(command.trainer.callback_metrics))
        clock.tick()
    untrained = json.loads(untrained_file.read_text(encoding="utf-8"))

    common += ["--output", str(options.output), *options.overrides]
    _announce(3, f"Training; for curves: tensorboard --logdir {options.output}")
    command = run_command(["fit", *common, "--ckpt_path", "auto"])
    clock.tick()
    _announce(4, "Scores of the trained detector on the held-out scenes")
    if "val/mAP" not in command.trainer.callback_metrics:
        command = run_command(["validate", *common, "--ckpt_path", "last"])

    metrics = _scores(command.trainer.callback_metrics)
    metrics["untrained_mAP"] = untrained["mAP"]
    metrics["class_range"] = command.config[command.subcommand].evaluation.class_range
    metrics["pictures"] = str(options.output / "pictures")
    metrics["minutes"] = round(clock.tick(), 2)
    _write_json(options.output / "metrics.json", metrics)
    print(_table(metrics, options))
    return metrics


class _Clock:
    """Minutes of work, over all runs that were stopped and resumed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = float(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0.0
        self._start = time.monotonic()

    def tick(self) -> float:
        """Note the time worked so far, and return it."""
        minutes = self._before + (time.monotonic() - self._start) / 60
        _write_json(self._path, minutes)
        return minutes


def _announce(step: int, text: str) -> None:
    print(f"\n[{step}/4] {text}", flush=True)


def _scores(logged: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the scores out of what a validation logged."""
    names = {name: f"val/{name}" for name in ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE")}
    names["depth_abs_rel"] = "val/depth_abs_rel"
    scores: dict[str, Any] = {name: float(logged[key]) for name, key in names.items()}
    scores["AP"] = {name: float(logged[f"val/AP/{name}"]) for name in CLASSES}
    return scores


def _write_json(path: Path, content: object) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


_ERRORS = {
    "mATE": "position, m",
    "mASE": "size, 1 - IoU",
    "mAOE": "heading, rad",
    "mAVE": "velocity, m/s",
    "mAAE": "attribute, 1 - accuracy",
}


def _table(metrics: Mapping[str, Any], options: argparse.Namespace) -> str:
    """Lay out the result for a terminal."""
    rows: list[Sequence[str]] = [
        ("mAP", f"{metrics['mAP']:.3f}", f"untrained {metrics['untrained_mAP']:.3f}"),
        ("NDS", f"{metrics['NDS']:.3f}", ""),
        *((name, f"{metrics[name]:.3f}", meaning) for name, meaning in _ERRORS.items()),
        ("depth AbsRel", f"{metrics['depth_abs_rel']:.3f}", "predicted against lidar"),
        *((f"AP {name}", f"{score:.3f}", "") for name, score in metrics["AP"].items()),
    ]
    return "\n".join(
        [
            "",
            f"Official nuScenes evaluation on {options.val_scenes} held-out scenes, "
            f"boxes up to {metrics['class_range']:g} m from the car:",
            *(f"  {name:<24}{value:>7}  {note}".rstrip() for name, value, note in rows),
            "",
            f"Pictures:   {metrics['pictures']}",
            f"Checkpoint: {options.output / 'checkpoints' / 'last.ckpt'}",
            f"Numbers:    {options.output / 'metrics.json'}",
            f"Minutes:    {metrics['minutes']:.1f}",
        ]
    )
