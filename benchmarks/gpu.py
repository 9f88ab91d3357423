"""The ops on a GPU beside what torch offers: `python benchmarks/gpu.py`.

Every candidate is captured in a CUDA graph, so that launches from Python do not count, and starts with an
empty L2 cache. The baselines find their indices built; bev_ops starts from the camera matrices. "Interval
kernel" is the design of BEVPoolv2: one program per occupied cell walks the sorted points of the cell.
"""

import argparse
import platform
import statistics
import sys
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

import bev_ops
from bev_ops import devices, lift_splat, plane_sweep_correlation, reference
from harness import gate
from lift_splat import BINS, CHANNELS, GRID, Plan, rig

# More than the L2 cache of any GPU, bytes.
FLUSH = 2**28
Run = Callable[[], object]


@triton.jit
def interval_kernel(depth, rows, point, pixel, start, cell, bev, channels: tl.constexpr, block: tl.constexpr):
    """bev[cell] = sum of depth * row over the points of one interval."""
    interval = tl.program_id(0)
    c = tl.arange(0, block)
    total = tl.zeros([block], tl.float32)
    for k in range(tl.load(start + interval), tl.load(start + interval + 1)):
        weight = tl.load(depth + tl.load(point + k)).to(tl.float32)
        row = tl.load(rows + tl.load(pixel + k) * channels + c, mask=c < channels, other=0).to(tl.float32)
        total += weight * row
    tl.store(bev + tl.load(cell + interval) * channels + c, total, mask=c < channels)


