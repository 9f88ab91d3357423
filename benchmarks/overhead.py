"""What a call costs beside its kernel: the ops on inputs so small that the kernels take no time.

    python benchmarks/overhead.py

prints microseconds of processor time a call, forward and forward + backward, and beside them what torch's own
operators of the same kind cost: `grid_sample`, and `index_add` into new zeros.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import bev_ops
from harness import start

GRID = (1, 4, 4)


def cases() -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    """Functions, and the tensors by which they are differentiated."""
    torch.manual_seed(0)
    depth, context = torch.rand(1, 1, 2, 2, 2), torch.rand(1, 1, 16, 2, 2)
    projection, bins = torch.rand(1, 1, 3, 4), torch.rand(2)
    plan = bev_ops.LiftSplatPlan(projection, bins, (2, 2), GRID)
    coords, features = torch.rand(1, 8, 3), torch.rand(1, 8, 16)
    views = [torch.rand(1, 16, 2, 2).contiguous(memory_format=torch.channels_last) for _ in range(2)]
    pose, planes = torch.eye(3, 4)[None], torch.ones(1, 2, 2, 2)
    rows, index, places = torch.rand(8, 16), torch.arange(8) % 4, torch.zeros(1, 2, 2, 2)
    return {
        "lift_splat": (lambda d, c: bev_ops.lift_splat(d, c, projection, bins, GRID), (depth, context)),
        "LiftSplatPlan.splat": (plan.splat, (depth, context)),
        "voxel_pooling": (lambda f: bev_ops.voxel_pooling(coords, f, GRID), (features,)),
        "homography_warp": (lambda s: bev_ops.homography_warp(s, pose, planes), (views[1],)),
        "plane_sweep_correlation": (
            lambda r, s: bev_ops.plane_sweep_correlation(r, s, pose, planes, 2),
            tuple(views),
        ),
        "torch: grid_sample": (lambda s: F.grid_sample(s, places, align_corners=False), (views[1],)),
        "torch: zeros, index_add": (lambda x: x.new_zeros(4, 16).index_add(0, index, x), (rows,)),
    }


def microseconds(run: Callable[[], object], rounds: int, calls: int = 300) -> float:
    """Processor time a call takes, the least mean of several rounds: other programs only add to it."""
    run()
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(calls):
            run()
        best = min(best, (time.process_time() - began) / calls)
    return best * 1e6


def main() -> None:
    """Time every op on one thread."""
    options = start("Overhead of a call, float32")
    torch.set_num_threads(1)
    print("| call | forward us | forward + backward us |\n|---|---|---|")
    for name, (function, leaves) in cases().items():
        with torch.no_grad():
            forward = microseconds(lambda f=function, x=leaves: f(*x), options.rounds)  # type: ignore[misc]
        tracked = [leaf.detach().requires_grad_() for leaf in leaves]
        towards = torch.ones_like(function(*leaves))

        both = microseconds(
            lambda f=function, x=tracked, t=towards: torch.autograd.grad(f(*x), x, t),  # type: ignore[misc]
            options.rounds,
        )
        print(f"| {name} | {forward:.0f} | {both:.0f} |")


if __name__ == "__main__":
    main()
