"""Camera matrices of a batch, and how they fold into the 3x4 matrices the kernels take.

A feature cell (j, i) at depth z is seen at ``projection @ (j*z, i*z, z, 1)``, in BEV cells for the lift and
in homogeneous source cells for stereo: feature grid, image augmentation, intrinsics, poses and target grid
are one product, taken in float64 and rounded once.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bev_models.grid import BEVGrid
from bev_ops import projection as ops_projection


class Cameras(NamedTuple):
    """Calibration, motion and augmentation of a batch, as `docs/conventions.md` names them.

    Attributes:
        sensor2keyego: camera of frame t at its exposure -> keyego, metres.
        key2sensor: key-frame camera -> the same camera in frame t, metres.
        intrinsics: in pixels of the original image.
        image_aug: original pixel -> input pixel.
        bev_aug: keyego -> augmented keyego.
    """

    sensor2keyego: Float[Tensor, "b t n 4 4"]
    key2sensor: Float[Tensor, "b t n 4 4"]
    intrinsics: Float[Tensor, "b t n 3 3"]
    image_aug: Float[Tensor, "b t n 3 3"]
    bev_aug: Float[Tensor, "b 4 4"]

    def lift_projection(
        self,
        frame: int,
        image_size: tuple[int, int],
        feature_size: tuple[int, int],
        grid: BEVGrid,
        cells: Literal["centers", "corners"] = "centers",
    ) -> Float[Tensor, "b n 3 4"]:
        """Feature cell times depth -> BEV cell, for the cameras of one frame.

        Args:
            frame: t.
            image_size: (H, W) of the input image, pixels.
            feature_size: (h, w) of the feature map.
            grid: whose cells to count in.
            cells: see `Quirks.cells`.

        Source: Philion and Fidler, Lift, Splat, Shoot (ECCV 2020), section 3.1.
        """
        return ops_projection.lift_projection(
            self.intrinsics[:, frame],
            self.sensor2keyego[:, frame],
            _cell_to_pixel(image_size, feature_size, cells),
            grid.low,
            grid.cell,
            self.image_aug[:, frame],
            self.bev_aug[:, None],
        )

    def sweep_projection(
        self,
        reference: int,
        source: int,
        image_size: tuple[int, int],
        feature_size: tuple[int, int],
        cells: Literal["centers", "corners"] = "centers",
        source_stride: float | None = None,
    ) -> Float[Tensor, "bn 3 4"]:
        """Reference cell times depth -> homogeneous cell of the same camera in another frame.

        Args:
            reference: frame whose cells and depths are given.
            source: frame that is looked up.
            image_size: (H, W) of the input image, pixels.
            feature_size: (h, w) of both feature maps.
            cells: see `Quirks.cells`.
            source_stride: pixels per source cell; the true one unless told otherwise (`Quirks.mask_stride`).

        Source: Yao et al., MVSNet (ECCV 2018), equation 1, for planes parallel to the reference image.
        """
        double, inverse = ops_projection.double, ops_projection.inverse
        motion = double(self.key2sensor[:, source]) @ inverse(double(self.key2sensor[:, reference]))
        return ops_projection.sweep_projection(
            self.intrinsics[:, reference],
            self.intrinsics[:, source],
            motion,
            _cell_to_pixel(image_size, feature_size, cells),
            _pixel_to_source_cell(image_size, feature_size, cells, source_stride),
            self.image_aug[:, reference],
            self.image_aug[:, source],
        ).flatten(0, 1)


def camera_vector(cameras: Cameras) -> Float[Tensor, "bn 27"]:
    """What the depth net is told of each key-frame camera: 27 numbers in raw units.

    fx, fy, cx, cy; the affine entries of image_aug row by row; bev_aug [0,0], [0,1], [1,0], [1,1], [2,2];
    the upper three rows of sensor2keyego.

    Source: Li et al., BEVDepth (AAAI 2023), section 3.2, "Camera-aware Depth Prediction".
    """
    intrinsics, image_aug = cameras.intrinsics[:, 0], cameras.image_aug[:, 0]
    bev_aug = cameras.bev_aug[:, None].expand(-1, intrinsics.shape[1], -1, -1)
    numbers = [
        intrinsics[..., 0, 0],
        intrinsics[..., 1, 1],
        intrinsics[..., 0, 2],
        intrinsics[..., 1, 2],
        *image_aug[..., :2, :].flatten(-2).unbind(-1),
        bev_aug[..., 0, 0],
        bev_aug[..., 0, 1],
        bev_aug[..., 1, 0],
        bev_aug[..., 1, 1],
        bev_aug[..., 2, 2],
        *cameras.sensor2keyego[:, 0, :, :3].flatten(-2).unbind(-1),
    ]
    return torch.stack(numbers, dim=-1).flatten(0, 1)


def _cell_to_pixel(
    image_size: tuple[int, int], feature_size: tuple[int, int], cells: str
) -> Float[Tensor, "3 3"]:
    """Feature cell (j, i, 1) -> input pixel."""
    if cells == "centers":
        return ops_projection.feature_to_pixel(image_size, feature_size)
    matrix = torch.eye(3, dtype=torch.float64)
    for axis, (pixels, count) in enumerate(zip(image_size[::-1], feature_size[::-1], strict=True)):
        matrix[axis, axis] = (pixels - 1) / max(count - 1, 1)
    return matrix


def _pixel_to_source_cell(
    image_size: tuple[int, int], feature_size: tuple[int, int], cells: str, source_stride: float | None
) -> Float[Tensor, "3 3"]:
    """Input pixel (u, v, 1) -> source cell, 0 at the centre of the first cell."""
    matrix = torch.eye(3, dtype=torch.float64)
    for axis, (pixels, count) in enumerate(zip(image_size[::-1], feature_size[::-1], strict=True)):
        stride = pixels / count if source_stride is None else source_stride
        if cells == "corners":
            # BEVStereo normalises by (count * stride - 1) as if corners were aligned, then samples as if not.
            matrix[axis, axis], matrix[axis, 2] = count / (count * stride - 1), -0.5
        else:
            matrix[axis, axis], matrix[axis, 2] = 1 / stride, 0.5 / stride - 0.5
    return matrix
