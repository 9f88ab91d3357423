"""Splits: which key frames belong to `train`, `mini_val`, or a split of one's own.

A split of one's own is a list of words: names or tokens of scenes, and tokens of single key frames. It is
defined in the version folder's `splits.json`, or added by `add_splits`, as {"name": ["scene-0061", ...]}.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bev_data.atomic import atomic_path
from bev_data.errors import InputError, MissingFileError
from bev_data.locations import infos_folder
from bev_data.nuscenes.rows import SampleRow, SceneRow, read_rows
from bev_data.nuscenes.versions import fingerprint, order_versions, require_tables

Splits = dict[str, list[str]]

# Version -> the split that scores are reported for; that of the test version has no annotations.
EVALUATION_SPLIT = {"v1.0-mini": "mini_val", "v1.0-trainval": "val", "v1.0-test": "test"}

# Split -> ending of the versions that hold it, as the devkit's loader checks it.
_VERSION_OF: dict[str, str] = {
    "train": "trainval",
    "val": "trainval",
    "train_detect": "trainval",
    "train_track": "trainval",
    "mini_train": "mini",
    "mini_val": "mini",
    "test": "test",
}


def list_splits(root: Path, version: str) -> list[str]:
    """Splits that this version holds: the devkit's own whose scenes are there, then those of one's own."""
    present = {scene.name for scene in read_rows(root / version, "scene", SceneRow)}
    official = [name for name, scenes in _official(version).items() if present.intersection(scenes)]
    own = _own_splits(root, version)
    return [*(name for name in official if name not in own), *own]


def find_version_of(root: Path, split: str | None) -> str:
    """The version of a data root that holds a split; where several do, or none, as `find_version` chooses.

    Args:
        root: data root.
        split: such as test; None for any.

    Raises:
        FileNotFoundError: if the root is missing or has no version folder.
    """
    versions = order_versions(root)
    if split is None or len(versions) == 1:
        return versions[0]
    return next((name for name in versions if split in list_splits(root, name)), versions[0])


def split_members(root: Path, version: str, split: str) -> list[str]:
    """The words that a split is made of: names or tokens of scenes, tokens of key frames.

    Raises:
        FileNotFoundError: if the root, the version or a table is missing.
        ValueError: if the version does not have the split.
    """
    require_tables(root, version)
    splits = list_splits(root, version)
    if split not in splits:
        there = ", ".join(splits) if splits else "none"
        raise InputError(f"the split of {version} in {root} must be one of: {there}; got {split!r}")
    own = _own_splits(root, version)
    return own[split] if split in own else _official(version)[split]


def split_tokens(root: Path, version: str, split: str) -> list[str]:
    """Sample tokens of a split, in the order of the sample table.

    Raises:
        FileNotFoundError: if the root, the version or a table is missing.
        ValueError: if the version does not have the split.
    """
    words = set(split_members(root, version, split))
    scenes = {
        scene.token
        for scene in read_rows(root / version, "scene", SceneRow)
        if scene.name in words or scene.token in words
    }
    samples = read_rows(root / version, "sample", SampleRow)
    return [sample.token for sample in samples if sample.scene_token in scenes or sample.token in words]


def split_fingerprint(root: Path, version: str, split: str) -> str:
    """A text that changes when a table is replaced or the split is defined anew."""
    words = _own_splits(root, version).get(split)
    tables = fingerprint(root, version)
    return tables if words is None else f"{tables} {hashlib.sha256(json.dumps(words).encode()).hexdigest()}"


def read_split_file(path: Path) -> Splits:
    """Splits that a user wrote down.

    A `.json` file holds {"name": [words]}, or a list of words; a `.txt` file holds one word per line. A file
    of words is the split of the file's own name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none of these, or a name cannot be that of a file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix == ".json" else text.split()
    except FileNotFoundError:
        raise MissingFileError(f"the split file {path} does not exist") from None
    except ValueError as error:
        raise InputError(f"the split file must be JSON or lines of text, got {path} ({error})") from error
    splits = {path.stem: content} if isinstance(content, list) else content
    if not splits:
        raise InputError(f"the split file must name a split, got none in {path}")
    return _checked(splits, path)


def add_splits(root: Path, version: str, splits: Mapping[str, Sequence[str]]) -> None:
    """Keep splits of one's own beside the infos, so that every command knows them by name.

    Raises:
        ValueError: if a name is that of an official split, or a word is neither a scene nor a key frame.
        OSError: if they cannot be written.
    """
    require_tables(root, version)
    scenes = read_rows(root / version, "scene", SceneRow)
    known = {word for scene in scenes for word in (scene.name, scene.token)}
    known.update(sample.token for sample in read_rows(root / version, "sample", SampleRow))
    for name, words in splits.items():
        if name in _official(version):
            raise InputError(f"a split of one's own must not be named as an official one, got {name!r}")
        unknown = next((word for word in words if word not in known), None)
        if unknown is not None:
            raise InputError(
                f"the split {name} must list scenes or sample tokens of {version}, got {unknown!r}"
            )
    path = _added_file(root, version)
    merged = {**_read_json(path), **{name: list(words) for name, words in splits.items()}}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(merged, indent=1), encoding="utf-8")


def _official(version: str) -> dict[str, list[str]]:
    from nuscenes.utils.splits import create_splits_scenes

    return {
        name: scenes
        for name, scenes in create_splits_scenes().items()
        if version.endswith(_VERSION_OF.get(name, "\0"))
    }


def _added_file(root: Path, version: str) -> Path:
    return infos_folder(root) / f"{version}.splits.json"


def _own_splits(root: Path, version: str) -> Splits:
    return {**_read_json(_added_file(root, version)), **_read_json(root / version / "splits.json")}


def _read_json(path: Path) -> Splits:
    if not path.is_file():
        return {}
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path.name} must be JSON, got a damaged file: {path} ({error}); mend or remove it"
        ) from error
    return _checked(splits, path)


def _checked(splits: Any, path: Path) -> Splits:
    if not isinstance(splits, dict) or not all(
        isinstance(words, list) and words and all(isinstance(word, str) for word in words)
        for words in splits.values()
    ):
        raise InputError(
            f"splits must map names to lists of one or more scenes or sample tokens, got others in {path}"
        )
    for name in splits:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise InputError(
                f"the name of a split must be letters, digits, '_', '.' and '-', got {name!r} in {path}"
            )
    return splits
