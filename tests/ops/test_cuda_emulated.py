"""The CUDA kernels, compiled for the processor and run thread by thread, against the definitions."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bev_ops._compiled import load
from bev_ops._cuda_ops import Kernels

from . import cuda_cases as cases

emulated = load("_emulated")
if emulated is None:
    pytest.skip(
        "the emulation is not built: `nox -s cuda` builds and tests it, or pip with "
        "-C cmake.define.BEV_OPS_EMULATE_CUDA=ON",
        allow_module_level=True,
    )

KERNELS = Kernels(emulated)
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
@given(data=st.data())
def test_lift_splat_of_anything(data: st.DataObject) -> None:
    cases.check_lift_splat(KERNELS, "cpu", *cases.any_lift(data))
