"""The doctor: says how bev-ops was built and what each device will run, and tests it."""

import platform
from collections.abc import Callable

import torch
from torch import Tensor

import bev_ops
from bev_ops import _native_ops, reference

# Relative norm of the error that float32 may have.
_TOLERANCE = 1e-5


def main() -> int:
    """Print the report; the exit code is 1 where something is wrong."""
    print(f"bev-ops {bev_ops.__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    native = _native_ops.native
    if native is None:
        print("compiled kernels: missing; every device runs plain torch")
        print("  to build them: `pip install packages/bev-ops` in a checkout, with a C++17 compiler at hand")
    else:
        print(f"compiled kernels: {native.compiler}, threads by {native.threads}")
        print(
            f"  instruction set: {native.instruction_set()} (this processor has {native.instruction_sets()})"
        )
        if native.threads == "none":
            print("  built without OpenMP: each op runs on one thread")
    for device, runs in _devices():
        print(f"{device}: {runs}")
    problems = _self_test()
    for problem in problems:
        print(f"WRONG: {problem}")
    print("self-test: " + ("failed" if problems else "passed"))
    return 1 if problems or native is None else 0


def _devices() -> list[tuple[str, str]]:
    """Devices that are there, and what they run."""
    count = torch.get_num_threads()
    plain = "plain torch"
    found = [("cpu", plain if _native_ops.native is None else f"compiled kernels, {count} threads")]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found += [(f"cuda:{index} ({name})", plain) for index, name in enumerate(gpus)]
    if torch.backends.mps.is_available():
        found.append(("mps", plain))
    return found


def _self_test() -> list[str]:
    """Results of each op on the CPU that differ from its definition."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    depth, context, projection, bins = (
        rand(1, 2, 9, 5, 7),
        rand(1, 2, 20, 5, 7),
        rand(1, 2, 3, 4),
        4 * rand(9),
    )
    grid = (4, 12, 14)
    coords, features = 15 * rand(1, 50, 3), rand(1, 50, 20)
    view, source, pose, planes = (
        rand(1, 24, 5, 6),
        rand(1, 24, 7, 8),
        torch.eye(3, 4)[None],
        1 + rand(1, 3, 5, 6),
    )
    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "lift_splat": (
            lambda: bev_ops.lift_splat(depth, context, projection, bins, grid),
            lambda: reference.lift_splat(depth, context, projection, bins, grid, "floor"),
        ),
        "voxel_pooling": (
            lambda: bev_ops.voxel_pooling(coords, features, grid),
            lambda: reference.voxel_pooling(coords, features, grid, "floor"),
        ),
        "homography_warp": (
            lambda: bev_ops.homography_warp(source, pose, planes),
            lambda: reference.homography_warp(source, pose, planes, "zero"),
        ),
        "plane_sweep_correlation": (
            lambda: bev_ops.plane_sweep_correlation(view, source, pose, planes, 3),
            lambda: reference.plane_sweep_correlation(view, source, pose, planes, 3, "zero"),
        ),
    }
    problems = []
    for name, (run, define) in pairs.items():
        wanted = define()
        error = float((run() - wanted).norm() / wanted.norm())
        if not error <= _TOLERANCE:
            problems.append(
                f"{name} differs from its definition by {error:.1e}, at most {_TOLERANCE} is allowed"
            )
    return problems
