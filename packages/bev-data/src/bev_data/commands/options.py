"""What the commands' options share.

A command imports what it needs when it runs: the help of all of them is to appear at once, without the
libraries that read tables, images and arrays.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bev_data.errors import InputError
from bev_data.parallel import cores

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(
    commands: "Commands", name: str, title: str, text: str, example: str
) -> argparse.ArgumentParser:
    """Register a command that works on a data root."""
    parser = commands.add_parser(
        name,
        help=title,
        description=f"{title[0].upper()}{title[1:]}.\n\n{text}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder with v1.0-*/, samples/ and sweeps/")
    return parser


def add_version(parser: argparse.ArgumentParser) -> None:
    """The option of commands that work on one version."""
    parser.add_argument(
        "--version", help="such as v1.0-mini; default: the one there is, trainval before mini"
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """The option of commands that work in parallel."""
    parser.add_argument(
        "--workers", type=positive, default=cores(), help="processes (default: one per core, %(default)s)"
    )


def chosen_version(args: argparse.Namespace) -> str:
    """The version that was asked for or is there, with all its tables."""
    from bev_data.nuscenes.versions import find_version, require_tables

    version: str = args.version or find_version(args.root)
    require_tables(args.root, version)
    return version


def chosen_split(args: argparse.Namespace, version: str, splits: Sequence[str]) -> str:
    """The split that was asked for, else the one for evaluation, else the only one."""
    from bev_data.nuscenes.splits import EVALUATION_SPLIT

    only = splits[0] if len(splits) == 1 else None
    split: str | None = args.split or EVALUATION_SPLIT.get(version, only)
    if split is None:
        raise InputError(f"--split must be given for {version}; it has: {', '.join(splits)}")
    return split


def version_and_splits(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The version that was asked for or is there, and its splits: of the tables, or of infos without any."""
    from bev_data.infos.infos import infos_without_tables
    from bev_data.nuscenes.splits import list_splits
    from bev_data.nuscenes.versions import list_versions

    if not list_versions(args.root) or (args.version and not (args.root / args.version).is_dir()):
        kept = infos_without_tables(args.root)
        versions = sorted({infos.version for infos in kept})
        if args.version in versions or (args.version is None and len(versions) == 1):
            version = args.version or versions[0]
            splits = [infos.split for infos in kept if infos.version == version]
            if args.split is not None and args.split not in splits:
                raise InputError(
                    f"the split of {version} in {args.root} must be one of: {', '.join(splits)}; "
                    f"got {args.split!r}"
                )
            return version, splits
        if args.version is None and versions:
            raise InputError(f"--version must be given for {args.root}; it has: {', '.join(versions)}")
    version = chosen_version(args)
    return version, list_splits(args.root, version)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return int(text)


def above_zero(text: str) -> float:
    """A number above 0."""
    value = number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def number(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text}") from None
