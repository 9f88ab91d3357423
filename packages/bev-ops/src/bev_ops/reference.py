"""Plain-torch definitions of the ops: the specification, and what runs on any device torch runs on.

They trust their arguments; the public functions of the package check them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int16, Int32, Int64, Num
from torch import Tensor

from bev_ops._checks import compute_dtype

# A point nearer to the source camera's plane than this has no position in its image, metres.
MIN_DEPTH = 1e-3
# The tiles of an image that the columns of a plan are numbered by, as in cpp/cpu/groups.h.
_TILE_ROWS, _TILE_COLUMNS = 16, 48


def _round(coords: Num[Tensor, "*any"], rounding: str) -> Int64[Tensor, "*any"]:
    """Round to cell indices; NaN and anything beyond +-2^30 becomes an index outside every grid."""
    if not coords.is_floating_point():
        return coords.long()
    coords = coords.to(compute_dtype(coords))
    rounded = coords.floor() if rounding == "floor" else coords.trunc()
    return rounded.nan_to_num(nan=-1.0).clamp(-(2.0**30), 2.0**30).long()


def _flat_cells(
    cells: tuple[Int64[Tensor, "B P"], Int64[Tensor, "B P"], Int64[Tensor, "B P"]],
    grid: tuple[int, int, int],
) -> tuple[Int64[Tensor, "B P"], Bool[Tensor, "B P"]]:
    """Flat index into [B, Y, X] and whether a point lies in the grid, from (x, y, z) cell indices."""
    x, y, z = cells
    z_size, y_size, x_size = grid
    inside = (x >= 0) & (x < x_size) & (y >= 0) & (y < y_size) & (z >= 0) & (z < z_size)
    batch = torch.arange(x.shape[0], device=x.device)[:, None]
    return (batch * y_size + y) * x_size + x, inside


def voxel_pooling(
    coords: Num[Tensor, "B P 3"],
    features: Float[Tensor, "B P C"],
    grid: tuple[int, int, int],
    rounding: str,
) -> Float[Tensor, "B C Y X"]:
    """Definition of `bev_ops.voxel_pooling`."""
    _, y_size, x_size = grid
    batch, _, channels = features.shape
    x, y, z = _round(coords, rounding).unbind(-1)
    flat, inside = _flat_cells((x, y, z), grid)
    # Points outside go into a row of their own: to pick out the others, the host would have to know how many.
    cells = batch * y_size * x_size
    cell = torch.where(inside, flat, cells).flatten()
    rows = features.to(compute_dtype(features)).flatten(0, 1)
    bev = rows.new_zeros(cells + 1, channels).index_add(0, cell, rows)[:cells]
    return bev.view(batch, y_size, x_size, channels).permute(0, 3, 1, 2).to(features.dtype)


def lift_splat(
    depth: Float[Tensor, "B N D H W"],
    context: Float[Tensor, "B N C H W"],
    projection: Float[Tensor, "B N 3 4"],
    depth_bins: Float[Tensor, "D"],
    grid: tuple[int, int, int],
    rounding: str,
) -> Float[Tensor, "B C Y X"]:
    """Definition of `bev_ops.lift_splat`: only points inside the grid are ever lifted."""
    _, y_size, x_size = grid
    batch, cameras, bins, height, width = depth.shape
    channels = context.shape[2]
    dtype = compute_dtype(depth, context)

    cells = sweep_positions(projection.flatten(0, 1), depth_bins.view(1, -1, 1, 1), (height, width))
    points = cameras * bins * height * width
    x, y, z = (_round(axis, rounding).view(batch, points) for axis in cells)
    flat, inside = _flat_cells((x, y, z), grid)

    pixels = torch.arange(batch * cameras * height * width, device=depth.device)
    pixel_of_point = pixels.view(batch, cameras, 1, height, width).expand(-1, -1, bins, -1, -1)
    pixel = pixel_of_point.flatten(1)[inside]
    weight = depth.flatten(1)[inside].to(dtype)
    rows = context.permute(0, 1, 3, 4, 2).flatten(0, 3).to(dtype)
    lifted = weight[:, None] * rows.index_select(0, pixel)

    bev = lifted.new_zeros(batch * y_size * x_size, channels).index_add(0, flat[inside], lifted)
    return bev.view(batch, y_size, x_size, channels).permute(0, 3, 1, 2).to(context.dtype)


def lift_splat_planned(
    depth: Float[Tensor, "B N D H W"],
    context: Float[Tensor, "B N C H W"],
    starts: Int64[Tensor, "K 2"],
    cell: Int32[Tensor, "G"],
    rows: Int16[Tensor, "G"],
    events: Int32[Tensor, "E 3"],
    grid: tuple[int, int, int],
) -> Float[Tensor, "B C Y X"]:
    """Definition of lift-splat by a plan, whose numbers are explained in cpp/bev_ops.h."""
    _, y_size, x_size = grid
    batch, cameras, _, height, width = depth.shape
    dtype = compute_dtype(depth, context)
    across, down = -(-width // _TILE_COLUMNS), -(-height // _TILE_ROWS)
    # Every event is the points of one depth bin in some rows of one image column: (bin, group, rows as bits).
    column = torch.searchsorted(starts[:, 1].contiguous(), torch.arange(len(events)), right=True) - 1
    tile = column // _TILE_COLUMNS
    event, row = ((events[:, 2:] >> torch.arange(_TILE_ROWS)) & 1).nonzero(as_tuple=True)
    tile, column = tile[event], column[event]
    camera, i = tile // (across * down), tile // across % down * _TILE_ROWS + row
    j = tile % across * _TILE_COLUMNS + column % _TILE_COLUMNS
    target = cell[starts[column, 0] + events[event, 1]] + camera // max(cameras, 1) * y_size * x_size

    weight = depth.flatten(0, 1)[camera, events[event, 0], i, j].to(dtype)
    lifted = weight[:, None] * context.flatten(0, 1)[camera, :, i, j].to(dtype)
    bev = lifted.new_zeros(batch * y_size * x_size, context.shape[2]).index_add(0, target, lifted)
    return bev.view(batch, y_size, x_size, context.shape[2]).permute(0, 3, 1, 2).to(context.dtype)


def homography_warp(
    source: Float[Tensor, "B C h w"],
    projection: Float[Tensor, "B 3 4"],
    depth: Float[Tensor, "B D H W"],
    behind: str,
) -> Float[Tensor, "B C D H W"]:
    """Definition of `bev_ops.homography_warp`."""
    batch, channels, source_height, source_width = source.shape
    _, hypotheses, height, width = depth.shape
    dtype = compute_dtype(source)
    x, y, z = sweep_positions(projection, depth, (height, width))
    visible = z >= MIN_DEPTH
    z = torch.where(visible, z, 1.0)
    u = torch.where(visible, x / z, hidden_position(source_width, behind)).to(dtype)
    v = torch.where(visible, y / z, hidden_position(source_height, behind)).to(dtype)
    grid = torch.stack([_normalised(u, source_width), _normalised(v, source_height)], dim=-1)
    if 0 in (batch, channels, source_height, source_width, hypotheses, height, width):
        return source.new_zeros(batch, channels, hypotheses, height, width)
    with torch.autocast(source.device.type, enabled=False):
        warped = F.grid_sample(
            source.to(dtype),
            grid.view(batch, hypotheses * height, width, 2),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
    return warped.view(batch, channels, hypotheses, height, width).to(source.dtype)


def plane_sweep_correlation(
    reference_features: Float[Tensor, "B C H W"],
    source: Float[Tensor, "B C h w"],
    projection: Float[Tensor, "B 3 4"],
    depth: Float[Tensor, "B D H W"],
    groups: int,
    behind: str,
) -> Float[Tensor, "B G D H W"]:
    """Definition of `bev_ops.plane_sweep_correlation`."""
    dtype = compute_dtype(reference_features, source)
    warped = homography_warp(source.to(dtype), projection, depth, behind)
    product = reference_features.to(dtype)[:, :, None] * warped
    batch, channels, *cells = product.shape
    correlation = product.view(batch, groups, channels // groups, *cells).mean(2)
    return correlation.to(torch.promote_types(reference_features.dtype, source.dtype))


def sweep_positions(
    projection: Float[Tensor, "B 3 4"], depth: Float[Tensor, "#B D #H #W"], size: tuple[int, int]
) -> tuple[Float[Tensor, "B D H W"], Float[Tensor, "B D H W"], Float[Tensor, "B D H W"]]:
    """The three rows of ``projection @ (j*z, i*z, z, 1)`` for all cells and depths, in float32 or better."""
    dtype = compute_dtype(projection, depth)
    height, width = size
    matrix = projection.to(dtype)[..., None, None, None]
    z = depth.to(dtype)
    j = torch.arange(width, device=depth.device, dtype=dtype)
    i = torch.arange(height, device=depth.device, dtype=dtype)[:, None]
    rows = [
        (matrix[:, row, 0] * j + matrix[:, row, 1] * i + matrix[:, row, 2]) * z + matrix[:, row, 3]
        for row in range(3)
    ]
    return rows[0], rows[1], rows[2]


def hidden_position(size: int, behind: str) -> float:
    """Where along an axis a point behind the camera is sampled, in cells.

    "corner": pixel 4 * size of a map of stride 4, normalised as BEVStereo normalises it; bilinear sampling
    there still reads about a quarter of the last cell.
    """
    return -2.0 if behind == "zero" else size + size / (4 * size - 1) - 0.5


def _normalised(cells: Float[Tensor, "B D H W"], size: int) -> Float[Tensor, "B D H W"]:
    """Cell positions -> grid_sample's coordinates; anything far outside, NaN too, lands just outside."""
    return (2 * cells.nan_to_num(nan=-2.0).clamp(-2.0, size + 1.0) + 1) / max(size, 1) - 1
