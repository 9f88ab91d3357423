"""Commands and shipped configs."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from bev_data.errors import InputError

CONFIGS = Path(__file__).parent / "configs"

COMMANDS = {
    "fit": "train, with validation by the official nuScenes evaluation",
    "validate": "evaluate a checkpoint on the validation split",
    "test": "evaluate a checkpoint on data.test_split",
    "predict": "write a nuScenes results file and pictures for data.predict_split",
}


def shipped_configs() -> dict[str, Path]:
    """Name the configs that come with the package."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}


def describe_config(path: Path) -> str:
    """Read the first comment of a config: what it is, in one line."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()


def split_configs(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Part leading config files, given as paths or as names of shipped configs, from options.

    Args:
        arguments: what follows the command, as `a.yaml overlay.yaml --key value`.

    Returns:
        The files in order, and the rest.

    Raises:
        InputError: if a leading argument is neither a file nor a shipped config.
    """
    count = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    return [find_config(name) for name in arguments[:count]], list(arguments[count:])


def find_config(name: str) -> Path:
    """Find a config by path or shipped name.

    Raises:
        InputError: if there is none.
    """
    shipped = shipped_configs()
    path = Path(name)
    if path.is_file():
        return path
    if name in shipped:
        return shipped[name]
    raise InputError(
        f"no such config: '{name}' is neither a file nor a shipped config{did_you_mean(path.stem, shipped)}; "
        f"shipped are {', '.join(shipped)}"
    )


def did_you_mean(name: str, near: Iterable[str], others: Iterable[str] = ()) -> str:
    """A hint in parentheses to the name that was probably meant; empty where nothing is close.

    Args:
        name: as it was written.
        near: names to look for a similar one in.
        others: names that go before those, such as the same one elsewhere.
    """
    matches = [*others, *difflib.get_close_matches(name, list(near), n=1, cutoff=0.75)]
    return f" (did you mean '{matches[0]}'?)" if matches else ""
