"""Which GPUs run the compiled kernels, and why the others do not."""

import functools
import warnings

import torch

from bev_ops._compiled import native


def built() -> bool:
    """Whether the compiled kernels contain those for CUDA."""
    return native is not None and hasattr(native, "LiftCall")


def _version(number: int) -> str:
    """CUDA's version numbers in words: 13000 is 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else "none"


def build() -> str:
    """How the kernels for CUDA were built, for the doctor."""
    if not built():
        return "not built"
    return (
        f"{native.cuda_architectures}, runtime {_version(native.cuda_runtime_version())} within, "
        f"driver for {_version(native.cuda_driver_version())}"
    )


@functools.cache
def problem(index: int) -> str:
    """Why a GPU runs plain torch; empty where it runs the compiled kernels."""
    if torch.version.hip:
        return "this torch is for ROCm, and the kernels are for CUDA"
    if not built():
        return (
            "bev_ops was built without CUDA; with nvcc on PATH, `pip install --force-reinstall --no-deps "
            "--no-binary bev-ops bev-ops` (or `pip install packages/bev-ops` in a checkout) builds them"
        )
    found: str = native.cuda_problem(index)
    if not found:
        return ""
    return (
        f"{found} (CUDA kernels: {build()}); a newer driver may help, or a build on this machine with "
        "`-C cmake.define.BEV_OPS_CUDA_ARCHITECTURES=native`"
    )


@functools.cache
def _runs(index: int) -> bool:
    reason = problem(index)
    if reason:
        warnings.warn(
            f"bev_ops runs in plain torch on cuda:{index}, many times slower: {reason}",
            RuntimeWarning,
            stacklevel=5,
        )
    return not reason


# What a device runs does not change: a graph that torch traces takes it as given.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def runs(index: int) -> bool:
    """Whether a GPU runs the compiled kernels; warns once where it does not."""
    return _runs(index)
