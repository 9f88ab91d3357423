"""The doctor: says how bev-ops was built and what each device will run, and tests it."""

import platform
from collections.abc import Callable

import torch
from torch import Tensor

import bev_ops
from bev_ops import devices, reference

# Relative norm of the error that float32 may have.
_TOLERANCE = 1e-5


def main() -> int:
    """Print the report; the exit code is 1 where something is wrong."""
    print(f"bev-ops {bev_ops.__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    cpu = getattr(devices.native, "cpu", None)
    if cpu is None:
        print("compiled kernels: missing; every device runs plain torch")
        print("  to build them: `pip install packages/bev-ops` in a checkout, with a C++17 compiler at hand")
    else:
        print(f"compiled kernels: {cpu.compiler}, threads by {cpu.threads}")
        print(f"  instruction set: {cpu.instruction_set()} (this processor has {cpu.instruction_sets()})")
        if cpu.threads == "none":
            print("  built without OpenMP: each op runs on one thread")
        print(f"  CUDA: {devices.cuda_build()}")
    for device, runs in _devices():
        print(f"{device}: {runs}")
    tested = ["cpu", *_gpus()]
    problems = [f"{device}: {problem}" for device in tested for problem in _self_test(torch.device(device))]
    for problem in problems:
        print(f"WRONG: {problem}")
    print(f"self-test on {', '.join(tested)}: " + ("failed" if problems else "passed"))
    return 1 if problems or cpu is None else 0


def _devices() -> list[tuple[str, str]]:
    """Devices that are there, and what they run."""
    count = torch.get_num_threads()
    plain = "plain torch"
    found = [("cpu", plain if devices.native is None else f"compiled kernels, {count} threads")]
    for index, device in enumerate(_gpus()):
        problem = devices.cuda_problem(index)
        runs = f"{plain}: {problem}" if problem else "compiled kernels"
        found.append((f"{device} ({torch.cuda.get_device_name(index)})", runs))
    if torch.backends.mps.is_available():
        found.append(("mps", plain))
    return found


def _gpus() -> list[str]:
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def _self_test(device: torch.device) -> list[str]:
    """Results of each op on a device that differ from its definition."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(device)

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
        torch.eye(3, 4, device=device)[None],
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
