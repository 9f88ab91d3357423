"""The CUDA kernels, compiled for the processor and run thread by thread, against the definitions."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bev_ops.devices import load
from bev_ops.operators.kernels import Kernels

from . import cuda_cases as cases

emulated = load("_emulated")
if emulated is None:
    pytest.skip(
        "the emulation is not built: `nox -s sanitize` builds and tests it, or pip with "
        "-C cmake.define.BEV_OPS_EMULATE_CUDA=ON",
        allow_module_level=True,
    )

KERNELS = Kernels(emulated.cuda, cuda=True)
CASES = int(os.environ.get("BEV_OPS_CASES", "100"))
DTYPES = pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)


@pytest.fixture(params=[False, True], ids=["any order", "deterministic"])
def mode(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.use_deterministic_algorithms(request.param)
    yield
    torch.use_deterministic_algorithms(False)


@DTYPES
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize(("channels", "roll"), [(8, 0.0), (36, 0.4), (5, 1.6)])
def test_lift_splat_of_a_rig(dtype: torch.dtype, channels: int, roll: float) -> None:
    grid, height, width, bins = (1, 24, 28), 18, 9, torch.linspace(1, 60, 35)
    projection = cases.rig(2, height, width, grid, roll).repeat(2, 1, 1, 1)
    depth = torch.rand(2, 2, 35, height, width, dtype=torch.float64).to(dtype)
    context = torch.randn(2, 2, channels, height, width, dtype=torch.float64).to(dtype)
    cases.check_lift_splat(KERNELS, "cpu", depth, context, projection, bins, grid, "floor")


@settings(max_examples=CASES, deadline=None)
@given(data=st.data(), deterministic=st.booleans())
def test_lift_splat_of_anything(data: st.DataObject, deterministic: bool) -> None:
    torch.use_deterministic_algorithms(deterministic)
    try:
        cases.check_lift_splat(KERNELS, "cpu", *cases.any_lift(data))
    finally:
        torch.use_deterministic_algorithms(False)


@settings(max_examples=CASES, deadline=None)
@given(data=st.data(), deterministic=st.booleans())
def test_voxel_pooling_of_anything(data: st.DataObject, deterministic: bool) -> None:
    torch.use_deterministic_algorithms(deterministic)
    try:
        cases.check_voxel_pooling(KERNELS, "cpu", *cases.any_pool(data))
    finally:
        torch.use_deterministic_algorithms(False)


@DTYPES
@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("places", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("behind", ["zero", "corner"])
@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (72, 2), (21, 7), (6, 1)])
def test_plane_sweep(
    dtype: torch.dtype, places: torch.dtype, behind: str, channels: int, groups: int
) -> None:
    views = cases.sweep(2, channels, (9, 8), (11, 6, 7), dtype, places)
    cases.check_plane_sweep(KERNELS, "cpu", *views, groups, behind)


@settings(max_examples=CASES, deadline=None)
@given(data=st.data(), deterministic=st.booleans())
def test_plane_sweep_of_anything(data: st.DataObject, deterministic: bool) -> None:
    torch.use_deterministic_algorithms(deterministic)
    try:
        cases.check_plane_sweep(KERNELS, "cpu", *cases.any_sweep(data), slopes=False)
    finally:
        torch.use_deterministic_algorithms(False)
