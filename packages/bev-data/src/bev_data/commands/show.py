"""`bev-data show`: a key frame as a picture."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bev_data.commands.options import above_zero, add_command, add_version, chosen_split, version_and_splits
from bev_data.errors import InputError

if TYPE_CHECKING:
    from bev_data.commands.options import Commands
    from bev_data.infos.info import Info


def add_show(commands: "Commands") -> None:
    """Register `show`."""
    parser = add_command(
        commands,
        "show",
        "draw a key frame: cameras, boxes, lidar depth, bird's-eye view",
        "Needs no display. With --results, detections are drawn over the true boxes.",
        "bev-data show data/nuscenes 0 --split mini_val --out sample.png",
    )
    add_version(parser)
    parser.add_argument("sample", metavar="TOKEN_OR_INDEX", help="sample token, or the number of a key frame")
    parser.add_argument("--split", help="of an index; default: the one for evaluation")
    parser.add_argument("--out", type=Path, required=True, help="the picture, a .png or .jpg file")
    parser.add_argument("--results", type=Path, help="nuScenes results file with detections")
    parser.add_argument(
        "--score-threshold", type=float, default=0.3, help="of detections (default: %(default)s)"
    )
    parser.add_argument(
        "--range", type=above_zero, default=51.2, help="of the plot, metres (default: %(default)s)"
    )
    parser.add_argument(
        "--input",
        type=_size,
        metavar="HxW",
        help="show what the network sees: images as evaluation brings them to HEIGHTxWIDTH, such as 256x704",
    )
    parser.set_defaults(run=_run)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None or not (0 < int(found[1]) <= 8192 and 0 < int(found[2]) <= 8192):
        raise argparse.ArgumentTypeError(
            f"must be HEIGHTxWIDTH in pixels up to 8192, as in 256x704, got {text!r}"
        )
    return int(found[1]), int(found[2])


def _run(args: argparse.Namespace) -> None:
    from bev_data.atomic import atomic_path
    from bev_data.pictures.page import draw_sample
    from bev_data.scores.results import from_nuscenes_results, read_results

    if args.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"--out must be a .png or .jpg file, got {args.out}")
    info = _find_sample(args)
    detections = None
    if args.results is not None:
        results = read_results(args.results)
        if info.token not in results:
            raise InputError(f"{args.results} must have an entry for the sample {info.token}, got none")
        detections = from_nuscenes_results(results[info.token], info.keyego2global)
    picture = draw_sample(
        info,
        args.root,
        detections=detections,
        score_threshold=args.score_threshold,
        bev_range=args.range,
        image_size=args.input,
    )
    with atomic_path(args.out) as temporary:
        picture.save(temporary, "PNG" if args.out.suffix.lower() == ".png" else "JPEG")
    print(f"{info.token} of {info.scene} -> {args.out}")


def _find_sample(args: argparse.Namespace) -> "Info":
    from bev_data.infos.infos import open_infos

    version, splits = version_and_splits(args)
    if args.sample.isdecimal() and len(args.sample) < 10:
        infos = open_infos(args.root, version, chosen_split(args, version, splits))
        index = int(args.sample)
        if index >= len(infos):
            raise InputError(
                f"the index must be below {len(infos)}, the key frames of {infos.split}, got {index}"
            )
        return infos[index]
    for split in [args.split] if args.split else splits:
        infos = open_infos(args.root, version, split)
        tokens = infos.tokens
        if args.sample in tokens:
            return infos[tokens.index(args.sample)]
    raise InputError(
        f"the sample must be a token of {version} in {args.root} or an index, got {args.sample!r}"
    )
