"""Where what is made from a data root is kept: in it, or in the user's cache if it is not writable."""

import hashlib
import os
from pathlib import Path


def infos_folder(root: Path) -> Path:
    """The folder of a root's infos files and of the splits that were added to it."""
    folder = root / "infos"
    existing = folder if folder.is_dir() else root
    if os.access(existing, os.W_OK):
        return folder
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return base / "bev-data" / key


def infos_path(root: Path, version: str, split: str) -> Path:
    """The file in which `open_infos` keeps the infos of a split."""
    return infos_folder(root) / f"{version}_{split}.arrow"
