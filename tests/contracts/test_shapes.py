"""What bev-data yields is what bev-models takes: names, shapes, units, classes."""

import numpy as np
import pytest
import torch

from bev_data.nuscenes.taxonomy import CLASSES
from bev_data.samples.batch import Sample, SampleMeta, collate
from bev_models import (
    BEVEncoderConfig,
    BEVGrid,
    Cameras,
    DepthNetConfig,
    DetectionLoss,
    DetectorConfig,
    HeadConfig,
    ImageEncoderConfig,
    StereoConfig,
    build_detector,
)

CONFIG = DetectorConfig(
    image=ImageEncoderConfig(depth=18, width=8, neck_channels=8),
    depth_net=DepthNetConfig(mid_channels=16, context_channels=8, deformable=False),
    stereo=StereoConfig(mask_channels=8, downsample_channels=16),
    bev=BEVEncoderConfig(BEVGrid((-16, 16, 1), (-16, 16, 1), (-5, 3, 8)), channels=8, neck_channels=8),
    head=HeadConfig(channels=8),
)


def sample(token: str, cameras: int, boxes: int) -> Sample:
    """A sample as a dataset yields it: one front camera, copied."""
    pose = torch.tensor([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    many = (2, cameras, 1, 1)
    return Sample(
        images=torch.full((2, cameras, 3, 64, 96), 128, dtype=torch.uint8),
        sensor2keyego=pose.repeat(many),
        key2sensor=torch.eye(4).repeat(many),
        intrinsics=torch.tensor([[50.0, 0, 48], [0, 50, 32], [0, 0, 1]]).repeat(many),
        image_aug=torch.eye(3).repeat(many),
        bev_aug=torch.eye(4),
        lidar_depth=torch.full((cameras, 64, 96), 10.0),
        boxes=torch.tensor([[10.0, 2, 0, 4, 2, 1.5, 0.3, torch.nan, torch.nan]]).repeat(boxes, 1),
        labels=torch.arange(boxes) % len(CLASSES),
        meta=SampleMeta(token, np.eye(4)),
    )


@pytest.fixture(scope="module")
def batch():
    return collate([sample("a", 2, 11), sample("b", 2, 0)])


def test_matrices_of_a_batch_have_the_detectors_names(batch):
    assert set(Cameras._fields) <= set(batch._fields)


def test_a_batch_goes_through_detector_and_loss(batch):
    model = build_detector(CONFIG)
    cameras = Cameras(**{name: getattr(batch, name) for name in Cameras._fields})
    predictions = model(model.normalize(batch.images), cameras)
    losses = DetectionLoss(CONFIG)(predictions, batch.boxes, batch.labels, batch.lidar_depth)
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    for found in model.decode(predictions):
        assert found.boxes.shape[1:] == batch.boxes[0].shape[1:]
        assert ((found.labels >= 0) & (found.labels < len(CLASSES))).all()


def test_classes_of_the_published_head_are_those_of_the_task_in_the_same_order():
    assert build_detector(CONFIG).class_names == CLASSES


def test_shape_annotations_hold_in_tests():
    """The hook of tests/conftest.py is at work: a shape that contradicts its annotation is refused."""
    pytest.importorskip("beartype")
    with pytest.raises(TypeError, match="depth_probs"):
        build_detector(CONFIG).view_transform(
            torch.zeros(1, 2, 112, 4, 6), torch.zeros(1, 2, 8, 4, 7), torch.zeros(1, 2, 3, 4)
        )
