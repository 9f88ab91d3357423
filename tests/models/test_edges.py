"""What a detector does at the edges: a single image, a wide grid, wild sizes."""

import pytest
import torch

from bev_models import BEVGrid, BoxCoder, HeadConfig, TaskMaps
from bev_models.blocks import LoneBatchNorm1d, LoneBatchNorm2d
from bev_models.depth_net import CAMERA_NUMBERS, DepthNet


@pytest.mark.parametrize("kind", [LoneBatchNorm1d, LoneBatchNorm2d])
def test_lone_values_are_normalised_as_in_evaluation(kind):
    norm = kind(3).train()
    shape = (3,) if kind is LoneBatchNorm1d else (3, 1, 1)
    norm(torch.randn(8, *shape))
    mean, batches = norm.running_mean.clone(), norm.num_batches_tracked.clone()
    lone = torch.randn(1, *shape)
    assert torch.equal(norm(lone), norm.eval()(lone))
    assert torch.equal(norm.running_mean, mean)
    assert torch.equal(norm.num_batches_tracked, batches)


def test_a_single_image_trains():
    net = DepthNet(4, mid_channels=8, context_channels=4, bins=3, deformable=False).train()
    out = net(torch.randn(1, 4, 2, 3), torch.randn(1, CAMERA_NUMBERS))
    (out.logits.sum() + out.context.sum()).backward()
    assert out.logits.isfinite().all()
    assert net.camera_norm.running_var.eq(1).all()


def maps_of(grid, cell, box):
    """Maps of one task and class with one box."""
    _, rows, columns = grid.shape
    row, column = cell
    heat = torch.full((1, 1, rows, columns), -20.0)
    heat[0, 0, row, column] = 5
    regressed = torch.zeros(1, 10, rows, columns)
    regressed[0, :, row, column] = torch.tensor(box)
    return TaskMaps(heat, *regressed.split((2, 1, 3, 2, 2), dim=1))


HEAD = HeadConfig(tasks=(("car",),), nms_scale=(0.5,), max_candidates=1)


def test_boxes_of_a_wide_grid_are_decoded():
    grid = BEVGrid((-102.4, 102.4, 0.8), (-102.4, 102.4, 0.8))
    maps = maps_of(grid, (128, 228), [0, 0, 0, 1, 1, 1, 0, 1, 0, 0])
    (found,) = BoxCoder(grid, HEAD).decode([maps])
    torch.testing.assert_close(found.boxes[0, :2], torch.tensor([80.0, 0.0]), atol=1e-4, rtol=0)


def test_the_published_range_follows_from_the_published_grid():
    assert BoxCoder(BEVGrid(), HeadConfig()).center_range == pytest.approx((61.2, 61.2, 10))


@pytest.mark.parametrize("log_size", [90.0, -200.0])
def test_wild_sizes_stay_sizes(log_size):
    grid = BEVGrid()
    maps = maps_of(grid, (64, 64), [0, 0, 0, log_size, log_size, log_size, 0, 1, 0, 0])
    (found,) = BoxCoder(grid, HEAD).decode([maps])
    assert found.boxes.isfinite().all()
    assert (found.boxes[:, 3:6] > 0).all()
    assert (found.boxes[:, 3:6] < 150).all()
