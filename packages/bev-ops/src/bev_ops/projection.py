"""The 3x4 matrices that the ops take, composed in float64 from calibration, augmentations and grids.

Pixel (u, v) has its centre at whole numbers; so have cells. Products are rounded once, to the dtype of the
intrinsics. Batch axes of the arguments broadcast.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bev_ops._checks import (
    Shapes,
    expect_dense,
    expect_floating,
    expect_metres,
    expect_one_device,
    expect_size,
)


def feature_to_pixel(image_size: Sequence[int], feature_size: Sequence[int]) -> Float[Tensor, "3 3"]:
    """Feature cell (j, i, 1) -> pixel of the input image at the centre of the area the cell stands for.

    Args:
        image_size: (H, W) of the input image, pixels.
        feature_size: (H, W) of the feature map, cells.

    Returns:
        A float64 matrix; its inverse takes pixels to cells.

    Raises:
        ValueError: if a size is not two positive integers.
    """
    op = "feature_to_pixel"
    pixels = expect_size(op, "image_size", image_size, least=1)
    cells = expect_size(op, "feature_size", feature_size, least=1)
    matrix = torch.eye(3, dtype=torch.float64)
    for axis in (0, 1):
        stride = pixels[1 - axis] / cells[1 - axis]
        matrix[axis, axis], matrix[axis, 2] = stride, (stride - 1) / 2
    return matrix


def lift_projection(
    intrinsics: Float[Tensor, "*#b 3 3"],
    sensor2ego: Float[Tensor, "*#b 4 4"],
    cell_to_pixel: Float[Tensor, "3 3"],
    low: Sequence[float],
    cell: Sequence[float],
    image_aug: Float[Tensor, "*#b 3 3"] | None = None,
    bev_aug: Float[Tensor, "*#b 4 4"] | None = None,
) -> Float[Tensor, "*b 3 4"]:
    """The `projection` of `lift_splat`: feature cell times depth -> BEV cell.

    Args:
        intrinsics: camera ray -> pixel of the original image.
        sensor2ego: camera -> the frame of the grid, metres.
        cell_to_pixel: feature cell -> pixel of the input image; see `feature_to_pixel`.
        low: (x, y, z) where the grid begins, metres.
        cell: (x, y, z) extent of a cell, metres.
        image_aug: pixel of the original image -> pixel of the input image; none: the same.
        bev_aug: the frame of the grid -> the same, augmented; none: as it is.

    Raises:
        ValueError: if a shape, dtype or device is wrong, or `cell` is not positive.

    Source: Philion and Fidler, Lift, Splat, Shoot (ECCV 2020), section 3.1.
    """
    op = "lift_projection"
    _expect_matrices(
        op, {"image_aug": image_aug, "bev_aug": bev_aug}, intrinsics=intrinsics, sensor2ego=sensor2ego
    )
    _expect_grids(op, intrinsics, cell_to_pixel=cell_to_pixel)
    expect_metres(op, "low", low)
    expect_metres(op, "cell", cell, positive=True)
    pose = double(sensor2ego) if bev_aug is None else double(bev_aug) @ double(sensor2ego)
    rays = _cell_to_ray(intrinsics, image_aug, cell_to_pixel)
    offset = (pose[..., :3, 3] - pose.new_tensor(low))[..., None]
    turned = pose[..., :3, :3] @ rays
    folded = torch.cat([turned, offset.expand(*turned.shape[:-1], 1)], dim=-1)
    return (folded / pose.new_tensor(cell)[:, None]).to(intrinsics)


def sweep_projection(
    reference_intrinsics: Float[Tensor, "*#b 3 3"],
    source_intrinsics: Float[Tensor, "*#b 3 3"],
    reference2source: Float[Tensor, "*#b 4 4"],
    cell_to_pixel: Float[Tensor, "3 3"],
    pixel_to_cell: Float[Tensor, "3 3"],
    reference_aug: Float[Tensor, "*#b 3 3"] | None = None,
    source_aug: Float[Tensor, "*#b 3 3"] | None = None,
) -> Float[Tensor, "*b 3 4"]:
    """The `projection` of plane sweeps: reference cell times depth -> homogeneous source cell.

    Args:
        reference_intrinsics: camera ray -> pixel of the original reference image.
        source_intrinsics: the same of the source.
        reference2source: reference camera -> source camera, metres.
        cell_to_pixel: reference cell -> pixel of its input image; see `feature_to_pixel`.
        pixel_to_cell: pixel of the source's input image -> source cell.
        reference_aug: pixel of the original image -> pixel of the input image; none: the same.
        source_aug: the same of the source.

    Raises:
        ValueError: if a shape, dtype or device is wrong.

    Source: Yao et al., MVSNet (ECCV 2018), equation 1, for planes parallel to the reference image.
    """
    op = "sweep_projection"
    _expect_matrices(
        op,
        {"reference_aug": reference_aug, "source_aug": source_aug},
        reference_intrinsics=reference_intrinsics,
        source_intrinsics=source_intrinsics,
        reference2source=reference2source,
    )
    _expect_grids(op, reference_intrinsics, cell_to_pixel=cell_to_pixel, pixel_to_cell=pixel_to_cell)
    motion = double(reference2source)
    into_source = pixel_to_cell.to(motion)
    if source_aug is not None:
        into_source = into_source @ double(source_aug)
    into_source = into_source @ double(source_intrinsics)
    turned = motion[..., :3, :3] @ _cell_to_ray(reference_intrinsics, reference_aug, cell_to_pixel)
    moved = motion[..., :3, 3:].expand(*turned.shape[:-1], 1)
    return (into_source @ torch.cat([turned, moved], dim=-1)).to(reference_intrinsics)


def double(matrix: Tensor) -> Tensor:
    """To float64, on the host where the device has none (MPS)."""
    return (matrix.cpu() if matrix.device.type == "mps" else matrix).double()


def inverse(matrix: Float[Tensor, "*b k k"]) -> Float[Tensor, "*b k k"]:
    """Batched inverse without a synchronisation; singular matrices give non-finite entries."""
    inverted: Tensor = torch.linalg.inv_ex(matrix).inverse
    return inverted


def _cell_to_ray(
    intrinsics: Tensor, image_aug: Tensor | None, cell_to_pixel: Tensor
) -> Float[Tensor, "*b 3 3"]:
    """Feature cell (j, i, 1) -> camera ray of unit depth, through pixel, augmentation and intrinsics."""
    camera = double(intrinsics) if image_aug is None else double(image_aug) @ double(intrinsics)
    return inverse(camera) @ cell_to_pixel.to(camera)


def _expect_grids(op: str, intrinsics: Tensor, **matrices: Tensor) -> None:
    """Check matrices of feature grids; they may stay on the host."""
    for name, matrix in matrices.items():
        Shapes(op).expect(name, matrix, "3 3")
        expect_floating(op, **{name: matrix})
        if matrix.device.type not in ("cpu", intrinsics.device.type):
            raise ValueError(
                f"{op}: {name} must be on the device of the other matrices ({intrinsics.device}) or on the "
                f"host, got {matrix.device}"
            )


def _expect_matrices(op: str, optional: Mapping[str, Tensor | None], **matrices: Tensor) -> None:
    given = {**matrices, **{name: matrix for name, matrix in optional.items() if matrix is not None}}
    sizes = {name: 4 if name in ("sensor2ego", "bev_aug", "reference2source") else 3 for name in given}
    for name, matrix in given.items():
        expect_dense(op, f"a tensor [... {sizes[name]} {sizes[name]}]", **{name: matrix})
    expect_floating(op, **given)
    expect_one_device(op, **{name: double(matrix) for name, matrix in given.items()})
    for name, matrix in given.items():
        size = sizes[name]
        if tuple(matrix.shape[-2:]) != (size, size):
            raise ValueError(f"{op}: {name} must have shape [... {size} {size}], got {list(matrix.shape)}")
    try:
        torch.broadcast_shapes(*(matrix.shape[:-2] for matrix in given.values()))  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        found = ", ".join(f"{name} {list(matrix.shape)}" for name, matrix in given.items())
        raise ValueError(f"{op}: batch axes of all matrices must broadcast, got {found}") from error
