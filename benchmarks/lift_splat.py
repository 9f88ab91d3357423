"""Lift-splat on the CPU beside what torch offers: `python benchmarks/lift_splat.py`.

The baselines are given what they need for free: embedding_bag and sparse_csr find their indices built and the
context in rows; materialise + index_add_, as it is and compiled, finds its cells computed. bev_ops runs on a
ready plan as they do, and from the camera matrices, as training must.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bev_ops import LiftSplatPlan, lift_splat, reference
from harness import Run, compiled, gate, report, start, with_threads

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


def scattered(pixels: int) -> Tensor:
    """As many cameras of one pixel, each with a ray of its own."""
    angle = 2 * math.pi * torch.rand(pixels)
    matrices = torch.zeros(1, pixels, 3, 4)
    matrices[0, :, :2, 2] = torch.stack([angle.cos(), angle.sin()], -1) / 0.8
    matrices[0, :, :, 3] = torch.tensor([64.0, 64.0, 0.5])
    return matrices


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


@dataclass
class Case:
    """What is lifted, and the torch candidates on it."""

    depth: Tensor
    context: Tensor
    projection: Tensor
    bins: Tensor

    def __post_init__(self) -> None:
        height, width = self.depth.shape[-2:]
        self.rows = self.context.permute(0, 1, 3, 4, 2).reshape(-1, CHANNELS).contiguous()
        self.plan = Plan.build(self.projection, self.bins, height, width)
        self.planned = LiftSplatPlan(self.projection, self.bins, (height, width), GRID).splat

    def ours(self, depth: Tensor, context: Tensor) -> Tensor:
        """From the matrices of the cameras."""
        return lift_splat(depth, context, self.projection, self.bins, GRID)

    def bag(self, depth: Tensor, rows: Tensor) -> Tensor:
        """Weighted sums of rows of the context, cell by cell."""
        plan, weights = self.plan, depth.flatten()[self.plan.point]
        return F.embedding_bag(plan.pixel, rows, plan.offsets, mode="sum", per_sample_weights=weights)

    def materialise(self, depth: Tensor, rows: Tensor) -> Tensor:
        """The whole lifted volume, of which the points in the grid are added up."""
        volume = depth.permute(0, 1, 3, 4, 2).flatten(0, 3)[:, :, None] * rows[:, None]
        volume = volume.view(depth.shape[1], -1, BINS, CHANNELS).transpose(1, 2).reshape(-1, CHANNELS)
        bev = volume.new_zeros(GRID[1] * GRID[2], CHANNELS)
        return bev.index_add_(0, self.plan.cell, volume[self.plan.point])

    def sparse(self, depth: Tensor, rows: Tensor) -> Tensor:
        """A sparse matrix of cells and pixels times the context."""
        plan = self.plan
        starts = torch.cat([plan.offsets, plan.offsets.new_tensor([len(plan.cell)])])
        matrix = torch.sparse_csr_tensor(
            starts,
            plan.pixel,
            depth.flatten()[plan.point],
            (GRID[1] * GRID[2], len(rows)),
            check_invariants=False,
        )
        return matrix @ rows

    def check(self) -> None:
        """Stop unless all candidates agree with the definition in float64."""
        depth, context, rows = self.depth, self.context, self.rows
        exact = reference.lift_splat(
            depth.double(), context.double(), self.projection, self.bins, GRID, "floor"
        )
        gate("lift_splat", self.ours(depth, context), exact, 1e-6)
        gate("LiftSplatPlan", self.planned(depth, context), exact, 1e-6)
        exact = exact.permute(0, 2, 3, 1).reshape(-1, CHANNELS)
        for name, candidate in (
            ("bag", self.bag),
            ("materialise", self.materialise),
            ("sparse", self.sparse),
        ):
            gate(name, candidate(depth, rows), exact, 1e-6)


def measure(name: str, case: Case, options: argparse.Namespace) -> None:
    """All candidates on one case, forward and with backward."""
    case.check()
    depth, context, rows = (leaf.clone().requires_grad_() for leaf in (case.depth, case.context, case.rows))
    towards = torch.randn(GRID[1] * GRID[2], CHANNELS)
    map_towards = towards.view(1, GRID[1], GRID[2], CHANNELS).permute(0, 3, 1, 2)
    for threads in with_threads(options):
        fused = compiled(case.materialise)
        on_maps = {OURS: case.planned, "bev_ops, from matrices": case.ours}
        on_rows = {
            "embedding_bag, ready plan": case.bag,
            "materialise + index_add_, ready cells": case.materialise,
            "the same, torch.compile": fused,
        }
        heading = f"## {name}, {len(case.plan.point)} points kept, threads: {threads}"
        with torch.no_grad():
            forwards = calls(on_maps, (case.depth, case.context))
            forwards |= calls(
                {**on_rows, "sparse_csr @ dense, ready plan": case.sparse}, (case.depth, case.rows)
            )
            report(f"{heading}, forward", OURS, forwards, options.rounds)
        trainings = calls(on_maps, (depth, context), map_towards) | calls(on_rows, (depth, rows), towards)
        report(f"{heading}, forward + backward", OURS, trainings, options.rounds)


def calls(
    functions: Mapping[str, Callable[..., Tensor]],
    leaves: tuple[Tensor, Tensor],
    towards: Tensor | None = None,
) -> dict[str, Run]:
    """Calls of functions on leaves, with their gradients where it is said towards what."""

    def call(function: Callable[..., Tensor]) -> Run:
        if towards is None:
            return lambda: function(*leaves)
        return lambda: torch.autograd.grad(function(*leaves), leaves, towards)

    return {name: call(function) for name, function in functions.items()}


def main() -> None:
    """Compare at two image sizes, at turns of the images, and where no two points have anything in common."""
    options = start("Lift-splat, float32, one sample of six cameras, grid 128 x 128")
    bins = torch.linspace(2, 57.5, BINS)
    sizes = {"A (256 x 704)": (16, 44), "C (640 x 1600)": (40, 100)}
    for name, (height, width) in sizes.items():
        for view, rotation in {
            "rig": 0.0,
            "images turned 5.4 degrees": 5.4,
            "turned 90 degrees": 90.0,
        }.items():
            torch.manual_seed(0)
            depth = torch.randn(1, 6, BINS, height, width).softmax(2)
            context = torch.randn(1, 6, CHANNELS, height, width)
            measure(f"{name}, {view}", Case(depth, context, rig(height, width, rotation), bins), options)
        torch.manual_seed(0)
        pixels = 6 * height * width
        depth = torch.randn(1, pixels, BINS, 1, 1).softmax(2)
        context = torch.randn(1, pixels, CHANNELS, 1, 1)
        shuffled = bins[torch.randperm(BINS)]
        case = Case(depth, context, scattered(pixels), shuffled)
        measure(f"{name}, random rays and bins", case, options)


if __name__ == "__main__":
    main()
