"""Kernels of bird's-eye-view perception: lift-splat, voxel pooling, plane-sweep stereo.

Shape shorthand: B batch, N cameras, C channels, G groups, D depth bins or hypotheses, H W cells of the
reference view, h w cells of the source view, P points, Z Y X cells of the BEV grid.
"""

from bev_ops.lift_plan import LiftSplatPlan
from bev_ops.lift_splat import lift_splat
from bev_ops.plane_sweep import Behind, homography_warp, plane_sweep_correlation
from bev_ops.projection import feature_to_pixel, lift_projection, sweep_projection
from bev_ops.voxel_pooling import Rounding, voxel_pooling

__all__ = [
    "Behind",
    "LiftSplatPlan",
    "Rounding",
    "feature_to_pixel",
    "homography_warp",
    "lift_projection",
    "lift_splat",
    "plane_sweep_correlation",
    "sweep_projection",
    "voxel_pooling",
]
__version__ = "0.1.0"
