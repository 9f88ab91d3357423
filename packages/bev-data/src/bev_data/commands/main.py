"""The command line of bev-data."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bev_data.atomic import atomic_path
from bev_data.commands.check import add_check
from bev_data.commands.options import above_zero, add_command, add_version, chosen_version, version_and_splits
from bev_data.commands.pickles import add_export, add_import
from bev_data.commands.prepare import add_depth_gt, add_infos, add_prepare
from bev_data.errors import InputError
from bev_data.infos.info import Info
from bev_data.infos.infos import open_infos
from bev_data.nuscenes.splits import list_splits

if TYPE_CHECKING:
    from bev_data.scores.official import DetectionMetrics

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_EVALUATION_SPLIT = {"v1.0-mini": "mini_val", "v1.0-trainval": "val", "v1.0-test": "test"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 1 where a check found problems; 2 where the input cannot be used, after one sentence on stderr;
        130 where the user stopped it.
    """
    args = _parser().parse_args(arguments)
    try:
        code: int | None = args.run(args)
    except (InputError, OSError) as error:
        print(f"bev-data {args.command}: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"bev-data {args.command}: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return code or 0


def _sentence(error: InputError | OSError) -> str:
    """What is wrong; errors of the system itself, which name a file and a reason only, in the same form."""
    if isinstance(error, OSError) and error.errno is not None:
        place = error.filename if error.filename is not None else "a file"
        return f"{place} cannot be used: {error.strerror}; check the path, the disk and your rights"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    # Here, because the workers of depth-gt import this module too and need no renderer.
    from bev_data.commands.synth import add_parser as add_synth

    parser = argparse.ArgumentParser(
        prog="bev-data",
        description="nuScenes-format data for camera-only 3D detection.",
        epilog="A first look, without a download:\n"
        "  bev-data synth data/world\n"
        "  bev-data show data/world 0 --out sample.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_prepare(commands)
    add_check(commands)
    _add_show(commands)
    add_infos(commands)
    add_depth_gt(commands)
    add_import(commands)
    add_export(commands)
    add_synth(commands)
    _add_eval(commands)
    return parser


def _split(args: argparse.Namespace, version: str, splits: Sequence[str]) -> str:
    only = splits[0] if len(splits) == 1 else None
    split: str | None = args.split or _EVALUATION_SPLIT.get(version, only)
    if split is None:
        raise InputError(f"--split must be given for {version}; it has: {', '.join(splits)}")
    return split


def _add_show(commands: "Commands") -> None:
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
    parser.set_defaults(run=_run_show)


def _run_show(args: argparse.Namespace) -> None:
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
        info, args.root, detections=detections, score_threshold=args.score_threshold, bev_range=args.range
    )
    with atomic_path(args.out) as temporary:
        picture.save(temporary, "PNG" if args.out.suffix.lower() == ".png" else "JPEG")
    print(f"{info.token} of {info.scene} -> {args.out}")


def _find_sample(args: argparse.Namespace) -> Info:
    version, splits = version_and_splits(args)
    if args.sample.isdecimal() and len(args.sample) < 10:
        infos = open_infos(args.root, version, _split(args, version, splits))
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


def _add_eval(commands: "Commands") -> None:
    parser = add_command(
        commands,
        "eval",
        "score a results file by the official nuScenes evaluation",
        "Prints mAP, NDS, the five errors and each class. The file must have an entry for every key frame\n"
        "of the split, as `bev-train predict` writes it.",
        "bev-data eval data/nuscenes outputs/predictions.json --split mini_val",
    )
    add_version(parser)
    parser.add_argument("results", type=Path, metavar="RESULTS.json", help="nuScenes results file")
    parser.add_argument("--split", help="default: the one for evaluation")
    parser.add_argument("--class-range", type=above_zero, help="count boxes within this radius only, metres")
    parser.add_argument(
        "--engine",
        choices=("devkit", "fast"),
        default="devkit",
        help="devkit: the official code, for numbers that are reported; fast: the same metrics without it, "
        "more than ten times as fast (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, help="write the scores to this JSON file too")
    parser.set_defaults(run=_run_eval)


def _run_eval(args: argparse.Namespace) -> None:
    from bev_data.scores.official import evaluate_detections
    from bev_data.scores.results import read_results

    version = chosen_version(args)
    split = _split(args, version, list_splits(args.root, version))
    metrics = evaluate_detections(
        read_results(args.results),
        args.root,
        version,
        split,
        class_range=args.class_range,
        engine=args.engine,
    )
    computed = "the devkit's code" if args.engine == "devkit" else "the fast engine"
    print(_score_table(metrics, f"{version} {split}, {metrics.num_samples} key frames, by {computed}"))
    if args.out is not None:
        with atomic_path(args.out) as temporary:
            temporary.write_text(
                json.dumps({**asdict(metrics), "engine": args.engine}, indent=2), encoding="utf-8"
            )


def _score_table(metrics: "DetectionMetrics", title: str) -> str:
    names = ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE")
    lines = [title, "  ".join(f"{name} {getattr(metrics, name):.4f}" for name in names), ""]
    lines.append(f"{'class':<22}{'range m':>8}{'AP':>8}{'ATE':>8}{'ASE':>8}{'AOE':>8}{'AVE':>8}{'AAE':>8}")
    for name, ap in metrics.class_ap.items():
        errors = "".join(f"{value:>8.3f}" for value in metrics.class_errors[name].values())
        lines.append(f"{name:<22}{metrics.class_range[name]:>8g}{ap:>8.3f}{errors}")
    return "\n".join(lines)
