"""`bev-data synth`: the command line of the rendered world."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bev_data.commands.options import Commands

_TEXT = """Render a nuScenes-format database.

Streets with every detection class, standing and moving, seen by six cameras and a lidar, with exact boxes,
poses and depth. Up to ten scenes make a v1.0-mini, more a v1.0-trainval, with the official scene names, so
that every nuScenes tool works on it. The same arguments give the same world; a run that was stopped goes on
where it was."""

_EXAMPLES = """examples:
  bev-data synth data/world
      ten scenes with sweeps, in little more than a minute on two cores
  bev-data synth data/small --image-size 400x225 --sweep-hz 0 --scenes 46 --val-scenes 6
      40 + 6 scenes of key frames, to train a small model
  bev-data synth data/other --seed 1
      another world"""


def add_synth(commands: "Commands") -> None:
    """Register `synth`."""
    parser = commands.add_parser(
        "synth",
        help="render a nuScenes-format world, no download needed",
        description=_TEXT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="folder to write: missing, empty, or begun before"
    )
    parser.add_argument("--scenes", type=int, default=10, help="2 to 850 (default %(default)s)")
    parser.add_argument(
        "--val-scenes", type=int, help="how many of them are for validation (default 2 of 10, 1 of 8)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="another number, another world (default %(default)s)"
    )
    parser.add_argument(
        "--image-size", type=_size, default=(800, 450), metavar="WxH", help="pixels, 16:9 (default 800x450)"
    )
    parser.add_argument("--key-frames", type=int, default=20, help="per scene, at 2 Hz (default %(default)s)")
    parser.add_argument(
        "--sweep-hz",
        type=int,
        default=8,
        help="images per second of each camera, even; 0 for key frames only (default %(default)s)",
    )
    parser.add_argument(
        "--supersample",
        type=int,
        help="looks per pixel in each direction (default: as many as make 800 across; 1 at 800x450)",
    )
    parser.add_argument("--workers", type=int, help="threads (default: one per core); the world is the same")
    parser.set_defaults(run=_run)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"an image size is written WIDTHxHEIGHT, as in 800x450, got {text!r}"
        )
    return int(found[1]), int(found[2])


def _run(args: argparse.Namespace) -> None:
    from bev_data.world.world import write_world

    write_world(
        args.out,
        scenes=args.scenes,
        seed=args.seed,
        image_size=args.image_size,
        val_scenes=args.val_scenes,
        key_frames=args.key_frames,
        sweep_hz=args.sweep_hz,
        supersample=args.supersample,
        workers=args.workers,
    )
