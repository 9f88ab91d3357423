"""How far rounding alone moves what the detector computes: where the limits of test_parity.py come from.

    python -m tests.models.sensitivity            measure, print the table and write goldens/sensitivity.json
    python -m tests.models.sensitivity --table    print the stored table

The published path is run in float64, and many times in float32: with every image value, or every entry of
every matrix, moved by one unit in the last place up or down at random; with one thread and two; with torch,
oneDNN and bev_ops held to each instruction set of the processor. A measure is the largest distance of these
runs from the one in float64. The reference is one more run in float32, so that it and ours may each be that
far off; as a dozen runs do not find the worst, the tests allow `MARGIN` times the measure.

Of tensors that the search has a part in, the 0.5 % of entries that are furthest off do not count: in single
cells, others in every run, it ends elsewhere. All that it has no part in, and all that follows from given
depth, counts whole.
"""

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bev_models import Cameras, Detector
from bev_ops import devices

from .conftest import GOLDENS
from .parity import (
    MODES,
    VARIANTS,
    Given,
    Inputs,
    Run,
    bulk_distance,
    goldens_of,
    gradient_differences,
    inputs_of,
    one_run,
    reference_of,
    stage_names,
    stride_of,
)

STORE = GOLDENS / "sensitivity.json"
MARGIN = 4.0
SEEDS = 3


class Kind(NamedTuple):
    """A detector, and the share of a tensor's entries that counts."""

    detector: type[Detector]
    share: float


KINDS = {"own depth": Kind(Detector, 0.995), "given depth": Kind(Given, 1.0)}

# Names of the reference's tensors, and what the table calls them; first match wins.
STAGES = (
    (r"s\d\..*", "up to the search"),
    (r".*it(\d)\.score", "matching score, iteration {}"),
    (r".*mu_pooled", "depth per range"),
    (r".*stereo_depth", "stereo density"),
    (r".*depth_downsample", "stereo logits"),
    (r".*mask(_score)?", "mask"),
    (r".*depth_score", "depth distribution"),
    (r".*depth_aggregation", "refined volume"),
    (r"ref\d\.bev", "BEV map"),
    (r"head\..*", "encoder and head"),
)
Measures = dict[str, dict[str, float]]


def stage_of(name: str) -> str:
    """What the table calls a tensor of the reference, without its mode."""
    for pattern, label in STAGES:
        if found := re.fullmatch(pattern, name):
            return label.format(*found.groups())
    raise KeyError(name)


@functools.cache
def stored() -> Mapping[str, Any]:
    """What was measured last."""
    return json.loads(STORE.read_text(encoding="utf-8"))


def limit(kind: str, mode: str, measure: str) -> float:
    """What a test allows."""
    return MARGIN * float(stored()["measures"][f"{kind}, {mode}"][measure])


def statistics_distance(value: Tensor, norm: float, dot: float) -> float:
    """How far running statistics are from the reference's norm and product with a ramp, relative."""
    value = value.double()
    ramp = torch.arange(len(value), dtype=torch.float64).cos()
    off = max(abs(float(value.norm()) - norm), abs(float(value @ ramp) - dot) / float(ramp.norm()))
    return off / norm


def measure(run: Run, exact: Run, variant: str, share: float) -> Measures:
    """Distances of a run from the exact one, by mode and measure, as the tests take them."""
    found: Measures = {mode: {} for mode in MODES}

    def largest(mode: str, name: str, value: float) -> None:
        found[mode][name] = max(found[mode].get(name, 0.0), value)

    golden = goldens_of(variant)
    for name in stage_names(variant):
        mode = "trainBN" if name.startswith("train.") else "evalBN"
        if name in run.stages:
            label = stage_of(name.removeprefix("train."))
            off = _stage_distance(run.stages[name], exact.stages[name], golden[name].size, share)
            largest(mode, label, off)
    for mode, prefix in MODES.items():
        for reference in range(2):
            name = f"{prefix}ref{reference}.depth_score"
            off = bulk_distance(run.stages[name], exact.stages[name], share)
            largest(mode, "depth distribution, whole", off)
        for name, loss in exact.losses[mode].items():
            largest(mode, "losses", abs(float(run.losses[mode][name] / loss) - 1))
        norms = {name: None if norm is None else float(norm) for name, norm in exact.gradients[mode].items()}
        kept = {name: norms[name] for name in reference_of(variant)["grads"][mode]}
        off, total = gradient_differences(run.gradients[mode], kept)
        values = torch.stack(list(off.values()))
        _, exact_total = gradient_differences(exact.gradients[mode], kept)
        largest(mode, "gradients, median", float(values.median()))
        largest(mode, "gradients, 95 % of them", float(values.quantile(0.95)))
        largest(mode, "gradients, norm of all", abs(total / exact_total - 1))
        head = [float(value) for name, value in off.items() if name.startswith("head.")]
        largest(mode, "gradients of the head, largest", max(head))
    for name, value in exact.state.items():
        if name.endswith(("running_mean", "running_var")):
            exactly = value.double()
            ramp = torch.arange(len(value), dtype=torch.float64).cos()
            off = statistics_distance(run.state[name], float(exactly.norm()), float(exactly @ ramp))
            largest("trainBN", "running statistics", off)
    return found


