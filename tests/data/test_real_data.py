"""Real nuScenes; run where the variable BEV_NUSCENES_DIR names a folder with `nuscenes_one` and the like."""

import os
from pathlib import Path

import numpy as np
import pytest

from bev_data.geometry import boxes_to_frame, invert, transform_points
from bev_data.infos.infos import build_infos
from bev_data.samples.dataset import History, KeyFrameDataset
from bev_data.samples.lidar_depth import depth_points, read_lidar
from bev_data.scores.official import evaluate_detections
from bev_data.scores.results import ground_truth_results

FOLDER = os.environ.get("BEV_NUSCENES_DIR")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="BEV_NUSCENES_DIR is not set")


@pytest.fixture(scope="module")
def mini_val_tables():
    root = Path(FOLDER) / "nuscenes_mini_val_tables"
    return root, build_infos(root, "v1.0-mini", "mini_val", progress=False)


@pytest.fixture(scope="module")
def one():
    root = Path(FOLDER) / "nuscenes_one"
    return root, build_infos(root, "v1.0-mini", "mini_train", progress=False)


def test_infos_of_two_scenes(mini_val_tables):
    _, infos = mini_val_tables
    assert len(infos) == 81
    assert len(infos.boxes_per_category()[0]) == 4514
    assert infos.cameras == (
        "CAM_FRONT_LEFT",
        "CAM_FRONT",
        "CAM_FRONT_RIGHT",
        "CAM_BACK_LEFT",
        "CAM_BACK",
        "CAM_BACK_RIGHT",
    )
    assert sum(info.prev is None for info in infos) == 2


def test_truth_scores_070(mini_val_tables):
    root, infos = mini_val_tables
    metrics = evaluate_detections(ground_truth_results(infos), root, "v1.0-mini", "mini_val")
    assert metrics.mAP == pytest.approx(0.7, abs=1e-12)
    assert sorted(metrics.class_ap.values()) == pytest.approx([0] * 3 + [1] * 7)


def test_lidar_covers_every_image(one):
    """As many points per image as 32 beams give."""
    root, infos = one
    info = infos[0]
    dataset = KeyFrameDataset(infos, root, image_size=(256, 704), history=History(frames=0))
    sample = dataset[0]
    fractions = (sample.lidar_depth > 0).float().mean(dim=(1, 2))
    assert ((fractions > 0.005) & (fractions < 0.05)).all()
    counts = [len(points) for points in depth_points(root, info, infos.cameras)]
    assert min(counts) > 1500
    assert np.nanmax(sample.lidar_depth) < 110


def test_points_in_boxes_are_as_many_as_annotated(one):
    """The tables tell how many lidar points each box holds; the calibration must put them there."""
    root, infos = one
    info = infos[0]
    a = info.annotations
    points = transform_points(info.lidar.sensor2ego, read_lidar(root, info.lidar).astype(np.float64))
    boxes = boxes_to_frame(invert(info.keyego2global), a.centers, a.sizes, a.rotations, a.velocities)
    counted = []
    for box in boxes:
        offset = points - box[:3]
        cos, sin = np.cos(box[6]), np.sin(box[6])
        local = np.stack(
            [offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin, offset[:, 2]],
            axis=-1,
        )
        counted.append(int((np.abs(local) <= box[3:6] / 2).all(axis=1).sum()))
    differences = np.abs(np.array(counted) - a.num_lidar_pts)
    assert np.mean(differences <= 1 + 0.1 * a.num_lidar_pts) > 0.9


def test_a_depth_map_holds_its_points(one):
    root, infos = one
    dataset = KeyFrameDataset(infos, root, image_size=(256, 704), history=History(frames=0), training=True)
    sample = dataset[0]
    for points, depth in zip(
        depth_points(root, infos[0], infos.cameras), sample.lidar_depth.numpy(), strict=True
    ):
        assert set(depth[depth > 0].tolist()) <= set(points[:, 2].tolist())


def test_velocities_are_finite_where_they_are_known(mini_val_tables):
    _, infos = mini_val_tables
    speeds = np.concatenate([np.linalg.norm(info.annotations.velocities, axis=1) for info in infos])
    assert np.isnan(speeds).mean() < 0.02
    assert np.nanmax(speeds) < 30
