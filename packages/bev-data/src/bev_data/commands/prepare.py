"""`bev-data prepare`, `infos` and `depth-gt`: what is made of a data root before training."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bev_data.commands.options import add_command, add_version, add_workers, chosen_version, positive
from bev_data.errors import InputError

if TYPE_CHECKING:
    from bev_data.commands.options import Commands


def add_prepare(commands: "Commands") -> None:
    """Register `prepare`."""
    parser = add_command(
        commands,
        "prepare",
        "make a data root ready for training, and check it",
        "Finds the versions and splits of ROOT, writes the infos of all of them to ROOT/infos (to\n"
        "~/.cache/bev-data where ROOT cannot be written), and reads the tables and the files of some key\n"
        "frames for problems. What is there and up to date is kept: a run that was stopped goes on.\n"
        "Ends with 1 where the check finds problems; `bev-data check` then reads every file.",
        "bev-data prepare data/nuscenes\n"
        "  bev-data prepare data/nuscenes --version v1.0-trainval --split-file night.txt",
    )
    parser.add_argument("--version", action="append", help="may be repeated; default: all that ROOT has")
    parser.add_argument(
        "--split", action="append", help="may be repeated; default: all that the versions have"
    )
    parser.add_argument(
        "--split-file",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="add splits of your own: a .txt file of scene names or sample tokens is the split of the file's "
        "name, a .json file maps names to lists",
    )
    parser.add_argument("--sweeps", type=positive, help="images before a key frame (default: 6)")
    lacking = parser.add_mutually_exclusive_group()
    lacking.add_argument(
        "--incomplete",
        choices=("refuse", "drop"),
        help="what to do with key frames that lack an image of a camera: end with an error, or leave them "
        "out (default: as before, else refuse)",
    )
    lacking.add_argument(
        "--available",
        action="store_const",
        dest="incomplete",
        const="available",
        help="for a partial download: leave out key frames and sweeps whose files are not there",
    )
    parser.add_argument(
        "--depth-gt", action="store_true", help="write lidar depth as files; default: training computes it"
    )
    parser.add_argument(
        "--check", choices=("sample", "tables", "none"), default="sample", help="(default: %(default)s)"
    )
    add_workers(parser)
    parser.set_defaults(run=_run_prepare)


def _run_prepare(args: argparse.Namespace) -> int:
    from bev_data.checks.prepare import prepare

    prepared = prepare(
        args.root,
        versions=args.version,
        splits=args.split,
        split_files=args.split_file,
        num_sweeps=args.sweeps,
        incomplete=args.incomplete,
        depth_files=args.depth_gt,
        check=args.check,
        workers=args.workers,
    )
    print(prepared.text())
    return 1 if prepared.problems else 0


def add_infos(commands: "Commands") -> None:
    """Register `infos`."""
    parser = add_command(
        commands,
        "infos",
        "collect the key frames of each split into one file",
        "Reads the tables and writes, for every split, files, poses, calibrations, camera sweeps, boxes\n"
        "and velocities of its key frames to ROOT/infos/VERSION_SPLIT.arrow (to ~/.cache/bev-data where\n"
        "ROOT cannot be written). Training does the same by itself when the file is missing or the tables\n"
        "have changed.",
        "bev-data infos data/nuscenes --version v1.0-trainval",
    )
    add_version(parser)
    parser.add_argument("--split", action="append", help="may be repeated; default: all that the version has")
    parser.add_argument(
        "--sweeps", type=positive, default=6, help="images before a key frame (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="folder for the files")
    parser.set_defaults(run=_run_infos)


def _run_infos(args: argparse.Namespace) -> None:
    from bev_data.infos.infos import build_infos
    from bev_data.locations import infos_path

    version = chosen_version(args)
    for split in _splits(args, version):
        infos = build_infos(args.root, version, split, num_sweeps=args.sweeps)
        path = infos_path(args.root, version, split)
        saved = infos.save(path if args.out is None else args.out / path.name)
        print(
            f"{split}: {len(infos)} key frames, {len(infos.cameras)} cameras, {infos.num_boxes} boxes "
            f"-> {saved.path}"
        )


def _splits(args: argparse.Namespace, version: str) -> list[str]:
    from bev_data.nuscenes.splits import list_splits

    # The two halves of the train split are built only when they are asked for.
    halves = ("train_detect", "train_track")
    splits = args.split or [split for split in list_splits(args.root, version) if split not in halves]
    if not splits:
        raise InputError(
            f"{version} in {args.root} must have scenes of a known split; add splits of your own with "
            f"`bev-data prepare --split-file FILE`"
        )
    return list(splits)


def add_depth_gt(commands: "Commands") -> None:
    """Register `depth-gt`."""
    parser = add_command(
        commands,
        "depth-gt",
        "write lidar depth for every key-frame image",
        "Projects each LIDAR_TOP sweep into the images of its key frame and writes (u, v, depth) as\n"
        "float32, in pixels and metres, to ROOT/depth_gt/IMAGE.bin. Files that are there are kept, so\n"
        "a run that was stopped goes on. Training computes the same numbers as it goes without them.",
        "bev-data depth-gt data/nuscenes --workers 8",
    )
    add_version(parser)
    parser.add_argument("--split", action="append", help="may be repeated; default: all that the version has")
    add_workers(parser)
    parser.add_argument("--overwrite", action="store_true", help="write files anew that are there")
    parser.set_defaults(run=_run_depth_gt)


def _run_depth_gt(args: argparse.Namespace) -> None:
    from bev_data.infos.infos import open_infos
    from bev_data.samples.depth_files import write_depth_files

    version = chosen_version(args)
    written = kept = 0
    for split in _splits(args, version):
        infos = open_infos(args.root, version, split)
        counts = write_depth_files(args.root, infos, workers=args.workers, overwrite=args.overwrite)
        written, kept = written + counts[0], kept + counts[1]
    print(f"{written} depth files written, {kept} kept -> {args.root / 'depth_gt'}")
