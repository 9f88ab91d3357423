"""Plane-sweep correlation on the CPU beside grid_sample + product: `python benchmarks/plane_sweep.py`."""

import argparse

import torch
from torch import Tensor

from bev_ops import plane_sweep_correlation, reference
from harness import compiled, gate, report, start, with_threads

IMAGES, CHANNELS, HEIGHT, WIDTH, GROUPS = 6, 256, 64, 176, 8
OURS = "bev_ops"


def measure(name: str, centre: Tensor, options: argparse.Namespace) -> None:
    """All comparisons at hypotheses around one depth map."""
    torch.manual_seed(0)
    features = torch.randn(2, IMAGES, CHANNELS, HEIGHT, WIDTH)
    ref, source = (view.contiguous(memory_format=torch.channels_last) for view in features)
    # A camera that drove two metres forward and turned by half a degree; focal length 139 cells.
    projection = torch.eye(3, 4).repeat(IMAGES, 1, 1)
    projection[:, 0, 2] = 1.2
    projection[:, :, 3] = torch.tensor([-2 * 88.0, -2 * 32.0, -2.0])
    offsets = torch.linspace(-1.5, 1.5, 12)[:, None, None]
    depth12 = (centre + offsets).expand(IMAGES, 12, HEIGHT, WIDTH).contiguous()
    depth3 = depth12[:, ::4].contiguous()

    def ours(r, s, depth=depth3):
        return plane_sweep_correlation(r, s, projection, depth, GROUPS)

    def plain(r, s, depth=depth3):
        return reference.plane_sweep_correlation(r, s, projection, depth, GROUPS, "zero")

    # Positions in float32 cost up to 1e-5 of a cell's step: both sides pay that against float64.
    exact = reference.plane_sweep_correlation(
        ref[:1].double(),
        source[:1].double(),
        projection[:1].double(),
        depth3[:1].double(),
        GROUPS,
        "zero",
    )
    gate("plane_sweep_correlation", ours(ref, source)[:1], exact, 5e-5)
    gate("grid_sample", plain(ref, source)[:1], exact, 5e-5)
    leaves = ref.clone().requires_grad_(), source.clone().requires_grad_()
    towards = torch.randn(IMAGES, GROUPS, 3, HEIGHT, WIDTH)
    planar = features[0], features[1]
    parts = [depth12[:, k : k + 3].contiguous() for k in range(0, 12, 3)]
    for threads in with_threads(options):
        fused = compiled(plain)
        with torch.no_grad():
            forwards = {
                OURS: lambda: ours(ref, source),
                "bev_ops, channels-first features": lambda: ours(*planar),
                "grid_sample": lambda: plain(ref, source),
                "grid_sample, channels-first features": lambda: plain(*planar),
                "grid_sample, torch.compile": lambda fused=fused: fused(ref, source),
            }
            report(f"## {name}, 3 hypotheses, threads: {threads}, forward", OURS, forwards, options.rounds)
            batching = {
                "12 in one call": lambda: ours(ref, source, depth12),
                "four calls of 3": lambda: [ours(ref, source, part) for part in parts],
            }
            report(
                f"## {name}, 12 hypotheses, threads: {threads}",
                "12 in one call",
                batching,
                options.rounds,
            )
        trainings = {
            OURS: lambda: torch.autograd.grad(ours(*leaves), leaves, towards),
            "grid_sample": lambda: torch.autograd.grad(plain(*leaves), leaves, towards),
            "grid_sample, torch.compile": lambda fused=fused: torch.autograd.grad(
                fused(*leaves), leaves, towards
            ),
        }
        report(
            f"## {name}, 3 hypotheses, threads: {threads}, forward + backward",
            OURS,
            trainings,
            max(options.rounds // 2, 3),
        )


def main() -> None:
    """Compare at a smooth and at a random depth map."""
    options = start("Plane-sweep correlation, 6 x 256 x 64 x 176, 8 groups, channels-last features, float32")
    ramp = torch.linspace(55, 4, HEIGHT)[:, None]
    depths = {
        "smooth depth": ramp + torch.linspace(0, 3, WIDTH),
        "random depth": 3 + 55 * torch.rand(IMAGES, 1, HEIGHT, WIDTH),
    }
    for name, centre in depths.items():
        measure(name, centre, options)


if __name__ == "__main__":
    main()