def _stage_distance(value: Tensor, exact: Tensor, stored: int, share: float) -> float:
    """The largest over all samples that the reference could have kept of a tensor."""
    moved, flat = value.double().flatten(), exact.double().flatten()
    stride = stride_of(len(flat), stored)
    off = [bulk_distance(moved[i::stride], flat[i::stride], share) for i in range(stride)]
    return max(*off, abs(float(moved.norm() / flat.norm()) - 1))


def nudged(values: Tensor, seed: int) -> Tensor:
    """Every number but zeros one unit in the last place up or down, by chance."""
    up = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    towards = torch.where(up, torch.inf, -torch.inf).to(values)
    return torch.where(values == 0, values, torch.nextafter(values, towards))


class Setting(NamedTuple):
    """How a run in another process is held."""

    threads: int
    torch: str
    onednn: str
    bev_ops: str

    def __str__(self) -> str:
        return f"{self.threads} threads, torch {self.torch}, oneDNN {self.onednn}, bev_ops {self.bev_ops}"


def settings() -> Iterator[Setting]:
    """Threads and instruction sets of this machine."""
    sets = devices.native.cpu.instruction_sets().split()
    for threads in (1, 2):
        for bev_ops in sets:
            yield Setting(threads, *_LIMITS[bev_ops], bev_ops)


# By bev_ops' name: what holds torch and oneDNN to an instruction set.
_LIMITS = {
    "avx512": ("avx512", "AVX512_CORE"),
    "avx2": ("avx2", "AVX2"),
    "baseline": ("default", "SSE41"),
}


def run_here(kind: str, variant: str, change: str, seed: int = 0) -> Run:
    """One run in this process."""
    inputs = inputs_of(variant)
    if change == "float64":
        inputs = Inputs(inputs.images.double(), Cameras(*(matrix.double() for matrix in inputs.cameras)))
    elif change == "images":
        inputs = inputs._replace(images=nudged(inputs.images, seed))
    elif change == "matrices":
        moved = Cameras(*(nudged(matrix, seed + i) for i, matrix in enumerate(inputs.cameras)))
        inputs = inputs._replace(cameras=moved)
    return one_run(KINDS[kind].detector, variant, inputs)


def run_elsewhere(kind: str, variant: str, setting: Setting) -> Run:
    """One run in a process of its own, whose libraries read their limits at the start."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(setting.threads),
        "ATEN_CPU_CAPABILITY": setting.torch,
        "ONEDNN_MAX_CPU_ISA": setting.onednn,
        "BEV_OPS_ISA": setting.bev_ops,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        words = ["--into", str(path), "--kind", kind, "--variant", variant]
        subprocess.run([sys.executable, "-m", __spec__.name, *words], env=environment, check=True)
        stages, losses, gradients, state = torch.load(path, weights_only=True)
    return Run(stages, [], losses, gradients, state)


def measure_all() -> Mapping[str, Any]:
    """All runs of both variants."""
    measures: Measures = {}
    names = [*map(str, settings()), *(f"{what} moved" for what in ("images", "matrices"))]
    for kind in KINDS:
        for variant in VARIANTS:
            exact = run_here(kind, variant, "float64")
            runs = [run_elsewhere(kind, variant, setting) for setting in settings()]
            runs += [
                run_here(kind, variant, change, seed)
                for change in ("images", "matrices")
                for seed in range(SEEDS)
            ]
            for run in runs:
                for mode, found in measure(run, exact, variant, KINDS[kind].share).items():
                    row = measures.setdefault(f"{kind}, {mode}", {})
                    for name, value in found.items():
                        row[name] = max(row.get(name, 0.0), value)
    rounded = {
        kind: {name: float(f"{value:.1e}") for name, value in row.items()} for kind, row in measures.items()
    }
    return {"torch": torch.__version__.split("+")[0], "runs": names, "measures": rounded}


def table(found: Mapping[str, Any]) -> str:
    """The measures as the table of docs/fidelity.md."""
    measures: Measures = found["measures"]
    rows = list(dict.fromkeys(name for row in measures.values() for name in row))
    lines = ["| relative distance from float64 | " + " | ".join(measures) + " |", "|---" * 5 + "|"]
    for name in rows:
        cells = [f"{row[name]:.0e}" if row.get(name) else "" for row in measures.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print the stored table")
    for name in ("--into", "--kind", "--variant"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.into:
        run = run_here(options.kind, options.variant, "nothing")
        torch.save((run.stages, run.losses, run.gradients, run.state), options.into)
        return
    if not options.table:
        STORE.write_text(json.dumps(measure_all(), indent=1) + "\n")
    print(table(stored()))


if __name__ == "__main__":
    main()
