"""`bev-data import-av2`: infos of the Argoverse 2 sensor data set."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bev_data.commands.options import positive

if TYPE_CHECKING:
    from bev_data.commands.options import Commands


def add_import_av2(commands: "Commands") -> None:
    """Register `import-av2`."""
    parser = commands.add_parser(
        "import-av2",
        help="take infos from logs of the Argoverse 2 sensor data set",
        description="Take infos from logs of the Argoverse 2 sensor data set.\n\n"
        "Reads the feather files of one log, or of all logs of a folder in ROOT, and writes cameras, lidar,\n"
        "boxes, velocities and earlier images to ROOT/infos/av2_SPLIT.arrow. No file is copied.",
        epilog="example:\n  bev-data import-av2 data/av2/val data/av2\n"
        "  bev-train fit CONFIG --data.root data/av2 --data.version av2 --data.splits.train train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="LOG_OR_FOLDER", help="a log, or a folder of logs")
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder that holds them")
    parser.add_argument("--split", help="name of the split (default: the folder's)")
    parser.add_argument(
        "--stride",
        type=positive,
        default=5,
        help="every so many of the 10 lidar sweeps a second is a key frame (default: %(default)s)",
    )
    parser.add_argument(
        "--sweeps", type=positive, default=6, help="images before a key frame (default: %(default)s)"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from bev_data.infos.argoverse import import_argoverse
    from bev_data.locations import infos_path

    split = args.split or args.source.resolve().name
    infos = import_argoverse(args.source, args.root, split=split, stride=args.stride, num_sweeps=args.sweeps)
    saved = infos.save(infos_path(args.root, infos.version, split))
    print(
        f"{split}: {len(saved)} key frames, {len(saved.cameras)} cameras, {saved.num_boxes} boxes "
        f"-> {saved.path}"
    )
