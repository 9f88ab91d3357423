"""The compiled kernels, which devices run them, and why the others do not."""

import functools
import importlib
import os
import warnings
from typing import Any

import torch

# Which instruction set the processor's kernels use; unset: the best that the processor has.
_VARIABLE = "BEV_OPS_ISA"


def load(name: str) -> Any:
    """A compiled module of this package, or None where it was not built."""
    try:
        return importlib.import_module(f"bev_ops.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"bev_ops.{name}":
            raise
        return None


def select(name: str, rule: str = "the instruction set") -> None:
    """Have the processor's kernels use one instruction set from now on.

    Raises:
        ValueError: if the kernels have no such set, or the processor cannot run it.
    """
    if not native.cpu.select(name):
        able = ", ".join(native.cpu.instruction_sets().split())
        raise ValueError(f"bev_ops: {rule} must be one that this processor has ({able}), got {name!r}")


native = load("_native")
if native is not None and os.environ.get(_VARIABLE):
    select(os.environ[_VARIABLE], _VARIABLE)


def built_for_cuda() -> bool:
    """Whether the compiled kernels contain those for CUDA."""
    return hasattr(native, "cuda")


def _version(number: int) -> str:
    """CUDA's version numbers in words: 13000 is 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else "none"


def cuda_build() -> str:
    """How the kernels for CUDA were built, for the doctor."""
    if not built_for_cuda():
        return "not built"
    cuda = native.cuda
    return (
        f"{cuda.architectures}, runtime {_version(cuda.runtime_version())} within, "
        f"driver for {_version(cuda.driver_version())}"
    )


@functools.cache
def cuda_problem(index: int) -> str:
    """Why a GPU runs plain torch; empty where it runs the compiled kernels."""
    if torch.version.hip:
        return "this torch is for ROCm, and the kernels are for CUDA"
    if not built_for_cuda():
        return (
            "bev_ops was built without CUDA; with nvcc on PATH, `pip install --force-reinstall --no-deps "
            "--no-binary bev-ops bev-ops` (or `pip install packages/bev-ops` in a checkout) builds them"
        )
    found: str = native.cuda.problem(index)
    if not found:
        return ""
    return (
        f"{found} (CUDA kernels: {cuda_build()}); a newer driver may help, or a build on this machine with "
        "`-C cmake.define.BEV_OPS_CUDA_ARCHITECTURES=native`"
    )


def problem(device: torch.device) -> str:
    """Why a device runs plain torch; empty where it runs the compiled kernels."""
    if device.type == "cuda":
        return cuda_problem(device.index)
    if device.type != "cpu":
        return "there are no kernels for it"
    if native is None:
        return (
            "its compiled kernels are missing; with a C++17 compiler at hand, `pip install "
            "--force-reinstall --no-deps --no-binary bev-ops bev-ops` (or `pip install packages/bev-ops` in "
            "a checkout) builds them"
        )
    return ""


@functools.cache
def warn_of_plain_torch(device: torch.device) -> None:
    """Say once for each device that was expected to run the compiled kernels why it does not."""
    reason = problem(device) if device.type in ("cpu", "cuda") else ""
    if reason:
        where = "" if device.type == "cpu" else f" on {device}"
        warnings.warn(
            f"bev_ops runs in plain torch{where}, many times slower: {reason}", RuntimeWarning, stacklevel=2
        )
