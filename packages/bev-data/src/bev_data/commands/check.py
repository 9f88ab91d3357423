"""`bev-data check`: is everything there, whole, and does it fit."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bev_data.commands.options import add_command, add_workers, number

if TYPE_CHECKING:
    from bev_data.commands.options import Commands

_QUICK_FRACTION = 0.05


def add_check(commands: "Commands") -> None:
    """Register `check`."""
    parser = add_command(
        commands,
        "check",
        "check that all files are whole and fit each other",
        "Reads the tables (links, order of time, poses, calibrations, boxes) and the files of every key\n"
        "frame: images are there, whole and of the right size, lidar files whole, lidar lands in the\n"
        "images, boxes contain their lidar points, depth files hold them. Ends with 0 where all is well,\n"
        "with 1 where there are problems, with 2 where it was called wrongly.",
        "bev-data check data/nuscenes --fix-list again.txt\n  bev-data check data/nuscenes --quick",
    )
    parser.add_argument("--version", action="append", help="may be repeated; default: all that ROOT has")
    parser.add_argument(
        "--fraction", type=_share, help="share of the key frames whose files are read, 0 to 1 (default: 1)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"read the files of {_QUICK_FRACTION:.0%}% of the key frames, and images by header and end only",
    )
    parser.add_argument("--no-sweeps", action="store_true", help="leave images between key frames out")
    parser.add_argument(
        "--all-files", action="store_true", help="look for lidar sweeps and radar too, which training leaves"
    )
    parser.add_argument(
        "--fix-list", type=Path, metavar="FILE", help="write what to download again, a path per line"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=5,
        help="problems of each kind to print; 0 for all (default: %(default)s)",
    )
    add_workers(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bev_data.checks import check_version
    from bev_data.checks.report import write_fix_list
    from bev_data.nuscenes.versions import find_version, list_versions

    find_version(args.root)
    fraction = args.fraction if args.fraction is not None else (_QUICK_FRACTION if args.quick else 1.0)
    reports = [
        check_version(
            args.root,
            version,
            fraction=fraction,
            decode=not args.quick,
            sweeps=not args.no_sweeps,
            all_files=args.all_files,
            workers=args.workers,
        )
        for version in args.version or list_versions(args.root)
    ]
    for report in reports:
        print(report.text(args.limit))
    if args.fix_list is not None:
        print(f"{write_fix_list(reports, args.fix_list)} files to download again -> {args.fix_list}")
    return 1 if any(report.problems for report in reports) else 0


def _share(text: str) -> float:
    value = number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be in 0 to 1, got {value}")
    return value
