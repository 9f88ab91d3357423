"""Does temporal stereo give better depth than one image? Trains both at equal steps, over several seeds.

    python benchmarks/stereo_depth.py --data data/quickstart --steps 500 --seeds 0 1 2

needs the four packages and a world, which it renders where there is none. Each run is the quickstart config
with another seed, with stereo on or off; mono and stereo take turns. Depth is scored on the held-out scenes
against lidar: at all points, and at those on labelled objects.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from bev_data.world import write_world
from bev_train.quickstart import CONFIG, VAL_SCENES, WORLD
from bev_train.run import run

VARIANTS = {"mono": ["--model.detector.stereo", "null"], "stereo": []}
TRAIN_SCENES = 38
SCORES = ("depth_abs_rel", "depth_objects_abs_rel")


def train(variant: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train one detector and score its depth."""
    output = options.output / f"{variant}-{seed}"
    done = output / "scores.json"
    if done.is_file():
        return dict(json.loads(done.read_text()))
    settings = {
        "data.root": options.data,
        "seed_everything": seed,
        "output": output,
        # As published; the quickstart cares more for boxes.
        "model.loss.depth_weight": 3,
        "trainer.max_steps": options.steps,
        "trainer.check_val_every_n_epoch": "null",
        "trainer.val_check_interval": options.steps,
        "pictures.count": 0,
    }
    arguments = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    start = time.perf_counter()
    command = run(["fit", CONFIG, *VARIANTS[variant], *arguments])
    scores = {name: float(command.trainer.callback_metrics[f"val/{name}"]) for name in (*SCORES, "mAP")}
    scores["minutes"] = (time.perf_counter() - start) / 60
    done.write_text(json.dumps(scores))
    return scores


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/quickstart"))
    parser.add_argument("--output", type=Path, default=Path("outputs/stereo_depth"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    write_world(options.data, scenes=TRAIN_SCENES + VAL_SCENES, val_scenes=VAL_SCENES, **WORLD)

    results = {
        (variant, seed): train(variant, seed, options) for seed in options.seeds for variant in VARIANTS
    }
    print("\n| variant | seed | AbsRel, all points | AbsRel, on objects | mAP | minutes |")
    print("|---|---|---|---|---|---|")
    for (variant, seed), scores in results.items():
        columns = " | ".join(f"{scores[name]:.4f}" for name in (*SCORES, "mAP"))
        print(f"| {variant} | {seed} | {columns} | {scores['minutes']:.1f} |")
    for name in SCORES:
        mono, stereo = (
            statistics.mean(results[variant, seed][name] for seed in options.seeds) for variant in VARIANTS
        )
        print(f"{name}: stereo / mono = {stereo / mono:.3f} (means {stereo:.4f} / {mono:.4f})")


if __name__ == "__main__":
    main()
