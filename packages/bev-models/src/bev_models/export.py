"""Detectors as programs over plain tensors, for `torch.export` and what builds on it."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from bev_models.cameras import Cameras
from bev_models.center_head import TaskMaps
from bev_models.detector import Detector, Predictions


class TensorDetector(nn.Module):
    """A detector from bytes and matrices to maps by name: "depth_probs", "tasks.0.heatmap", and so on.

    `predictions_of` makes `Predictions` of them again.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(
        self,
        images: UInt8[Tensor, "b t n 3 H W"],
        sensor2keyego: Float[Tensor, "b t n 4 4"],
        key2sensor: Float[Tensor, "b t n 4 4"],
        intrinsics: Float[Tensor, "b t n 3 3"],
        image_aug: Float[Tensor, "b t n 3 3"],
        bev_aug: Float[Tensor, "b 4 4"],
    ) -> dict[str, Tensor]:
        """Detect; the matrices are those of `bev_models.Cameras`."""
        cameras = Cameras(sensor2keyego, key2sensor, intrinsics, image_aug, bev_aug)
        predictions = self.detector(self.detector.normalize(images), cameras)
        maps = {
            f"tasks.{i}.{name}": value
            for i, task in enumerate(predictions.tasks)
            for name, value in task._asdict().items()
        }
        return {"depth_probs": predictions.depth_probs, **maps}


def predictions_of(maps: Mapping[str, Tensor]) -> Predictions:
    """What `Detector.decode` takes, from what a `TensorDetector` or its exported program gave.

    Raises:
        ValueError: if a map is missing.
    """
    count = 1 + max((int(name.split(".")[1]) for name in maps if name.startswith("tasks.")), default=-1)
    wanted = ["depth_probs", *(f"tasks.{i}.{field}" for i in range(count) for field in TaskMaps._fields)]
    missing = [name for name in wanted if name not in maps]
    if missing or not count:
        raise ValueError(
            f"maps must be those of a TensorDetector, got none of {', '.join(missing) or 'any task'}"
        )
    tasks = [TaskMaps(*(maps[f"tasks.{i}.{field}"] for field in TaskMaps._fields)) for i in range(count)]
    return Predictions(tasks, maps["depth_probs"])


def export_detector(
    detector: Detector, image_size: tuple[int, int], cameras: int = 6, batch: int = 1
) -> torch.export.ExportedProgram:
    """Export a detector, in evaluation mode, as a program that runs without this package.

    `torch.export.save` writes it. The program calls the operators of bev-ops: import `bev_ops` before it is
    loaded. Boxes are decoded outside, by `detector.decode(predictions_of(maps))`, as their number varies.

    Args:
        detector: on the device it will run on.
        image_size: (H, W) of the input images, multiples of 32.
        cameras: of the rig.
        batch: samples per call.

    Raises:
        ValueError: if the size does not fit the detector.
    """
    frames = detector.config.frames
    device = detector.mean.device
    many = (batch, frames, cameras)
    identity = torch.eye(4, device=device)
    images = torch.zeros(*many, 3, *image_size, dtype=torch.uint8, device=device)
    # Cameras that look ahead from one place: the program holds for any matrices.
    intrinsics = torch.tensor(
        [[500.0, 0, image_size[1] / 2], [0, 500, image_size[0] / 2], [0, 0, 1]], device=device
    )
    matrices = (
        identity.repeat(*many, 1, 1),
        identity.repeat(*many, 1, 1),
        intrinsics.repeat(*many, 1, 1),
        torch.eye(3, device=device).repeat(*many, 1, 1),
        identity.repeat(batch, 1, 1),
    )
    training = detector.training
    detector.eval()
    try:
        with torch.no_grad():
            return torch.export.export(TensorDetector(detector), (images, *matrices))
    finally:
        detector.train(training)
