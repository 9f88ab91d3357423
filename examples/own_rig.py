"""Bring your own rig: two cameras of different sizes, a lidar and boxes, from plain Python to a batch.

    python examples/own_rig.py OUT

writes a drive of three key frames to OUT (grey images and a flat road stand in for real recordings),
describes it as key frames, checks and saves them, and loads a batch. `docs/rig.md` explains each field.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bev_data import (
    Annotations,
    Batch,
    CameraFrame,
    History,
    Info,
    KeyFrameDataset,
    LidarFrame,
    collate,
    open_infos,
    save_rig,
)
from bev_data.geometry import pose

# Width and height in pixels, focal length in pixels, mounting: quaternion (w, x, y, z) and metres.
# A camera's axes are x right, y down, z forward; the vehicle's are x forward, y left, z up.
CAMERAS = {
    "front": ((320, 180), 260.0, pose([0.5, -0.5, 0.5, -0.5], [1.6, 0.0, 1.5])),
    "rear": ((200, 120), 120.0, pose([0.5, -0.5, -0.5, 0.5], [-0.6, 0.0, 1.4])),
}
LIDAR = pose([1, 0, 0, 0], [0.9, 0.0, 1.8])
SPEED = 5.0  # m/s


def ego2global(microseconds: int) -> NDArray[np.float64]:
    """Where the vehicle is: it drives along x."""
    return pose([1, 0, 0, 0], [SPEED * microseconds * 1e-6, 0.0, 0.0])


def record_camera(root: Path, name: str, timestamp: int) -> CameraFrame:
    """One image: its file, and all that is known about it."""
    (width, height), focal, sensor2ego = CAMERAS[name]
    file = f"{name}/{timestamp}.jpg"
    (root / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (120, 120, 120)).save(root / file)
    intrinsics = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])
    return CameraFrame(file, timestamp, sensor2ego, ego2global(timestamp), intrinsics, width, height)


def record_lidar(root: Path, timestamp: int) -> LidarFrame:
    """One sweep: a table of x y z in metres, in the lidar's frame."""
    file = f"lidar/{timestamp}.npy"
    (root / "lidar").mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(np.linspace(-40, 40, 80), np.linspace(-20, 20, 40))
    road = np.stack([x.ravel(), y.ravel(), np.full(x.size, -1.8)], axis=-1)
    np.save(root / file, road.astype(np.float32))
    return LidarFrame(file, timestamp, LIDAR, ego2global(timestamp))


def annotate() -> Annotations:
    """One parked car, in the frame of the map."""
    return Annotations(
        tokens=("box-0",),
        categories=("car",),
        centers=np.array([[25.0, 3.0, 0.8]]),
        sizes=np.array([[4.5, 1.9, 1.6]]),  # length, width, height
        rotations=np.array([[1.0, 0.0, 0.0, 0.0]]),
        velocities=np.array([[0.0, 0.0]]),
        num_lidar_pts=np.array([12]),
        num_radar_pts=np.array([0]),
        attributes=("vehicle.parked",),
    )


def key_frame(root: Path, number: int) -> Info:
    """Key frame `number` of the drive, with one image of each camera a tenth of a second before it."""
    now = number * 500_000
    return Info(
        token=f"drive-0-{number}",
        scene="drive-0",
        timestamp=now,
        prev=number - 1 if number else None,
        cameras={name: record_camera(root, name, now) for name in CAMERAS},
        sweeps=({name: record_camera(root, name, now - 100_000) for name in CAMERAS},) if number else (),
        lidar=record_lidar(root, now),
        annotations=annotate(),
    )


def main(root: Path) -> Batch:
    """Record, describe, check, save, load."""
    save_rig([key_frame(root, number) for number in range(3)], root, version="own", split="train")
    infos = open_infos(root, "own", "train")  # as training does: --data.version own --data.splits.train train
    dataset = KeyFrameDataset(infos, root, image_size=(64, 160), history=History(frames=1), training=True)
    batch = collate([dataset[i] for i in range(len(dataset))])
    print(infos)
    print(f"images {tuple(batch.images.shape)}, boxes of the first key frame {batch.boxes[0].shape[0]}")
    return batch


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
