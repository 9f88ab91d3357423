"""Wrong arguments of every function: an error says which function and argument, the rule, and what it got."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bev_ops
from bev_ops import LiftSplatPlan

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

# Two samples, three cameras, four bins, five by six cells, seven channels.
DEPTH, CONTEXT = torch.zeros(2, 3, 4, 5, 6), torch.zeros(2, 3, 7, 5, 6)
PROJECTION, BINS = torch.zeros(2, 3, 3, 4), torch.ones(4)
VIEW, SOURCE, PLANES = torch.zeros(2, 6, 4, 5), torch.zeros(2, 6, 7, 8), torch.ones(2, 3, 4, 5)
POSES = torch.eye(3, 4).repeat(2, 1, 1)
GRID = (1, 4, 5)
THREE, FOUR = torch.eye(3), torch.eye(4)


def planned(depth: Tensor, context: Tensor) -> Tensor:
    return LiftSplatPlan(PROJECTION, BINS, (5, 6), GRID).splat(depth, context)


LIFT = {"depth": DEPTH, "context": CONTEXT, "projection": PROJECTION, "depth_bins": BINS, "grid_shape": GRID}
PLAN = {"projection": PROJECTION, "depth_bins": BINS, "feature_size": (5, 6), "grid_shape": GRID}
POOL = {"coords": torch.zeros(2, 9, 3), "features": torch.zeros(2, 9, 7), "grid_shape": GRID}
WARP = {"source": SOURCE, "projection": POSES, "depth": PLANES}
CORRELATE = {"reference": VIEW, **WARP, "groups": 2}
INTO_GRID = {"cell_to_pixel": THREE, "low": (0, 0, 0), "cell": (1.0, 1.0, 1.0)}
INTO_BEV = {"intrinsics": THREE.repeat(2, 1, 1), "sensor2ego": FOUR, **INTO_GRID}
INTO_VIEW = {
    "reference_intrinsics": THREE,
    "source_intrinsics": THREE,
    "reference2source": FOUR,
    "cell_to_pixel": THREE,
    "pixel_to_cell": THREE,
}

# What is right about every function; the tests below change one argument at a time.
RIGHT: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "lift_splat": (bev_ops.lift_splat, LIFT),
    "LiftSplatPlan": (LiftSplatPlan, PLAN),
    "LiftSplatPlan.splat": (planned, {"depth": DEPTH, "context": CONTEXT}),
    "voxel_pooling": (bev_ops.voxel_pooling, POOL),
    "homography_warp": (bev_ops.homography_warp, WARP),
    "plane_sweep_correlation": (bev_ops.plane_sweep_correlation, CORRELATE),
    "lift_projection": (bev_ops.lift_projection, INTO_BEV),
    "sweep_projection": (bev_ops.sweep_projection, INTO_VIEW),
    "feature_to_pixel": (bev_ops.feature_to_pixel, {"image_size": (256, 704), "feature_size": (16, 44)}),
}
TENSORS = [
    (op, name)
    for op, (_, arguments) in RIGHT.items()
    for name, value in arguments.items()
    if isinstance(value, Tensor)
]


def refuse(op: str, error: type[Exception], message: str, **change: object) -> None:
    function, arguments = RIGHT[op]
    with pytest.raises(error) as caught:
        function(**{**arguments, **change})
    # The exact class: NotImplementedError, a RuntimeError too, comes from torch and names nothing of ours.
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{op}: ")
    caught.match(message)


@pytest.mark.parametrize("op", RIGHT)
def test_the_arguments_that_are_changed_below_are_right(op: str) -> None:
    function, arguments = RIGHT[op]
    function(**arguments)


@pytest.mark.parametrize(("op", "name"), TENSORS)
@pytest.mark.parametrize("wrong", [None, [1.0, 2.0], np.zeros(3)], ids=["None", "list", "array"])
def test_no_tensor(op: str, name: str, wrong: object) -> None:
    refuse(op, TypeError, f"{name} must be a tensor .*, got {type(wrong).__name__}", **{name: wrong})


# Shapes: one argument too few axes, or one axis of another size than an argument before it has.


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_wrong_number_of_axes(op: str, name: str) -> None:
    scalar = RIGHT[op][1][name].sum()
    refuse(op, ValueError, rf"{name} must have shape \[.*\].*, got \[\]", **{name: scalar})


@pytest.mark.parametrize(
    ("op", "name", "shape", "rule"),
    [
        ("lift_splat", "context", (1, 3, 7, 5, 6), "B = 2 as in depth"),
        ("lift_splat", "context", (2, 2, 7, 5, 6), "N = 3 as in depth"),
        ("lift_splat", "context", (2, 3, 7, 4, 6), "H = 5 as in depth"),
        ("lift_splat", "context", (2, 3, 7, 5, 1), "W = 6 as in depth"),
        ("lift_splat", "projection", (1, 3, 3, 4), "B = 2 as in depth"),
        ("lift_splat", "projection", (2, 1, 3, 4), "N = 3 as in depth"),
        ("lift_splat", "projection", (2, 3, 4, 4), r"\[B N 3 4\]"),
        ("lift_splat", "projection", (2, 3, 3, 3), r"\[B N 3 4\]"),
        ("lift_splat", "depth_bins", (1,), "D = 4 as in depth"),
        ("LiftSplatPlan", "projection", (2, 3, 4, 4), r"\[B N 3 4\]"),
        ("LiftSplatPlan", "projection", (2, 3, 3, 3), r"\[B N 3 4\]"),
        ("LiftSplatPlan.splat", "depth", (1, 3, 4, 5, 6), "B = 2 as in the plan"),
        ("LiftSplatPlan.splat", "depth", (2, 1, 4, 5, 6), "N = 3 as in the plan"),
        ("LiftSplatPlan.splat", "depth", (2, 3, 3, 5, 6), "D = 4 as in the plan"),
        ("LiftSplatPlan.splat", "depth", (2, 3, 4, 6, 6), "H = 5 as in the plan"),
        ("LiftSplatPlan.splat", "context", (2, 3, 7, 5, 5), "W = 6 as in the plan"),
        ("voxel_pooling", "coords", (2, 9, 2), r"\[B P 3\]"),
        ("voxel_pooling", "features", (1, 9, 7), "B = 2 as in coords"),
        ("voxel_pooling", "features", (2, 1, 7), "P = 9 as in coords"),
        ("homography_warp", "projection", (1, 3, 4), "B = 2 as in source"),
        ("homography_warp", "projection", (2, 4, 4), r"\[B 3 4\]"),
        ("homography_warp", "projection", (2, 3, 3), r"\[B 3 4\]"),
        ("homography_warp", "depth", (1, 3, 4, 5), "B = 2 as in source"),
        ("plane_sweep_correlation", "source", (1, 6, 7, 8), "B = 2 as in reference"),
        ("plane_sweep_correlation", "source", (2, 1, 7, 8), "C = 6 as in reference"),
        ("plane_sweep_correlation", "projection", (1, 3, 4), "B = 2 as in reference"),
        ("plane_sweep_correlation", "depth", (1, 3, 4, 5), "B = 2 as in reference"),
        ("plane_sweep_correlation", "depth", (2, 3, 1, 5), "H = 4 as in reference"),
        ("plane_sweep_correlation", "depth", (2, 3, 4, 4), "W = 5 as in reference"),
        ("lift_projection", "intrinsics", (2, 4, 4), r"\[\.\.\. 3 3\]"),
        ("lift_projection", "sensor2ego", (3, 4), r"\[\.\.\. 4 4\]"),
        ("lift_projection", "image_aug", (2, 3), r"\[\.\.\. 3 3\]"),
        ("lift_projection", "bev_aug", (3, 3), r"\[\.\.\. 4 4\]"),
        ("lift_projection", "cell_to_pixel", (2, 3, 3), r"\[3 3\]"),
        ("sweep_projection", "source_intrinsics", (3, 4), r"\[\.\.\. 3 3\]"),
        ("sweep_projection", "reference2source", (3, 3), r"\[\.\.\. 4 4\]"),
        ("sweep_projection", "source_aug", (4, 4), r"\[\.\.\. 3 3\]"),
        ("sweep_projection", "pixel_to_cell", (4, 4), r"\[3 3\]"),
    ],
)
def test_wrong_sizes(op: str, name: str, shape: tuple[int, ...], rule: str) -> None:
    got = ", ".join(map(str, shape))
    refuse(op, ValueError, rf"{name} must have shape .*{rule}.*, got \[{got}\]", **{name: torch.ones(shape)})


@pytest.mark.parametrize("op", ["lift_projection", "sweep_projection"])
def test_batch_axes_that_do_not_broadcast(op: str) -> None:
    first, pose = next(iter(RIGHT[op][1])), "sensor2ego" if op == "lift_projection" else "reference2source"
    change = {first: THREE.repeat(2, 1, 1), pose: FOUR.repeat(5, 1, 1)}
    refuse(op, ValueError, rf"must broadcast, got {first} \[2, 3, 3\].*{pose} \[5, 4, 4\]", **change)


@pytest.mark.parametrize("op", ["lift_splat", "voxel_pooling", "homography_warp", "plane_sweep_correlation"])
def test_what_passed_before_does_not_excuse_what_comes_next(op: str) -> None:
    function, arguments = RIGHT[op]
    function(**arguments), function(**arguments)
    name = next(name for name, value in arguments.items() if isinstance(value, Tensor))
    refuse(op, ValueError, "must (have shape|divide)", **{name: arguments[name].flatten()})
    refuse(op, TypeError, f"{name} must be a tensor", **{name: arguments[name].numpy()})
    if "grid_shape" in arguments:
        refuse(op, ValueError, "grid_shape must be", grid_shape=tuple(map(float, GRID)))
    if "groups" in arguments:
        refuse(op, ValueError, "groups must divide", groups=2.0)


# What the numbers are, and where they lie.

NO_FLOATS = [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]


@pytest.mark.parametrize(("op", "name"), [pair for pair in TENSORS if pair[1] != "coords"])
@pytest.mark.parametrize("dtype", NO_FLOATS)
def test_wrong_dtype(op: str, name: str, dtype: torch.dtype) -> None:
    tensor = RIGHT[op][1][name].to(dtype)
    refuse(
        op, ValueError, f"{name} must be floating-point of 16, 32 or 64 bits, got {dtype}", **{name: tensor}
    )


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_coordinates_that_are_no_real_numbers(dtype: torch.dtype) -> None:
    coords = torch.zeros(2, 9, 3, dtype=dtype)
    refuse(
        "voxel_pooling", ValueError, f"coords must be integer or floating-point, got {dtype}", coords=coords
    )


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_two_devices(op: str, name: str) -> None:
    tensor = RIGHT[op][1][name].to("meta")
    refuse(op, ValueError, rf"{name}.* (must be on|on) .*meta", **{name: tensor})


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_sparse_tensors(op: str, name: str) -> None:
    tensor = RIGHT[op][1][name].to_sparse()
    refuse(op, ValueError, f"{name} must be dense, got .*torch.sparse_coo", **{name: tensor})


# Options.

GRIDS = [
    5,
    None,
    (4, 5),
    (1, 4, 5, 6),
    (1, 0, 5),
    (1, -4, 5),
    (1, 4.0, 5),
    "145",
    ("1", 4, 5),
    (1, 2**70, 5),
    (2**25, 4, 5),
]


@pytest.mark.parametrize("op", ["lift_splat", "LiftSplatPlan", "voxel_pooling"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_wrong_grid_shapes(op: str, grid: object) -> None:
    refuse(op, ValueError, r"grid_shape must be three positive integers \(Z, Y, X\)", grid_shape=grid)


@pytest.mark.parametrize(
    "grid", [[1, 4, 5], torch.Size(GRID), np.array([1, 0, 4, 0, 5])[::2], torch.tensor(GRID)]
)
def test_grid_shapes_of_any_kind_of_integers(grid: Any) -> None:
    assert bev_ops.voxel_pooling(torch.zeros(2, 9, 3), torch.zeros(2, 9, 7), grid).shape == (2, 7, 4, 5)


@pytest.mark.parametrize("op", ["lift_splat", "LiftSplatPlan", "voxel_pooling"])
@pytest.mark.parametrize("rounding", ["nearest", None, 0])
def test_wrong_rounding(op: str, rounding: object) -> None:
    refuse(op, ValueError, f"rounding must be one of 'floor', 'trunc', got {rounding!r}", rounding=rounding)


@pytest.mark.parametrize("op", ["homography_warp", "plane_sweep_correlation"])
@pytest.mark.parametrize("behind", ["nan", None, 0])
def test_wrong_behind(op: str, behind: object) -> None:
    refuse(op, ValueError, f"behind must be one of 'zero', 'corner', got {behind!r}", behind=behind)


@pytest.mark.parametrize("groups", [0, -2, 4, 12, 2.0, "2", None, (2,)])
def test_groups_that_do_not_divide_the_channels(groups: object) -> None:
    refuse("plane_sweep_correlation", ValueError, "groups must divide the 6 channels, got ", groups=groups)


def test_correlation_without_channels() -> None:
    views = {"reference": VIEW[:, :0], "source": SOURCE[:, :0]}
    refuse("plane_sweep_correlation", ValueError, "source must have at least one channel .* got 0", **views)


@pytest.mark.parametrize("size", [5, None, (4,), (4, 5, 6), (0, 4), (-4, 4), (4.0, 4), (2**25, 4)])
@pytest.mark.parametrize("name", ["image_size", "feature_size"])
def test_wrong_image_sizes(name: str, size: object) -> None:
    rule = rf"{name} must be two integers \(H, W\) from 1 up, at most 2\^24, got "
    refuse("feature_to_pixel", ValueError, rule, **{name: size})


@pytest.mark.parametrize("size", [5, (4,), (-1, 4), (4.0, 4), (2**25, 4)])
def test_wrong_feature_sizes_of_plans(size: object) -> None:
    refuse(
        "LiftSplatPlan", ValueError, r"feature_size must be two integers \(H, W\) from 0", feature_size=size
    )


@pytest.mark.parametrize(
    ("name", "bad"), [("low", math.inf), ("cell", 0.0), ("cell", -1.0), ("cell", math.nan)]
)
def test_wrong_extents(name: str, bad: float) -> None:
    for wrong in [(1.0, bad, 1.0), (1.0, 1.0), 1.0, "abc", None]:
        refuse(
            "lift_projection",
            ValueError,
            rf"{name} must be three .* \(x, y, z\) in metres, got",
            **{name: wrong},
        )


# More than fits: tensors that repeat one number have any size at no cost.


def repeated(*shape: int) -> Tensor:
    return torch.zeros(1).expand(shape)


@pytest.fixture
def limited_memory() -> Iterator[None]:
    """A limit below what is asked for, for systems that promise memory they do not have."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**36, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize(
    ("op", "change", "rule"),
    [
        ("lift_splat", {"depth": repeated(2, 2**50, 4, 5, 6)}, "depth must have fewer than 2.40 elements"),
        ("lift_splat", {"depth": repeated(2, 3, 4, 5, 2**30)}, "depth must have at most 2.24 .* along W"),
        (
            "lift_splat",
            {"context": repeated(2, 3, 2**50, 5, 6)},
            "context must have fewer than 2.40 elements",
        ),
        (
            "lift_splat",
            {"grid_shape": (1, 2**15, 2**15), "context": repeated(2, 3, 2**9, 5, 6)},
            "result .* that grid_shape asks for must have fewer",
        ),
        ("lift_splat", {"grid_shape": (1, 2**16, 2**15)}, "grid_shape must have Y . X below 2.31"),
        ("LiftSplatPlan", {"depth_bins": repeated(2**25)}, "depth_bins must have at most 2.24 .* along D"),
        ("LiftSplatPlan", {"feature_size": (2**24, 2**24)}, "that feature_size asks for must have fewer"),
        (
            "LiftSplatPlan.splat",
            {"context": repeated(2, 3, 2**36, 5, 6)},
            "context must have fewer than 2.40",
        ),
        ("voxel_pooling", {"coords": repeated(2, 2**50, 3)}, "coords must have fewer than 2.40 elements"),
        ("voxel_pooling", {"features": repeated(2, 9, 2**50)}, "features must have fewer than 2.40 elements"),
        (
            "voxel_pooling",
            {"grid_shape": (1, 2**15, 2**15), "features": repeated(2, 9, 2**9)},
            "result .* that grid_shape asks for must have",
        ),
        ("homography_warp", {"source": repeated(2, 6, 7, 2**32)}, "source must have at most 2.24 .* along w"),
        (
            "homography_warp",
            {"depth": repeated(2, 2**24, 2**12, 5)},
            "result .* that depth asks for must have",
        ),
        (
            "plane_sweep_correlation",
            {"depth": repeated(2, 2**33, 4, 5)},
            "depth must have at most 2.24 .* along D",
        ),
    ],
)
def test_tensors_beyond_all_machines(op: str, change: dict[str, object], rule: str) -> None:
    refuse(op, ValueError, rule, **change)


@pytest.mark.usefixtures("limited_memory")
@pytest.mark.parametrize(
    ("op", "change"),
    [
        ("lift_splat", {"grid_shape": (1, 2**15, 2**15 + 2**14)}),
        ("voxel_pooling", {"grid_shape": (1, 2**15, 2**15 + 2**14)}),
        ("homography_warp", {"depth": repeated(2, 2**24, 64, 5)}),
        ("plane_sweep_correlation", {"depth": repeated(2, 2**24, 64, 5), "reference": repeated(2, 6, 64, 5)}),
    ],
)
def test_results_that_do_not_fit_into_memory(op: str, change: dict[str, object]) -> None:
    refuse(op, RuntimeError, r"must fit into memory, got arguments \[2, ", **change)
