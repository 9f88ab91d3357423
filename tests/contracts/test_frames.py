"""Every frame of reference on the way round: annotations -> augmented sample -> targets -> decoded -> score.

A slip in any augmentation, pose or convention between them costs precision or shows as an error.
"""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bev_data.infos.infos import open_infos
from bev_data.nuscenes.taxonomy import CLASSES
from bev_data.samples.augment import augment_boxes
from bev_data.samples.batch import collate
from bev_data.samples.dataset import (
    BevAugmentation,
    DataQuirks,
    History,
    ImageAugmentation,
    KeyFrameDataset,
)
from bev_data.scores.depth import lidar_points
from bev_data.scores.official import evaluate_detections
from bev_data.scores.results import ground_truth_results, to_nuscenes_results
from bev_models import BEVGrid, BoxCoder, HeadConfig, TaskMaps
from bev_models.targets import center_targets

# Wide and fine enough that no box in range is lost, and no two of a class share a cell.
GRID = BEVGrid((-56, 56, 0.25), (-56, 56, 0.25), (-5, 3, 8))
HEAD = HeadConfig(nms_scale=(0.0,) * 6, center_range=(100.0, 100.0, 100.0))
TASKS = [len(task) for task in HEAD.tasks]
# Metres and shares by float32; radians and m/s also because a vehicle on a slope sees headings and speeds
# along its own plane, which loses the square of the slope.
TOLERANCE = {"ATE": 1e-4, "ASE": 1e-5, "AOE": 2e-3, "AVE": 2e-2}
FLIPS = set(itertools.product((False, True), repeat=2))


@pytest.fixture(scope="module")
def world(rendered_world):
    return rendered_world(scenes=2, image_size=(160, 90), key_frames=2, sweep_hz=0)


@pytest.fixture(scope="module", params=["rendered", "real"])
def split(request, tmp_path_factory):
    """A data root and its key frames."""
    if request.param == "rendered":
        root = request.getfixturevalue("world")
        return root, open_infos(root, "v1.0-mini", "mini_val", progress=False)
    folder = os.environ.get("BEV_NUSCENES_DIR")
    if folder is None:
        pytest.skip("BEV_NUSCENES_DIR is not set")
    root = Path(folder) / "nuscenes_one"
    return root, open_infos(root, "v1.0-mini", "mini_val", tmp_path_factory.mktemp("infos"), progress=False)


def dataset_of(split, keyego, **augmentations):
    root, infos = split
    quirks = DataQuirks(keyego=keyego)
    settings = {"image_size": (64, 160), "history": History(frames=0), "quirks": quirks, "training": True}
    return KeyFrameDataset(infos, root, **settings, **augmentations)


def perfect_maps(targets):
    """What a head predicts that has learnt its targets by heart."""
    tasks = []
    for target in targets:
        batch, _, rows, columns = target.heatmap.shape
        maps = torch.zeros(batch, 10, rows * columns)
        maps[target.sample, :, target.cell] = target.boxes
        parts = maps.view(batch, 10, rows, columns).split((2, 1, 3, 2, 2), dim=1)
        tasks.append(TaskMaps(torch.where(target.heatmap == 1, 5.0, -5.0), *parts))
    return tasks


def found_in(sample):
    """The boxes of a sample after targets and decoding, brought back from augmented keyego, as results."""
    targets = center_targets([sample.boxes], [sample.labels], TASKS, GRID)
    (found,) = BoxCoder(GRID, HEAD).decode(perfect_maps(targets))
    back = np.linalg.inv(sample.bev_aug.double().numpy())
    boxes = augment_boxes(found.boxes.double().numpy(), back)
    pose = sample.meta.keyego2global
    return to_nuscenes_results(sample.meta.token, pose, np.nan_to_num(boxes), found.scores, found.labels)


