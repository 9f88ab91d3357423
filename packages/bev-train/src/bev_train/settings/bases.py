"""The files a run is made of: configs, the configs these are based on, and the published preset."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bev_data.errors import InputError
from bev_train.errors import one_line
from bev_train.settings.find import find_config

# What `published: true` lays beneath all other files.
PUBLISHED = Path(__file__).parent / "published.yaml"


class _EachKeyOnce(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a mapping that says a key twice, of which YAML would take the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping.

        Raises:
            YAMLError: if a key comes twice.
        """
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is said twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return dict(super().construct_mapping(node, deep))


class Layer(NamedTuple):
    """A config that has been read.

    Attributes:
        path: its file.
        text: what the file holds.
        content: what the text says.
    """

    path: Path
    text: str
    content: Mapping[str, Any]


def layers(configs: Sequence[Path], options: Sequence[str]) -> list[Layer]:
    """Read the files of a run, each once, lowest first: later ones win over earlier ones, options over all.

    Args:
        configs: as given by the user.
        options: `--key value` and `--key=value`.

    Raises:
        InputError: if a file is no YAML mapping, or there is no such base.
    """
    files = [layer for config in configs for layer in _with_bases(config, ())]
    return [read_layer(PUBLISHED), *files] if _is_published(files, options) else files


def read_layer(path: Path) -> Layer:
    """Read a config.

    Raises:
        InputError: if it is no YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_EachKeyOnce)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"config {path} must be a file of UTF-8 text, got: {one_line(str(error))}"
        ) from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", str(error))
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"config {path} must be YAML, got an error{where}: {one_line(problem)}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"config {path} must map keys to values, got {type(content).__name__}")
    return Layer(path, text, content)


def _with_bases(path: Path, above: tuple[Path, ...]) -> list[Layer]:
    """Read a config and what it is based on, lowest first."""
    above = (*above, path.resolve())
    layer = read_layer(path)
    base = layer.content.get("base")
    if base is None:
        return [layer]
    if not isinstance(base, str):
        raise InputError(f"base in {path} must be the name or path of one config, got {base}")
    beside = path.parent / base
    found = beside if beside.is_file() else find_config(base)
    if found.resolve() in above:
        raise InputError(f"configs must not be based on each other, got {path} based on {found}")
    return [*_with_bases(found, above), layer]


def _is_published(files: Sequence[Layer], options: Sequence[str]) -> bool:
    """Look up the switch where it is set last."""
    values = [layer.content["published"] for layer in files if "published" in layer.content]
    for i, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name == "--published":
            values.append(yaml.safe_load(value if equals else "".join(options[i + 1 : i + 2])))
    return bool(values) and values[-1] is True