def captured(run: Run) -> torch.cuda.CUDAGraph:
    """The work of a call as a graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def peak_memory(run: Run) -> float:
    """MB that a call allocates at its worst, its result included."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def report(heading: str, candidates: dict[str, Run], rounds: int) -> None:
    """Time candidates in turns; the first is what the others are compared with."""
    memory = {name: peak_memory(run) for name, run in candidates.items()}
    graphs = {name: captured(run) for name, run in candidates.items()}
    flush = torch.empty(FLUSH, dtype=torch.uint8, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, graph in graphs.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            times[name].append(begin.elapsed_time(end) * 1e3)
    ours = statistics.median(next(iter(times.values())))
    print(f"## {heading}\n| candidate | median µs | min µs | x ours | peak MB |\n|---|---|---|---|---|")
    for name, took in times.items():
        median = statistics.median(took)
        print(f"| {name} | {median:.1f} | {min(took):.1f} | {median / ours:.1f} | {memory[name]:.1f} |")
    print(flush=True)


def training(forward: Callable[..., Tensor], leaves: tuple[Tensor, ...], towards: Tensor) -> Run:
    """Forward and backward."""
    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
    return lambda: torch.autograd.grad(forward(*leaves), leaves, towards)


def measure_lift_splat(name: str, height: int, width: int, dtype: torch.dtype, rounds: int) -> None:
    """Compare lift-splat at one size."""
    torch.manual_seed(0)
    host, bins = rig(height, width, 0.0), torch.linspace(2, 57.5, BINS)
    plan = Plan.build(host, bins, height, width)
    point, pixel, cell = plan.point.cuda(), plan.pixel.cuda(), plan.cell.cuda()
    cells = GRID[1] * GRID[2]
    occupied, counts = torch.unique_consecutive(cell, return_counts=True)
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    projection, bins = host.cuda(), bins.cuda()
    depth = torch.randn(1, 6, BINS, height, width, device="cuda").softmax(2).to(dtype)
    rows = torch.randn(6 * height * width, CHANNELS, device="cuda").to(dtype)
    context = rows.view(1, 6, height, width, CHANNELS).permute(0, 1, 4, 2, 3)

    def ours(d: Tensor = depth, c: Tensor = context) -> Tensor:
        return lift_splat(d, c, projection, bins, GRID)

    def intervals() -> Tensor:
        bev = torch.zeros(cells, CHANNELS, device="cuda")
        block = triton.next_power_of_2(CHANNELS)
        interval_kernel[(len(occupied),)](
            depth, rows, point, pixel, start, occupied, bev, CHANNELS, block, num_warps=4
        )
        return bev

    def kept(d: Tensor = depth, r: Tensor = rows) -> Tensor:
        lifted = d.flatten()[point].float()[:, None] * r[pixel].float()
        return lifted.new_zeros(cells, CHANNELS).index_add_(0, cell, lifted)

    exact = reference.lift_splat(depth.double(), context.double(), projection, bins, GRID, "floor")
    tolerance = 1e-6 if dtype == torch.float32 else 1e-3
    gate("lift_splat", ours(), exact, tolerance)
    flat = exact.permute(0, 2, 3, 1).reshape(cells, CHANNELS)
    for candidate in (intervals, kept):
        gate(candidate.__name__, candidate(), flat, tolerance)
    heading = f"Lift-splat {name}, {dtype}, {len(point)} points kept"
    with torch.no_grad():
        forwards = {
            "bev_ops, from matrices": ours,
            "interval kernel, ready plan": intervals,
            "kept points + index_add_, ready plan": kept,
        }
        report(f"{heading}, forward", forwards, rounds)
    towards = torch.randn(1, CHANNELS, *GRID[1:], device="cuda").to(dtype)
    towards = towards.contiguous(memory_format=torch.channels_last)
    trainings = {
        "bev_ops, from matrices": training(ours, (depth, context), towards),
        "kept points + index_add_, ready plan": training(
            kept, (depth, rows), towards.permute(0, 2, 3, 1).reshape(cells, CHANNELS).float()
        ),
    }
    report(f"{heading}, forward + backward", trainings, rounds)


def measure_plane_sweep(dtype: torch.dtype, hypotheses: int, rounds: int) -> None:
    """Compare stereo correlation of 6 x 256 x 64 x 176 features in 8 groups."""
    torch.manual_seed(0)
    features = torch.randn(2, 6, 256, 64, 176, device="cuda").to(dtype)
    ref, source = (view.contiguous(memory_format=torch.channels_last) for view in features)
    projection = torch.eye(3, 4, device="cuda").repeat(6, 1, 1)
    projection[:, 0, 2] = 1.2
    projection[:, :, 3] = torch.tensor([-2 * 88.0, -2 * 32.0, -2.0])
    centre = torch.linspace(55, 4, 64, device="cuda")[:, None] + torch.linspace(0, 3, 176, device="cuda")
    offsets = torch.linspace(-1.5, 1.5, hypotheses, device="cuda")[:, None, None]
    depth = (centre + offsets).expand(6, hypotheses, 64, 176).contiguous()

    def ours(r: Tensor = ref, s: Tensor = source) -> Tensor:
        return plane_sweep_correlation(r, s, projection, depth, 8)

    def plain(r: Tensor = ref, s: Tensor = source) -> Tensor:
        return reference.plane_sweep_correlation(r, s, projection, depth, 8, "zero")

    doubles = (x[:1].double() for x in (ref, source, projection, depth))
    exact = reference.plane_sweep_correlation(*doubles, 8, "zero")
    gate("plane_sweep_correlation", ours()[:1], exact, 5e-5 if dtype == torch.float32 else 1e-3)
    heading = f"Plane-sweep correlation, {dtype}, {hypotheses} hypotheses"
    with torch.no_grad():
        report(f"{heading}, forward", {"bev_ops": ours, "grid_sample": plain}, rounds)
    towards = torch.randn(6, 8, hypotheses, 64, 176, device="cuda").to(dtype)
    trainings = {
        "bev_ops": training(ours, (ref, source), towards),
        "grid_sample": training(plain, (ref, source), towards),
    }
    report(f"{heading}, forward + backward", trainings, rounds)


def main() -> None:
    """All sizes and dtypes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="times each candidate runs, interleaved")
    rounds = parser.parse_args().rounds
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device to measure")
    if problem := devices.cuda_problem(0):
        sys.exit(f"cuda:0 does not run the kernels: {problem}")
    print("# The ops on a GPU")
    print(f"{torch.cuda.get_device_name(0)}, bev-ops {bev_ops.__version__} ({devices.cuda_build()}),")
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {rounds} rounds\n")
    for dtype in (torch.float32, torch.float16):
        measure_lift_splat("A (256 x 704)", 16, 44, dtype, rounds)
        measure_lift_splat("C (640 x 1600)", 40, 100, dtype, rounds)
        for hypotheses in (3, 12):
            measure_plane_sweep(dtype, hypotheses, rounds)


if __name__ == "__main__":
    main()