def score(split, dataset, engine):
    root, infos = split
    samples = (dataset[i] for i in range(len(dataset)))
    results = {sample.meta.token: found_in(sample) for sample in samples}
    metrics = evaluate_detections(results, root, infos.version, infos.split, engine=engine)
    truth = evaluate_detections(ground_truth_results(infos), root, infos.version, infos.split, engine=engine)
    assert sum(ap > 1 - 1e-9 for ap in truth.class_ap.values()) >= 3
    return metrics, truth


def assert_perfect(metrics, truth):
    assert metrics.class_ap == pytest.approx(truth.class_ap, abs=1e-9)
    for name in CLASSES:
        for error, limit in TOLERANCE.items():
            if truth.class_ap[name]:
                expected = truth.class_errors[name][error]
                assert metrics.class_errors[name][error] == pytest.approx(expected, abs=limit, nan_ok=True)


@pytest.mark.parametrize("keyego", ["lidar", "published"])
def test_boxes_come_back_perfect_under_every_augmentation(split, keyego):
    """All flips, with random turns, scales and image augmentations on top."""
    dataset = dataset_of(split, keyego)
    seen = set()
    for epoch in range(24):
        dataset.set_epoch(epoch)
        drawn = {_flips(dataset, i) for i in range(len(dataset))}
        if drawn <= seen:
            continue
        seen |= drawn
        assert_perfect(*score(split, dataset, "fast"))
    assert seen == FLIPS


def _flips(dataset, index):
    matrix = dataset.draw(index).bev_aug
    # A turn by less than 90 degrees leaves the signs of the diagonal to the flips.
    return bool(matrix[0, 0] < 0), bool(matrix[1, 1] < 0)


@pytest.mark.parametrize(
    ("image_aug", "bev_aug"),
    [
        (None, None),
        (ImageAugmentation(), None),
        (None, BevAugmentation(rotate_deg=0, scale=(1.0, 1.0), flip_x=False)),
        (None, BevAugmentation(rotate_deg=180, scale=(0.95, 1.05), flip_y=False)),
    ],
    ids=["none", "image", "flip", "turn"],
)
def test_the_devkit_agrees(split, image_aug, bev_aug):
    dataset = dataset_of(split, "lidar", image_aug=image_aug, bev_aug=bev_aug)
    assert_perfect(*score(split, dataset, "devkit"))


def test_a_wrong_frame_would_be_seen(split):
    """Boxes that are not brought back from the augmentation score badly."""
    root, infos = split
    dataset = dataset_of(split, "lidar", bev_aug=BevAugmentation(rotate_deg=22.5))
    results = {}
    for i in range(len(dataset)):
        sample = dataset[i]
        results[sample.meta.token] = found_in(sample._replace(bev_aug=torch.eye(4)))
    assert evaluate_detections(results, root, infos.version, infos.split, engine="fast").mAP < 0.3


def test_lidar_stays_in_its_boxes_under_every_augmentation(split):
    """Pixels of the augmented depth map, lifted by a sample's matrices, lie in its augmented boxes."""
    plain = dataset_of(split, "lidar", image_aug=None, bev_aug=None)
    expected = _share_on_objects(collate([plain[i] for i in range(len(plain))]))
    still = ImageAugmentation(resize=(1.0, 1.0), rotate_deg=5.4)
    augmented = dataset_of(split, "lidar", image_aug=still)
    for epoch in range(3):
        augmented.set_epoch(epoch)
        batch = collate([augmented[i] for i in range(len(augmented))])
        assert _share_on_objects(batch) == pytest.approx(expected, rel=0.35)
        wrong = batch._replace(bev_aug=torch.eye(4).expand(len(batch.boxes), 4, 4))
        assert _share_on_objects(wrong) < 0.7 * expected


def _share_on_objects(batch):
    depth = torch.zeros(*batch.lidar_depth.shape[:2], 4, 10)
    return lidar_points(batch, depth, (2.0, 60.0))[2].double().mean().item()
