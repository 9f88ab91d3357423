"""The table of scores that a validation or test prints."""

import re
from collections.abc import Mapping

from lightning import Callback, LightningModule, Trainer

from bev_train.callbacks.scores import NuScenesEvaluation

ERRORS = ("mATE", "mASE", "mAOE", "mAVE", "mAAE")
_DEPTH_SCORES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")


class ScoreTable(Callback):
    """Prints the scores after a validation or test."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print."""
        if not trainer.sanity_checking:
            self._show(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print."""
        self._show(trainer, pl_module, "test")

    def _show(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        prefix = f"{stage}/"
        scores = {
            name.removeprefix(prefix): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(prefix)
        }
        evaluation = next((c for c in trainer.callbacks if isinstance(c, NuScenesEvaluation)), None)  # type: ignore[attr-defined]
        reach = evaluation.class_range if evaluation else None
        where = f"boxes within {reach:g} m" if reach else "official class ranges"
        classes = sorted(name.removeprefix("AP/") for name in scores if name.startswith("AP/"))
        if "official_mAP" in scores:
            where += f", {len(classes)} of 10 classes: {', '.join(classes)}"
        module.print(score_table(scores, f"{stage} epoch {trainer.current_epoch}, {where}"))


def score_table(scores: Mapping[str, float], title: str) -> str:
    """Lay out scores in a few lines; those that are missing are left out.

    Args:
        scores: by name, without stage.
        title: first line.
    """
    classes = {name.removeprefix("AP/"): value for name, value in scores.items() if name.startswith("AP/")}
    rows: list[list[tuple[str, float]]] = [
        [(name, scores[name]) for name in ("mAP", "NDS", *ERRORS) if name in scores],
        [(name, scores[name]) for name in ("official_mAP", "official_NDS") if name in scores],
        list(classes.items())[:5],
        list(classes.items())[5:],
    ]
    lines = ["  " + "  ".join(f"{name} {value:.3f}" for name, value in row) for row in rows if row]
    return "\n".join([title, *lines, *_depth_lines(scores)])


def _depth_lines(scores: Mapping[str, float]) -> list[str]:
    """Lay out depth errors, a line for each set of points."""
    table: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        if found := re.fullmatch(rf"(depth\w*?)_({'|'.join(_DEPTH_SCORES)})", name):
            table.setdefault(found[1].replace("_", " "), {})[found[2]] = value
    width = max(map(len, table), default=0)
    head = "  " + " " * width + "".join(f"{score:>10}" for score in _DEPTH_SCORES)
    lines = [
        f"  {name:<{width}}" + "".join(f"{row[score]:>10.3f}" for score in _DEPTH_SCORES)
        for name, row in table.items()
    ]
    return [head, *lines] if lines else []
