"""Lift-splat on the CPU beside what torch offers: `python benchmarks/lift_splat.py`.

The baselines are given what they need for free: embedding_bag and sparse_csr find their indices built and the
context in rows; materialise + index_add_ finds its cells computed. bev_ops runs on a ready plan as they do,
and from the camera matrices, as training must.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bev_ops import LiftSplatPlan, lift_splat, reference
from harness import gate, report, start, with_threads

GRID = (1, 128, 128)
OURS = "bev_ops, ready plan"
BINS, CHANNELS = 112, 80
YAWS = (0.0, 55.0, 110.0, 180.0, -110.0, -55.0)


def rig(height: int, width: int, rotation: float) -> Tensor:
    """Six cameras of 65 degrees around a car; every image is turned by `rotation` degrees."""
    focal = 0.79 * width
    inverse = torch.tensor(
        [[1 / focal, 0, -0.5 * width / focal], [0, 1 / focal, -0.35 * height / focal], [0, 0, 1]],
        dtype=torch.float64,
    )
    cosine, sine = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    centre = torch.tensor([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]], dtype=torch.float64)
    turn = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=torch.float64)
    cell = torch.tensor([1 / 0.8, 1 / 0.8, 1 / 8.0], dtype=torch.float64)
    matrices = torch.zeros(1, len(YAWS), 3, 4, dtype=torch.float64)
    for n, yaw in enumerate(YAWS):
        a, b = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
        axes = torch.tensor([[b, 0, a], [-a, 0, b], [0, -1, 0]], dtype=torch.float64)
        matrices[0, n, :, :3] = (axes @ inverse @ centre @ turn @ centre.inverse()) * cell[:, None]
        mount = torch.tensor([51.2 + 1.5 * a, 51.2 + 0.5 * b, 5 + 1.5], dtype=torch.float64)
        matrices[0, n, :, 3] = mount * cell
    return matrices.float()


@dataclass
class Plan:
    """Points in the grid, sorted by cell: the pixel and depth of each, and where each cell starts."""

    pixel: Tensor
    point: Tensor
    cell: Tensor
    offsets: Tensor

    @classmethod
    def build(cls, projection: Tensor, bins: Tensor, height: int, width: int) -> "Plan":
        """Sort the points of all cameras."""
        x, y, z = (
            axis.floor()
            for axis in reference.sweep_positions(projection[0], bins.view(1, -1, 1, 1), (height, width))
        )
        inside = (x >= 0) & (x < GRID[2]) & (y >= 0) & (y < GRID[1]) & (z >= 0) & (z < GRID[0])
        point = inside.flatten().nonzero()[:, 0]
        cell = (y * GRID[2] + x).flatten()[point].long()
        order = cell.argsort(stable=True)
        point, cell = point[order], cell[order]
        plane = height * width
        pixel = point // (plane * len(bins)) * plane + point % plane
        counts = torch.bincount(cell, minlength=GRID[1] * GRID[2])
        return cls(pixel, point, cell, counts.cumsum(0) - counts)


def main() -> None:
    """Compare at two image sizes and three turns of the images."""
    options = start("Lift-splat, float32, one sample of six cameras, grid 128 x 128")
    bins = torch.linspace(2, 57.5, BINS)
    cells = GRID[1] * GRID[2]
    for name, height, width in (("A (256 x 704)", 16, 44), ("C (640 x 1600)", 40, 100)):
        for view, rotation in (
            ("rig", 0.0),
            ("images turned 5.4 degrees", 5.4),
            ("images turned 90 degrees", 90.0),
        ):
            if name[0] == "C" and rotation:
                continue
            torch.manual_seed(0)
            projection = rig(height, width, rotation)
            depth = torch.randn(1, 6, BINS, height, width).softmax(2)
            context = torch.randn(1, 6, CHANNELS, height, width)
            rows = context.permute(0, 1, 3, 4, 2).reshape(-1, CHANNELS).contiguous()
            plan = Plan.build(projection, bins, height, width)
            towards = torch.randn(cells, CHANNELS)
            map_towards = towards.view(1, GRID[1], GRID[2], CHANNELS).permute(0, 3, 1, 2)

            def ours(depth=depth, context=context, projection=projection):
                return lift_splat(depth, context, projection, bins, GRID)

            planned = LiftSplatPlan(projection, bins, (height, width), GRID).splat

            def bag(depth=depth, rows=rows, plan=plan):
                weights = depth.flatten()[plan.point]
                return F.embedding_bag(plan.pixel, rows, plan.offsets, mode="sum", per_sample_weights=weights)

            def materialise(depth=depth, rows=rows, plan=plan):
                volume = depth.permute(0, 1, 3, 4, 2).flatten(0, 3)[:, :, None] * rows[:, None]
                volume = volume.view(6, -1, BINS, CHANNELS).transpose(1, 2).reshape(-1, CHANNELS)
                return volume.new_zeros(cells, CHANNELS).index_add_(0, plan.cell, volume[plan.point])

            def sparse(depth=depth, rows=rows, plan=plan):
                starts = torch.cat([plan.offsets, plan.offsets.new_tensor([len(plan.cell)])])
                weights = depth.flatten()[plan.point]
                matrix = torch.sparse_csr_tensor(
                    starts, plan.pixel, weights, (cells, len(rows)), check_invariants=False
                )
                return matrix @ rows

            exact = reference.lift_splat(depth.double(), context.double(), projection, bins, GRID, "floor")
            gate("lift_splat", ours(), exact, 1e-6)
            gate("LiftSplatPlan", planned(depth, context), exact, 1e-6)
            exact = exact.permute(0, 2, 3, 1).reshape(cells, CHANNELS)
            for candidate in (bag, materialise, sparse):
                gate(candidate.__name__, candidate(), exact, 1e-6)
            d, c = depth.clone().requires_grad_(), context.clone().requires_grad_()
            r = rows.clone().requires_grad_()

            def both(forward, leaves, towards):
                return lambda: torch.autograd.grad(forward(*leaves), leaves, towards)

            forwards = {
                OURS: lambda d=depth, c=context, f=planned: f(d, c),
                "bev_ops, from matrices": ours,
                "embedding_bag, ready plan": bag,
                "sparse_csr @ dense, ready plan": sparse,
                "materialise + index_add_, ready cells": materialise,
            }
            trainings = {
                OURS: both(planned, (d, c), map_towards),
                "bev_ops, from matrices": both(ours, (d, c), map_towards),
                "embedding_bag, ready plan": both(bag, (d, r), towards),
                "materialise + index_add_, ready cells": both(materialise, (d, r), towards),
            }
            for threads in with_threads(options):
                heading = f"## {name}, {view}, {len(plan.point)} points kept, threads: {threads}"
                with torch.no_grad():
                    report(f"{heading}, forward", OURS, forwards, options.rounds)
                report(f"{heading}, forward + backward", OURS, trainings, options.rounds)


if __name__ == "__main__":
    main()
