"""The files a run is made of: configs, the configs these are based on, and the published preset."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bev_train.errors import InputError, one_line
from bev_train.settings.find import find_config

# What `published: true` lays beneath all other files.
PUBLISHED = Path(__file__).parent / "published.yaml"


def layers(configs: Sequence[Path], options: Sequence[str]) -> list[Path]:
    """List the files of a run, lowest first: later ones win over earlier ones, options over all.

    Args:
        configs: as given by the user.
        options: `--key value` and `--key=value`.

    Raises:
        InputError: if a file is no YAML mapping, or there is no such base.
    """
    files = [layer for config in configs for layer in _with_bases(config, ())]
    return [PUBLISHED, *files] if _is_published(files, options) else files


def load_mapping(path: Path) -> Mapping[str, Any]:
    """Read a config.

    Raises:
        InputError: if it is no YAML mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", str(error))
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"config {path} must be YAML, got an error{where}: {one_line(problem)}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"config {path} must map keys to values, got {type(content).__name__}")
    return content


def _with_bases(path: Path, above: tuple[Path, ...]) -> list[Path]:
    """List a config and what it is based on, lowest first."""
    above = (*above, path.resolve())
    base = load_mapping(path).get("base")
    if base is None:
        return [path]
    if not isinstance(base, str):
        raise InputError(f"base in {path} must be the name or path of one config, got {base}")
    beside = path.parent / base
    found = beside if beside.is_file() else find_config(base)
    if found.resolve() in above:
        raise InputError(f"configs must not be based on each other, got {path} based on {found}")
    return [*_with_bases(found, above), path]


def _is_published(files: Sequence[Path], options: Sequence[str]) -> bool:
    """Look up the switch where it is set last."""
    values = [content["published"] for content in map(load_mapping, files) if "published" in content]
    for i, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name == "--published":
            values.append(yaml.safe_load(value if equals else "".join(options[i + 1 : i + 2])))
    return bool(values) and values[-1] is True
