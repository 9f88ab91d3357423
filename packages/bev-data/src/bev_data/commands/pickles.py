"""`bev-data import` and `export`: infos of BEVDepth and BEVStereo."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bev_data.commands.options import add_command, add_version, version_and_splits
from bev_data.errors import InputError

if TYPE_CHECKING:
    from bev_data.commands.options import Commands


def add_import(commands: "Commands") -> None:
    """Register `import`."""
    parser = add_command(
        commands,
        "import",
        "take infos from a pickle of BEVDepth or BEVStereo",
        "Reads nuscenes_infos_*.pkl or nuscenes_12hz_infos_*.pkl without running anything in it and writes\n"
        "the same infos to ROOT/infos, where training finds them. Where ROOT has the tables, infos made\n"
        "from them by `bev-data prepare` hold more: names of scenes, attributes, unknown velocities.\n"
        "Depth files of these projects in ROOT/depth_gt need no import: training reads them as they are.",
        "bev-data import data/nuscenes nuscenes_infos_val.pkl",
    )
    parser.add_argument("pickle", type=Path, metavar="PICKLE")
    add_version(parser)
    parser.add_argument("--split", help="default: as the pickle's name says")
    parser.set_defaults(run=_run_import)


def _run_import(args: argparse.Namespace) -> None:
    from bev_data.infos.pickles import import_pickle, split_of_pickle
    from bev_data.locations import infos_path
    from bev_data.nuscenes.versions import find_version, list_versions

    split = args.split or split_of_pickle(args.pickle)
    if split is None:
        raise InputError(f"--split must be given for a pickle named {args.pickle.name}")
    if args.version is None and not list_versions(args.root):
        raise InputError(
            f"--version must be given, such as v1.0-trainval, where there are no tables as in {args.root}"
        )
    version = args.version or find_version(args.root)
    infos, dropped = import_pickle(args.pickle, args.root, version=version, split=split)
    saved = infos.save(infos_path(args.root, version, split))
    print(f"{split}: {len(saved)} key frames, {len(saved.cameras)} cameras -> {saved.path}")
    if dropped:
        print(
            f"{dropped} sweeps were left out: the pickle gives them the pose of another moment; "
            f"`bev-data prepare` collects them from the tables"
        )


def add_export(commands: "Commands") -> None:
    """Register `export`."""
    parser = add_command(
        commands,
        "export",
        "write infos as a pickle for BEVDepth or BEVStereo",
        "The pickle has the records that their data sets and depth scripts read. Rotations are made of\n"
        "matrices: a quaternion may differ in its last digit or its sign.",
        "bev-data export data/nuscenes nuscenes_infos_val.pkl --split val",
    )
    parser.add_argument("pickle", type=Path, metavar="PICKLE")
    add_version(parser)
    parser.add_argument("--split", help="default: as the pickle's name says")
    parser.set_defaults(run=_run_export)


def _run_export(args: argparse.Namespace) -> None:
    from bev_data.infos.infos import open_infos
    from bev_data.infos.pickles import export_pickle, split_of_pickle

    split = args.split or split_of_pickle(args.pickle)
    if split is None:
        raise InputError(f"--split must be given for a pickle named {args.pickle.name}")
    infos = open_infos(args.root, version_and_splits(args)[0], split)
    export_pickle(infos, args.pickle)
    print(f"{split}: {len(infos)} key frames -> {args.pickle}")
