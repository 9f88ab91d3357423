"""What the benchmarks share: a correctness gate, interleaved timing, peak memory, tables."""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

import bev_ops
from bev_ops import devices

Run = Callable[[], object]


def start(title: str) -> argparse.Namespace:
    """Read the options every benchmark has, and print what runs where."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--rounds", type=int, default=7, help="times each candidate runs, interleaved")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    if devices.native is None:
        sys.exit("bev-ops is installed without its compiled kernels: there is nothing to measure")
    print(f"# {title}")
    print(
        f"bev-ops {bev_ops.__version__} ({devices.native.cpu.instruction_set()}), torch {torch.__version__}"
    )
    print(f"{processor()}, Python {platform.python_version()}, {options.rounds} rounds\n")
    return options


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What torch.compile makes of a function, for the number of threads that is set."""
    torch.compiler.reset()
    return torch.compile(function, fullgraph=True, dynamic=False)


def with_threads(options: argparse.Namespace) -> Iterator[int]:
    """Every number of threads asked for, set."""
    for threads in options.threads:
        torch.set_num_threads(threads)
        yield threads


def gate(name: str, got: Tensor, exact: Tensor, tolerance: float) -> None:
    """Stop unless a result agrees with the float64 one, by the relative norm."""
    error = ((got.double() - exact).norm() / exact.norm()).item()
    if not error <= tolerance:
        sys.exit(f"{name} is wrong: relative error {error:.2e}, at most {tolerance:.0e} is allowed")


def interleave(candidates: Mapping[str, Run], rounds: int) -> dict[str, tuple[float, float]]:
    """Median and minimum in ms; each round runs every candidate once, so that noise meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    for _ in range(rounds):
        for name, run in candidates.items():
            # Fast candidates run several times in a row: one call would measure the caches they find.
            calls, began = 0, time.perf_counter()
            while calls == 0 or (calls < 20 and time.perf_counter() - began < 0.02):
                run()
                calls += 1
            times[name].append((time.perf_counter() - began) / calls * 1e3)
    return {name: (statistics.median(t), min(t)) for name, t in times.items()}


def peak_memory(run: Run) -> float:
    """MB that a call adds to the process at its worst, its result included; NaN where Linux does not say."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
    except OSError:
        return float("nan")

    def field(name: str) -> float:
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return float(line.split()[1]) / 1024

    before = field("VmRSS")
    result = run()
    peak = field("VmHWM") - before
    del result
    return peak


def report(heading: str, ours: str, candidates: Mapping[str, Run], rounds: int) -> None:
    """Time candidates side by side and print how much longer than `ours` each takes."""
    times = interleave(candidates, rounds)
    print(f"{heading}\n| candidate | median ms | min ms | x ours (median) | x ours (min) | peak MB |")
    print("|---|---|---|---|---|---|")
    for name, run in candidates.items():
        median, least = times[name]
        ratios = median / times[ours][0], least / times[ours][1]
        print(
            f"| {name} | {median:.2f} | {least:.2f} | {ratios[0]:.1f} | {ratios[1]:.1f} "
            f"| {peak_memory(run):.0f} |"
        )
    print(flush=True)
