"""Images and calibrations as a program has them -> boxes: one moment at a time, or key frames with history.

Shape shorthand: t frames, n cameras, m boxes; h w feature cells.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bev_data.errors import InputError
from bev_data.geometry import invert
from bev_data.samples.augment import ImageTransform, evaluation_transform
from bev_models import Cameras, Detector, Frame, Predictions, camera_vector

F64 = NDArray[np.float64]
# Pixels of an image as they are on disk, RGB; or where they are.
Picture = UInt8[NDArray[np.uint8], "_h _w 3"] | str | Path
# The pose of the vehicle for all cameras, or at the exposure of each.
Pose = Float[F64, "4 4"] | Mapping[str, Float[F64, "4 4"]]


class Calibration(NamedTuple):
    """One camera of a vehicle.

    Attributes:
        intrinsics: in pixels of its images.
        sensor2ego: camera (x right, y down, z forward) -> vehicle (x forward, y left, z up), metres.
    """

    intrinsics: Float[F64, "3 3"]
    sensor2ego: Float[F64, "4 4"]


class Moment(NamedTuple):
    """What the cameras saw at one moment.

    Attributes:
        images: by camera; None, or no entry, for a camera that failed.
        ego2global: pose of the vehicle, in any frame that stays where it is; metres.
    """

    images: Mapping[str, Picture | None]
    ego2global: Pose


class Scene(NamedTuple):
    """What is around the vehicle.

    Attributes:
        boxes: x y z l w h yaw vx vy in the vehicle frame: metres, radians, m/s.
        scores: 0 to 1.
        names: class of each box.
        depth: by camera, metres along the optical axis, per feature cell.
    """

    boxes: Float[NDArray[np.float32], "m 9"]
    scores: Float[NDArray[np.float32], "m"]
    names: list[str]
    depth: dict[str, Float[NDArray[np.float32], "_h _w"]]


class _Shot(NamedTuple):
    """The images of one moment as the network takes them, and where each was taken."""

    images: UInt8[Tensor, "n 3 H W"]
    sensor2global: Float[F64, "n 4 4"]
    image_aug: Float[F64, "n 3 3"]


class _Seen(NamedTuple):
    """A moment that was seen."""

    time: float
    shot: _Shot
    frame: Frame


class Predictor:
    """Runs a detector on images and calibrations, resized and cropped as in evaluation.

    `predict` takes a key frame with the moments before it. `step` takes one moment after the other, keeps
    what it computed of those before, and gives the same numbers for half the work of the image encoder.

    A moment before a key frame that is not there, at the start or after a gap, is replaced by the oldest one
    that is, as in training. A camera that failed shows what it showed last, from where it was then, or black.
    """

    def __init__(
        self,
        detector: Detector,
        image_size: tuple[int, int],
        cameras: Mapping[str, Calibration],
        *,
        stride: int = 1,
        max_gap: float | None = None,
    ) -> None:
        """Prepare.

        Args:
            detector: with trained weights; it is switched to evaluation mode.
            image_size: (H, W) of the network's input it was trained with, pixels, multiples of 32.
            cameras: by name, in the order of training.
            stride: frame j of the detector is the (j * stride)-th moment before; 5 for the published "key4".
            max_gap: seconds between two steps beyond which the moments before are forgotten; None for any.

        Raises:
            ValueError: if a size, a calibration or a setting is out of its range.
        """
        height, width = image_size
        if height < 32 or width < 32 or height % 32 or width % 32:
            raise InputError(
                f"image_size must be (height, width) in multiples of 32 pixels, got {image_size}"
            )
        if not cameras:
            raise InputError("cameras must hold at least one calibration, got none")
        if stride < 1:
            raise InputError(f"stride must be at least 1 moment, got {stride}")
        if max_gap is not None and not max_gap > 0:
            raise InputError(f"max_gap must be above 0 s, got {max_gap}")
        self.detector = detector.eval()
        self.image_size = (height, width)
        self.cameras = {name: _checked(name, calibration) for name, calibration in cameras.items()}
        self.stride = stride
        self.max_gap = max_gap
        self._before: deque[_Seen] = deque(maxlen=max(1, (detector.config.frames - 1) * stride))

    def predict(
        self, key: Moment, history: Sequence[Moment] = (), keyego2global: Float[F64, "4 4"] | None = None
    ) -> Scene:
        """Detect in a key frame, all at once.

        Args:
            key: the key frame.
            history: frames 1, 2, ... of the detector; the last one stands for those that are missing.
            keyego2global: pose of the frame in which boxes are wanted; None for that of the first camera.

        Raises:
            ValueError: if an image, a pose or their number does not fit.
        """
        missing = self.detector.config.frames - 1 - len(history)
        if missing < 0:
            raise InputError(
                f"history must have at most {self.detector.config.frames - 1} moments, got {len(history)}"
            )
        shots: list[_Shot] = []
        for moment in (*reversed(history), key):
            shots.insert(0, self._shot(moment, shots[0] if shots else None))
        shots += shots[-1:] * missing
        images = torch.stack([shot.images for shot in shots])[None].to(self.detector.mean.device)
        with torch.no_grad():
            cameras = self._matrices(shots, self._keyego(key, keyego2global))
            return self._scene(self.detector(self.detector.normalize(images), cameras))

    def step(
        self,
        images: Mapping[str, Picture | None],
        time: float,
        ego2global: Pose,
        keyego2global: Float[F64, "4 4"] | None = None,
    ) -> Scene:
        """Detect in the next moment of a drive.

        Args:
            images: by camera; None, or no entry, for a camera that failed.
            time: of the moment, seconds; it must rise from step to step.
            ego2global: pose of the vehicle, in any frame that stays where it is; metres.
            keyego2global: pose of the frame in which boxes are wanted; None for that of the first camera.

        Raises:
            ValueError: if time does not rise, or an image or pose does not fit.
        """
        last = self._before[0] if self._before else None
        if last is not None and not time > last.time:
            raise InputError(
                f"time must rise from step to step, got {time} s after {last.time} s; call reset() where "
                "another drive begins"
            )
        if last is not None and self.max_gap is not None and time - last.time > self.max_gap:
            self.reset()
            last = None
        moment = Moment(images, ego2global)
        shot = self._shot(moment, last.shot if last else None)
        with torch.no_grad():
            past = self._past()
            cameras = self._matrices(
                [shot, *(seen.shot if seen else shot for seen in past)], self._keyego(moment, keyego2global)
            )
            pixels = shot.images[None].to(self.detector.mean.device)
            told = camera_vector(cameras)
            frame = self.detector.see(self.detector.normalize(pixels), told)
            frames = [frame, *(self.detector.tell(seen.frame, told) if seen else frame for seen in past)]
            scene = self._scene(self.detector.fuse(frames, cameras, self.image_size))
        self._before.appendleft(_Seen(time, shot, frame))
        return scene

    def reset(self) -> None:
        """Forget the moments before: another drive begins."""
        self._before.clear()

    def _past(self) -> list[_Seen | None]:
        """Frames 1, 2, ... of the detector, None where only the key frame is there."""
        places = [j * self.stride for j in range(1, self.detector.config.frames)]
        kept = list(self._before)
        return [kept[min(place, len(kept)) - 1] if kept else None for place in places]

    def _shot(self, moment: Moment, before: _Shot | None) -> _Shot:
        """Bring the images of a moment to the input; those of failed cameras stay what they were before."""
        unknown = set(moment.images) - set(self.cameras)
        if unknown:
            raise InputError(f"images must be of the cameras {list(self.cameras)}, got {sorted(unknown)}")
        images = torch.zeros(len(self.cameras), 3, *self.image_size, dtype=torch.uint8)
        sensor2global = np.empty((len(self.cameras), 4, 4))
        image_aug = np.empty((len(self.cameras), 3, 3))
        for n, (name, calibration) in enumerate(self.cameras.items()):
            picture = moment.images.get(name)
            if picture is None and before is not None:
                images[n], image_aug[n] = before.images[n], before.image_aug[n]
                sensor2global[n] = before.sensor2global[n]
                continue
            sensor2global[n] = _pose_of(name, moment.ego2global) @ calibration.sensor2ego
            transform, pixels = self._place(name, picture)
            image_aug[n] = transform.matrix()
            if pixels is not None:
                images[n] = pixels
        return _Shot(images, sensor2global, image_aug)

    def _place(self, name: str, picture: Picture | None) -> tuple[ImageTransform, Tensor | None]:
        """How an image becomes the input, and its pixels."""
        size = (self.image_size[1], self.image_size[0])
        if picture is None:
            # Its size is not known; the principal point lies near the middle.
            width, height = (round(2 * float(middle) + 1) for middle in self.cameras[name].intrinsics[:2, 2])
            return evaluation_transform((width, height), size), None
        image = _read(name, picture)
        transform = evaluation_transform(image.size, size)
        return transform, torch.from_numpy(np.array(transform.apply(image)).transpose(2, 0, 1))

    def _keyego(self, key: Moment, keyego2global: Float[F64, "4 4"] | None) -> Float[F64, "4 4"]:
        if keyego2global is not None:
            return _rigid("keyego2global", keyego2global)
        return _pose_of(next(iter(self.cameras)), key.ego2global)

    def _matrices(self, shots: Sequence[_Shot], keyego2global: Float[F64, "4 4"]) -> Cameras:
        """The matrices of all frames, composed as for evaluation."""
        sensor2global = np.stack([shot.sensor2global for shot in shots])
        intrinsics = np.stack([[c.intrinsics for c in self.cameras.values()]] * len(shots))
        device = self.detector.mean.device

        def tensor(matrices: F64) -> Tensor:
            return torch.from_numpy(matrices.astype(np.float32))[None].to(device)

        return Cameras(
            sensor2keyego=tensor(invert(keyego2global) @ sensor2global),
            key2sensor=tensor(invert(sensor2global) @ sensor2global[0]),
            intrinsics=tensor(intrinsics),
            image_aug=tensor(np.stack([shot.image_aug for shot in shots])),
            bev_aug=tensor(np.eye(4)),
        )

    def _scene(self, predictions: Predictions) -> Scene:
        (found,) = self.detector.decode(predictions)
        depth = self.detector.expected_depth(predictions.depth_probs)[0].cpu().numpy()
        return Scene(
            found.boxes.cpu().numpy(),
            found.scores.cpu().numpy(),
            [self.detector.class_names[label] for label in found.labels.tolist()],
            dict(zip(self.cameras, depth, strict=True)),
        )


def _read(name: str, picture: Picture) -> Image.Image:
    """An image as RGB."""
    if isinstance(picture, (str, Path)):
        try:
            with Image.open(picture) as opened:
                image: Image.Image = opened.convert("RGB")
                return image
        except FileNotFoundError:
            raise InputError(f"the image of {name} must be a file, none at {picture}") from None
        except (OSError, SyntaxError) as error:
            raise InputError(f"the image of {name} must be whole, got {picture} ({error})") from error
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(
            f"the image of {name} must be RGB bytes [h, w, 3], got {list(picture.shape)} {picture.dtype}"
        )
    return Image.fromarray(picture)


def _checked(name: str, calibration: Calibration) -> Calibration:
    intrinsics = np.asarray(calibration.intrinsics, dtype=np.float64)
    if intrinsics.shape != (3, 3) or not (intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0):
        raise InputError(
            f"intrinsics of {name} must be 3x3 with focal lengths above 0 pixels, got {intrinsics}"
        )
    return Calibration(intrinsics, _rigid(f"sensor2ego of {name}", calibration.sensor2ego))


def _pose_of(name: str, ego2global: Pose) -> Float[F64, "4 4"]:
    if not isinstance(ego2global, Mapping):
        return _rigid("ego2global", ego2global)
    if name not in ego2global:
        raise InputError(f"ego2global must have a pose for each camera, got none for {name}")
    return _rigid(f"ego2global of {name}", ego2global[name])


def _rigid(what: str, matrix: Float[F64, "4 4"]) -> Float[F64, "4 4"]:
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape == (4, 4) and np.isfinite(matrix).all():
        rotation = matrix[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-4 and (matrix[3] == [0, 0, 0, 1]).all():
            return matrix
    raise InputError(f"{what} must be a rigid 4x4 matrix (rotation and metres), got {matrix.tolist()}")
