"""Entries of results files: read and checked one by one, so that an error names the sample.

| what a file may hold | the devkit's evaluation | here |
|---|---|---|
| scores outside of 0 to 1 | takes them | refused, as by the test server's rules |
| text where a number belongs | takes what Python can convert | refused |
| a field twice in one box | takes the last | refused |
| NaN and infinity | refuses NaN of some fields | refused |
| quaternions of another length than 1 | takes them, but not 0 | the same |
| fields besides those of the format | leaves them out | the same |
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import numpy as np

from bev_data.errors import InputError, MissingFileError

LENGTHS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2, "detection_score": 1}


_Two = Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)]
_Three = Annotated[list[float], msgspec.Meta(min_length=3, max_length=3)]
_Four = Annotated[list[float], msgspec.Meta(min_length=4, max_length=4)]


class Entry(TypedDict):
    """A box of a results file."""

    sample_token: str
    translation: _Three
    size: _Three
    rotation: _Four
    velocity: _Two
    detection_name: str
    detection_score: float
    attribute_name: str


class _File(TypedDict):
    results: dict[str, list[Entry]]


def read_entries(path: Path) -> dict[str, list[Any]]:
    """Boxes of a results file by sample token; their values are still to be checked.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no JSON, no results file, or says a thing twice.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"the results file {path} does not exist") from None
    try:
        results: Any = msgspec.json.decode(content, type=_File)["results"]
    except msgspec.ValidationError:
        results = _untyped(content, path)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"the results file must be JSON, got {path} ({error})") from error
    else:
        boxes = sum(map(len, results.values()))
        if any(content.count(f'"{field}"'.encode()) != boxes for field in Entry.__annotations__):
            _untyped(content, path)
    return results  # type: ignore[no-any-return]


def _untyped(content: bytes, path: Path) -> Any:
    """The same, slowly, with an eye on keys that come twice.

    Raises:
        InputError: if one does, or there are no results.
    """
    try:
        whole = json.loads(content, object_pairs_hook=_each_once)
    except InputError as error:
        raise InputError(f"{error} in {path}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"the results file must be JSON, got {path} ({error})") from error
    results = whole.get("results") if isinstance(whole, dict) else None
    if not isinstance(results, dict) or not all(isinstance(entries, list) for entries in results.values()):
        raise InputError(
            f'a results file must have the form {{"meta": ..., "results": {{sample token: [boxes]}}}}, '
            f"got {path}"
        )
    return results


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"a results file must say each thing once, got {twice!r} twice")
    return found


def is_sound(token: str, entries: Sequence[Any], names: Collection[str], attributes: Collection[str]) -> bool:
    """Whether all entries of a sample pass; at once, because a results file may hold millions of them.

    Args:
        token: of the sample.
        entries: its boxes.
        names: of the detection classes.
        attributes: that a box may have.
    """
    try:
        for field, length in LENGTHS.items():
            values = np.array([entry[field] for entry in entries])
            shape = (len(entries),) if length == 1 else (len(entries), length)
            if entries and (values.shape != shape or values.dtype.kind not in "fiu"):
                return False
            if not np.isfinite(values).all() or not _in_range(field, values):
                return False
        return all(
            entry["sample_token"] == token
            and entry["detection_name"] in names
            and entry["attribute_name"] in attributes
            for entry in entries
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _in_range(field: str, values: Any) -> bool:
    if field == "size":
        return bool((values > 0).all())
    if field == "detection_score":
        return bool(((values >= 0) & (values <= 1)).all())
    if field == "rotation" and values.size:
        return bool(np.abs(values).max(axis=-1).min() > 0)
    return True


_RULES = {
    "translation": "3 finite numbers",
    "size": "3 finite numbers above 0 m",
    "rotation": "4 finite numbers, not all 0",
    "velocity": "2 finite numbers",
    "detection_score": "a number from 0 to 1",
}


def check_entry(token: str, entry: Any, names: Collection[str], attributes: Collection[str]) -> None:
    """Say what is wrong with a box.

    Raises:
        InputError: if something is.
    """
    if not isinstance(entry, Mapping):
        raise InputError(f"a box must be a mapping of its fields, got {_short(entry)} for {token}")
    if entry.get("sample_token") != token:
        raise InputError(
            f"a box of {token} must carry that sample_token, got {_short(entry.get('sample_token'))}"
        )
    for field, length in LENGTHS.items():
        value = entry.get(field)
        if not _are_numbers(value, length) or not _in_range(field, np.asarray(value, dtype=np.float64)):
            raise InputError(f"{field} must be {_RULES[field]}, got {_short(value)} for {token}")
    name, attribute = entry.get("detection_name"), entry.get("attribute_name")
    if not isinstance(name, str) or name not in names:
        raise InputError(f"detection_name must be one of {', '.join(names)}, got {_short(name)} for {token}")
    if not isinstance(attribute, str) or attribute not in attributes:
        raise InputError(
            f"attribute_name must be one of {', '.join(sorted(attributes))} or empty, "
            f"got {_short(attribute)} for {token}"
        )


def _are_numbers(value: Any, length: int) -> bool:
    if length == 1:
        value = [value]
    try:
        return len(value) == length and all(
            isinstance(number, (int, float, np.number))
            and not isinstance(number, bool)
            and bool(np.isfinite(float(number)))
            for number in value
        )
    except (TypeError, OverflowError):
        return False


def _short(value: Any) -> str:
    """A value as a message can show it, however long or deep it is."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
