"""A folder that an earlier run has written into."""

import shutil
from pathlib import Path

from bev_data.errors import InputError

# What `bev-train fit` leaves in its folder; the first two of no other command.
_RUN = ("config.yaml", "checkpoints/*.ckpt")
_WRITTEN = ("config.yaml", "checkpoints", "csv", "pictures", "scores.json", "events.out.tfevents.*")


def settle_folder(folder: Path, checkpoint: str | None, overwrite: bool, first: bool = True) -> str | None:
    """Decide between going on and beginning, so that no run silently replaces another.

    Args:
        folder: of the run.
        checkpoint: as asked for: `auto` goes on from `last` if there is one, else begins.
        overwrite: remove what an earlier run wrote.
        first: whether this is the first process of the run; others find what it wrote, and leave it.

    Returns:
        The checkpoint to go on from; None to begin.

    Raises:
        InputError: if the folder holds a run that is neither gone on with nor to be overwritten.
    """
    if checkpoint == "auto":
        checkpoint = "last" if (folder / "checkpoints" / "last.ckpt").is_file() else None
        overwrite = overwrite or checkpoint is None
    earlier = [path for pattern in _RUN for path in folder.glob(pattern)]
    of_this_run = checkpoint in ("last", "best") or (
        checkpoint is not None and folder.resolve() in Path(checkpoint).resolve().parents
    )
    if not first or not earlier or of_this_run:
        return checkpoint
    if not overwrite:
        raise InputError(
            f"{folder} must not hold another run, but has {', '.join(sorted(path.name for path in earlier))}:"
            " go on with that run by --ckpt_path last (auto: if there is something to go on from), replace it"
            " by --overwrite true, or choose another folder by --output"
        )
    for path in [path for pattern in _WRITTEN for path in folder.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return checkpoint
