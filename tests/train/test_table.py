"""Every way to train beside every way to stop and go on: the weights are those of a run never stopped."""

from typing import NamedTuple

import pytest
import torch

pytestmark = pytest.mark.slow


class Cell(NamedTuple):
    """One run; together the cells pair every setting with every other."""

    precision: str
    clip: float | None
    accumulate: int
    ema: float | None
    workers: int
    stop: str
    # Balanced classes: more key frames than the world's three, some of them twice.
    cbgs: bool = True


CELLS = [
    Cell("32-true", 5, 1, None, 0, "within"),
    Cell("32-true", None, 2, 0.5, 1, "end"),
    Cell("32-true", 5, 1, 0.5, 3, "best", cbgs=False),
    Cell("32-true", None, 1, None, 1, "steps"),
    Cell("bf16-mixed", 5, 2, 0.5, 0, "steps"),
    Cell("bf16-mixed", 5, 1, 0.5, 1, "within"),
    Cell("bf16-mixed", None, 1, None, 3, "end", cbgs=False),
    Cell("bf16-mixed", None, 2, None, 0, "best"),
    Cell("bf16-mixed", 5, 1, 0.5, 0, "steps at end"),
    Cell("32-true", 5, 2, None, 3, "within"),
]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(map(str, cell)))
def test_a_stopped_run_ends_as_one_that_was_not(command, tmp_path, cell):
    options = [
        f"--trainer.precision={cell.precision}",
        f"--trainer.gradient_clip_val={cell.clip or 'null'}",
        f"--trainer.accumulate_grad_batches={cell.accumulate}",
        f"--ema={cell.ema or 'null'}",
        f"--data.loader.num_workers={cell.workers}",
        f"--data.sampling.cbgs={str(cell.cbgs).lower()}",
        "--trainer.limit_train_batches=4",
        f"--trainer.limit_val_batches={int(cell.stop == 'best')}",
        "--trainer.num_sanity_val_steps=0",
        # A schedule that does not follow the length of the run, which stopping it changes.
        "--model.schedule.kind=step",
        "--model.schedule.milestones=[1]",
        "--pictures.count=0",
    ]

    def fit(folder, *more):
        result = command("fit", "TINY", *options, f"--output={folder}", *more)
        assert result.code == 0, result.error
        return torch.load(tmp_path / folder / "checkpoints" / "last.ckpt", weights_only=True)

    steps = [
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.dirpath=whole/steps",
        "--trainer.callbacks.filename={step}",
        "--trainer.callbacks.every_n_train_steps=1",
        "--trainer.callbacks.save_top_k=-1",
    ]
    whole = fit("whole", *(steps if cell.stop == "within" else []))
    batches = 4 if cell.cbgs else 2
    per_epoch = batches // cell.accumulate
    assert whole["global_step"] == 2 * per_epoch
    if cell.stop == "within":
        ends = [fit("whole", f"--ckpt_path=whole/steps/step={step}.ckpt") for step in (1, 2 * per_epoch - 1)]
    elif cell.stop == "best":
        ends = [fit("whole", "--ckpt_path=best")]
    else:
        at = {"end": per_epoch, "steps": max(1, per_epoch - 1), "steps at end": per_epoch}[cell.stop]
        stopped = fit("parts", f"--trainer.max_steps={at}")
        assert stopped["global_step"] == at
        ends = [fit("parts", "--ckpt_path=last")]
    for end in ends:
        assert end["global_step"] == whole["global_step"]
        for part in ("state_dict", "current_model_state"):
            for name, value in whole.get(part, {}).items():
                assert torch.equal(end[part][name], value), (part, name)
