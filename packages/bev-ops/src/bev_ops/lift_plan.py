"""The geometry of lift-splat worked out once, for cameras that do not move."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from bev_ops._checks import (
    Shapes,
    expect_choice,
    expect_countable,
    expect_floating,
    expect_grid,
    expect_one_device,
    expect_size,
    passed,
    remember,
    signature,
)
from bev_ops.lift_splat import lift_splat
from bev_ops.operators import schema
from bev_ops.voxel_pooling import ROUNDINGS, Rounding


class LiftSplatPlan:
    """Lift-splat for a rig whose projection stays as it is: `splat` gives what `lift_splat` gives, sooner.

    The plan lists which points of the cameras fall into which cell. It pays where the same calibration and
    augmentation serve many calls, as at inference; where they change with every batch, call `lift_splat`.
    Only the compiled kernels of the CPU make use of it: on a GPU, where cells cost next to nothing, and in
    plain torch `splat` is `lift_splat`.

    Args:
        projection: see `lift_splat`; copied, and without a gradient.
        depth_bins: metres.
        feature_size: (H, W) of depth and context.
        grid_shape: (Z, Y, X) in cells, at most 2^24 each; Y * X below 2^31.
        rounding: see `voxel_pooling`.

    Raises:
        ValueError: if a shape, dtype, device or option is wrong.
    """

    def __init__(
        self,
        projection: Float[Tensor, "B N 3 4"],
        depth_bins: Float[Tensor, "D"],
        feature_size: Sequence[int],
        grid_shape: Sequence[int],
        rounding: Rounding = "floor",
    ) -> None:
        shapes = Shapes("LiftSplatPlan")
        shapes.expect("projection", projection, "B N 3 4")
        shapes.expect("depth_bins", depth_bins, "D")
        expect_floating("LiftSplatPlan", projection=projection, depth_bins=depth_bins)
        expect_one_device("LiftSplatPlan", projection=projection, depth_bins=depth_bins)
        expect_choice("LiftSplatPlan", "rounding", rounding, ROUNDINGS)
        self._size = expect_size("LiftSplatPlan", "feature_size", feature_size)
        self._grid = expect_grid("LiftSplatPlan", grid_shape)
        points = (*projection.shape[:2], len(depth_bins), *self._size)
        expect_countable("LiftSplatPlan", "feature_size", points, "set of points [B N D H W]")
        self._rounding: Rounding = rounding
        self._projection = projection.detach().clone()
        self._depth_bins = depth_bins.detach().clone()
        self._groups: list[Tensor] | None = None
        if projection.device.type == "cpu" and "CPU" in schema.KERNELS:
            self._groups = schema.KERNELS["CPU"].lift_plan(
                self._projection, self._depth_bins, self._size, self._grid, rounding
            )

    def splat(
        self, depth: Float[Tensor, "B N D H W"], context: Float[Tensor, "B N C H W"]
    ) -> Float[Tensor, "B C Y X"]:
        """Lift and splat features of the rig; the result equals that of `lift_splat`, bit for bit.

        Args:
            depth: weight of each depth bin, in the sizes the plan was made for.
            context: the feature that is lifted; any number of channels.

        Raises:
            ValueError: if a tensor does not fit the plan, or a dtype or device is wrong.
        """
        known = signature(
            "LiftSplatPlan.splat", self._size, self._grid, self._projection, self._depth_bins, depth, context
        )
        if not passed(known):
            self._expect(depth, context)
            remember(known)
        if self._groups is None:
            return lift_splat(depth, context, self._projection, self._depth_bins, self._grid, self._rounding)
        splatted: Tensor = schema.lift_splat_planned(depth, context, *self._groups, self._grid)
        return splatted

    def _expect(self, depth: Tensor, context: Tensor) -> None:
        """Check that tensors fit the plan."""
        shapes = Shapes("LiftSplatPlan.splat")
        planned = (*self._projection.shape[:2], len(self._depth_bins), *self._size)
        shapes.bind("the plan", B=planned[0], N=planned[1], D=planned[2], H=planned[3], W=planned[4])
        shapes.expect("depth", depth, "B N D H W")
        shapes.expect("context", context, "B N C H W")
        expect_floating("LiftSplatPlan.splat", depth=depth, context=context)
        expect_one_device("LiftSplatPlan.splat", plan=self._projection, depth=depth, context=context)
        result = planned[0], context.shape[2], *self._grid[1:]
        expect_countable("LiftSplatPlan.splat", "context", result, "result [B C Y X]")
