"""Voxel pooling of a given volume on the CPU: `python benchmarks/voxel_pooling.py`."""

import torch

from bev_ops import reference, voxel_pooling
from harness import compiled, gate, report, start, with_threads

GRID = (1, 128, 128)
POINTS, CHANNELS = 6 * 112 * 16 * 44, 80


def main() -> None:
    """Compare at coordinates in order and in none."""
    options = start("Voxel pooling of 473088 points of 80 channels, float32, grid 128 x 128")
    torch.manual_seed(0)
    features = torch.randn(1, POINTS, CHANNELS)
    x = torch.rand(POINTS) * 134 - 3
    # Sweeps of neighbouring cells, as frusta leave them in memory, and no order at all.
    orders = {
        "swept coordinates": (torch.arange(POINTS) * 0.05) % 134 - 3,
        "random coordinates": torch.rand(POINTS) * 134 - 3,
    }
    for name, y in orders.items():
        coords = torch.stack([x.sort().values if name[0] == "s" else x, y, torch.rand(POINTS) * 1.1], -1)[
            None
        ]
        cell = coords[0].floor()
        inside = ((cell >= 0) & (cell < torch.tensor([128.0, 128.0, 1.0]))).all(-1)
        flat = (cell[:, 1] * 128 + cell[:, 0]).long()
        # Points outside go to one row too many.
        dummy = torch.where(inside, flat, 128 * 128)

        def ours(coords=coords):
            return voxel_pooling(coords, features, GRID)

        def dummy_row(dummy=dummy):
            return features.new_zeros(128 * 128 + 1, CHANNELS).index_add_(0, dummy, features[0])[:-1]

        def masked(flat=flat, inside=inside):
            return features.new_zeros(128 * 128, CHANNELS).index_add_(0, flat[inside], features[0][inside])

        exact = reference.voxel_pooling(coords, features.double(), GRID, "floor")
        gate("voxel_pooling", ours(), exact, 1e-6)
        for candidate in (dummy_row, masked):
            gate(candidate.__name__, candidate(), exact.permute(0, 2, 3, 1).reshape(-1, CHANNELS), 1e-6)
        candidates = {
            "bev_ops, from coordinates": ours,
            "index_add_ with a dummy row, ready cells": dummy_row,
            "masked index_add_, ready cells": masked,
        }
        for threads in with_threads(options):
            candidates["index_add_ with a dummy row, torch.compile"] = compiled(dummy_row)
            report(f"## {name}, threads: {threads}", "bev_ops, from coordinates", candidates, options.rounds)


if __name__ == "__main__":
    main()
