"""`bev-data eval`: the scores of a results file."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bev_data.commands.options import above_zero, add_command, add_version, chosen_split, chosen_version

if TYPE_CHECKING:
    from bev_data.commands.options import Commands
    from bev_data.scores.official import DetectionMetrics


def add_eval(commands: "Commands") -> None:
    """Register `eval`."""
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
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from bev_data.atomic import atomic_path
    from bev_data.nuscenes.splits import list_splits
    from bev_data.scores.official import evaluate_detections
    from bev_data.scores.results import read_results

    version = chosen_version(args)
    split = chosen_split(args, version, list_splits(args.root, version))
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
