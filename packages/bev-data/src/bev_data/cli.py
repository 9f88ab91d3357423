"""The command line of bev-data."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bev_data.depth_gt import write_depth_files
from bev_data.errors import InputError
from bev_data.files import atomic_path
from bev_data.info import Info
from bev_data.infos import build_infos, find_version, infos_path, open_infos
from bev_data.splits import list_splits
from bev_data.tables import check_tables

if TYPE_CHECKING:
    from bev_data.evaluate import DetectionMetrics

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

# What is wrong with the input, not with the program.
_INPUT_ERRORS = (InputError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)

_EVALUATION_SPLIT = {"v1.0-mini": "mini_val", "v1.0-trainval": "val", "v1.0-test": "test"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 2 where the input cannot be used, after one sentence on stderr; 130 where the user stopped it.
    """
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
    except _INPUT_ERRORS as error:
        print(f"bev-data {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"bev-data {args.command}: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    # Here, because the workers of depth-gt import this module too and need no renderer.
    from bev_data.synthetic.command import add_parser as add_synth

    parser = argparse.ArgumentParser(
        prog="bev-data",
        description="nuScenes-format data for camera-only 3D detection.",
        epilog="A first look, without a download:\n"
        "  bev-data synth data/world\n"
        "  bev-data show data/world 0 --out sample.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_infos(commands)
    _add_depth_gt(commands)
    add_synth(commands)
    _add_show(commands)
    _add_eval(commands)
    return parser


def _add_command(
    commands: "Commands", name: str, title: str, text: str, example: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=title,
        description=f"{title[0].upper()}{title[1:]}.\n\n{text}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder with v1.0-*/, samples/ and sweeps/")
    parser.add_argument(
        "--version", help="such as v1.0-mini; default: the one there is, trainval before mini"
    )
    return parser


def _version(args: argparse.Namespace) -> str:
    version: str = args.version or find_version(args.root)
    check_tables(args.root, version)
    return version


def _split(args: argparse.Namespace, version: str) -> str:
    split: str | None = args.split or _EVALUATION_SPLIT.get(version)
    if split is None:
        raise InputError(
            f"--split must be given for {version}; it has: {', '.join(list_splits(args.root, version))}"
        )
    return split


def _splits(args: argparse.Namespace, version: str) -> list[str]:
    # The two halves of the train split are built only when they are asked for.
    halves = ("train_detect", "train_track")
    splits = args.split or [split for split in list_splits(args.root, version) if split not in halves]
    if not splits:
        raise InputError(
            f"{version} in {args.root} must have scenes of a known split; name others in splits.json"
        )
    return list(splits)


def _add_infos(commands: "Commands") -> None:
    parser = _add_command(
        commands,
        "infos",
        "collect the key frames of each split into one file",
        "Reads the tables and writes, for every split, files, poses, calibrations, camera sweeps, boxes\n"
        "and velocities of its key frames to ROOT/infos/VERSION_SPLIT.arrow (to ~/.cache/bev-data where\n"
        "ROOT cannot be written). Training does the same by itself when the file is missing or the tables\n"
        "have changed.",
        "bev-data infos data/nuscenes --version v1.0-trainval",
    )
    parser.add_argument("--split", action="append", help="may be repeated; default: all that the version has")
    parser.add_argument(
        "--sweeps", type=_positive, default=6, help="images before a key frame (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="folder for the files")
    parser.set_defaults(run=_run_infos)


def _run_infos(args: argparse.Namespace) -> None:
    version = _version(args)
    for split in _splits(args, version):
        infos = build_infos(args.root, version, split, num_sweeps=args.sweeps)
        path = infos_path(args.root, version, split)
        saved = infos.save(path if args.out is None else args.out / path.name)
        boxes = len(infos.boxes_per_category()[0])
        print(
            f"{split}: {len(infos)} key frames, {len(infos.cameras)} cameras, {boxes} boxes -> {saved.path}"
        )


def _add_depth_gt(commands: "Commands") -> None:
    parser = _add_command(
        commands,
        "depth-gt",
        "write lidar depth for every key-frame image",
        "Projects each LIDAR_TOP sweep into the images of its key frame and writes (u, v, depth) as\n"
        "float32, in pixels and metres, to ROOT/depth_gt/IMAGE.bin. Files that are there are kept, so\n"
        "a run that was stopped goes on. Training computes the same numbers as it goes without them.",
        "bev-data depth-gt data/nuscenes --workers 8",
    )
    parser.add_argument("--split", action="append", help="may be repeated; default: all that the version has")
    parser.add_argument(
        "--workers", type=_positive, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="write files anew that are there")
    parser.set_defaults(run=_run_depth_gt)


def _run_depth_gt(args: argparse.Namespace) -> None:
    version = _version(args)
    written = kept = 0
    for split in _splits(args, version):
        infos = open_infos(args.root, version, split)
        counts = write_depth_files(args.root, infos, workers=args.workers, overwrite=args.overwrite)
        written, kept = written + counts[0], kept + counts[1]
    print(f"{written} depth files written, {kept} kept -> {args.root / 'depth_gt'}")


def _add_show(commands: "Commands") -> None:
    parser = _add_command(
        commands,
        "show",
        "draw a key frame: cameras, boxes, lidar depth, bird's-eye view",
        "Needs no display. With --results, detections are drawn over the true boxes.",
        "bev-data show data/nuscenes 0 --split mini_val --out sample.png",
    )
    parser.add_argument("sample", metavar="TOKEN_OR_INDEX", help="sample token, or the number of a key frame")
    parser.add_argument("--split", help="of an index; default: the one for evaluation")
    parser.add_argument("--out", type=Path, required=True, help="the picture, a .png or .jpg file")
    parser.add_argument("--results", type=Path, help="nuScenes results file with detections")
    parser.add_argument(
        "--score-threshold", type=float, default=0.3, help="of detections (default: %(default)s)"
    )
    parser.add_argument(
        "--range", type=_above_zero, default=51.2, help="of the plot, metres (default: %(default)s)"
    )
    parser.set_defaults(run=_run_show)


def _run_show(args: argparse.Namespace) -> None:
    from bev_data.draw import draw_sample
    from bev_data.results import from_nuscenes_results, read_results

    if args.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"--out must be a .png or .jpg file, got {args.out}")
    info = _find_sample(args, _version(args))
    detections = None
    if args.results is not None:
        results = read_results(args.results)
        if info.token not in results:
            raise InputError(f"{args.results} must have an entry for the sample {info.token}, got none")
        detections = from_nuscenes_results(results[info.token], info.keyego2global)
    picture = draw_sample(
        info, args.root, detections=detections, score_threshold=args.score_threshold, bev_range=args.range
    )
    with atomic_path(args.out) as temporary:
        picture.save(temporary, "PNG" if args.out.suffix.lower() == ".png" else "JPEG")
    print(f"{info.token} of {info.scene} -> {args.out}")


def _find_sample(args: argparse.Namespace, version: str) -> Info:
    if args.sample.isdecimal() and len(args.sample) < 10:
        infos = open_infos(args.root, version, _split(args, version))
        index = int(args.sample)
        if index >= len(infos):
            raise InputError(
                f"the index must be below {len(infos)}, the key frames of {infos.split}, got {index}"
            )
        return infos[index]
    for split in [args.split] if args.split else list_splits(args.root, version):
        infos = open_infos(args.root, version, split)
        tokens = infos.tokens
        if args.sample in tokens:
            return infos[tokens.index(args.sample)]
    raise InputError(
        f"the sample must be a token of {version} in {args.root} or an index, got {args.sample!r}"
    )


def _add_eval(commands: "Commands") -> None:
    parser = _add_command(
        commands,
        "eval",
        "score a results file by the official nuScenes evaluation",
        "Prints mAP, NDS, the five errors and each class. The file must have an entry for every key frame\n"
        "of the split, as `bev-train predict` writes it.",
        "bev-data eval data/nuscenes outputs/predictions.json --split mini_val",
    )
    parser.add_argument("results", type=Path, metavar="RESULTS.json", help="nuScenes results file")
    parser.add_argument("--split", help="default: the one for evaluation")
    parser.add_argument("--class-range", type=_above_zero, help="count boxes within this radius only, metres")
    parser.add_argument("--out", type=Path, help="write the scores to this JSON file too")
    parser.set_defaults(run=_run_eval)


def _run_eval(args: argparse.Namespace) -> None:
    from bev_data.evaluate import evaluate_detections
    from bev_data.results import read_results

    version = _version(args)
    split = _split(args, version)
    metrics = evaluate_detections(
        read_results(args.results), args.root, version, split, class_range=args.class_range
    )
    print(_score_table(metrics, f"{version} {split}, {metrics.num_samples} key frames"))
    if args.out is not None:
        with atomic_path(args.out) as temporary:
            temporary.write_text(json.dumps(asdict(metrics), indent=2), encoding="utf-8")


def _score_table(metrics: "DetectionMetrics", title: str) -> str:
    names = ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE")
    lines = [title, "  ".join(f"{name} {getattr(metrics, name):.4f}" for name in names), ""]
    lines.append(f"{'class':<22}{'range m':>8}{'AP':>8}{'ATE':>8}{'ASE':>8}{'AOE':>8}{'AVE':>8}{'AAE':>8}")
    for name, ap in metrics.class_ap.items():
        errors = "".join(f"{value:>8.3f}" for value in metrics.class_errors[name].values())
        lines.append(f"{name:<22}{metrics.class_range[name]:>8g}{ap:>8.3f}{errors}")
    return "\n".join(lines)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value


def _above_zero(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {value}")
    return value
