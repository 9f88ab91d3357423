"""Folded 3x4 matrices against their factors applied one after the other."""

import pytest
import torch

from bev_ops import feature_to_pixel, lift_projection, sweep_projection


def rigid(generator):
    """A random rotation and translation."""
    turn, _ = torch.linalg.qr(torch.randn(2, 3, 3, 3, generator=generator, dtype=torch.float64))
    pose = torch.eye(4, dtype=torch.float64).repeat(2, 3, 1, 1)
    pose[..., :3, :3] = turn
    pose[..., :3, 3] = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    return pose


@pytest.fixture
def factors():
    """Matrices of two samples with three cameras, and a feature cell at 7 m."""
    generator = torch.Generator().manual_seed(0)
    intrinsics = torch.tensor([[560.0, 0, 340], [0, 555, 130], [0, 0, 1]]).double().repeat(2, 3, 1, 1)
    aug = torch.tensor([[0.9, -0.1, 4], [0.1, 0.9, -8], [0, 0, 1]]).double().repeat(2, 3, 1, 1)
    cell = torch.tensor([5.0, 3.0, 1.0]).double()
    return intrinsics, aug, rigid(generator), rigid(generator), cell, 7.0


def seen(intrinsics, aug, cell, depth):
    """The camera point of a feature cell of a 256 x 704 image in steps of 16."""
    pixel = torch.linalg.inv(aug) @ (feature_to_pixel((256, 704), (16, 44)) @ cell)[:, None]
    return depth * (torch.linalg.inv(intrinsics) @ pixel)[..., 0]


def test_a_cell_stands_for_the_middle_of_its_pixels():
    matrix = feature_to_pixel((256, 704), (16, 44))
    assert (matrix @ torch.tensor([0.0, 0, 1]).double()).tolist() == [7.5, 7.5, 1]
    assert (matrix @ torch.tensor([43.0, 15, 1]).double()).tolist() == [695.5, 247.5, 1]


def test_lift_projection(factors):
    intrinsics, aug, pose, bev_aug, cell, depth = factors
    low, size = (-51.2, -51.2, -5.0), (0.8, 0.4, 8.0)
    point = torch.cat([seen(intrinsics, aug, cell, depth), torch.ones(2, 3, 1)], -1)
    ego = (bev_aug[:, :1] @ pose @ point[..., None])[..., :3, 0]
    expected = (ego - torch.tensor(low).double()) / torch.tensor(size).double()
    to_pixel = feature_to_pixel((256, 704), (16, 44))
    matrix = lift_projection(intrinsics, pose, to_pixel, low, size, aug, bev_aug[:, :1])
    assert matrix.shape == (2, 3, 3, 4)
    torch.testing.assert_close(matrix @ torch.cat([cell * depth, torch.ones(1)]), expected)


def test_sweep_projection(factors):
    intrinsics, aug, motion, _, cell, depth = factors
    wide = intrinsics * torch.tensor([[1.1], [1.2], [1.0]])
    point = seen(intrinsics, aug, cell, depth)
    moved = (motion[..., :3, :3] @ point[..., None])[..., 0] + motion[..., :3, 3]
    to_pixel = feature_to_pixel((256, 704), (16, 44))
    expected = (to_pixel.inverse() @ aug @ wide @ moved[..., None])[..., 0]
    matrix = sweep_projection(intrinsics, wide, motion, to_pixel, to_pixel.inverse(), aug, aug)
    torch.testing.assert_close(matrix @ torch.cat([cell * depth, torch.ones(1)]), expected)


def test_augmentations_may_be_left_out_and_rounding_happens_once(factors):
    intrinsics, _, pose, _, _, _ = factors
    to_pixel, eye = feature_to_pixel((256, 704), (16, 44)), torch.eye(3, dtype=torch.float64)
    grid = {"low": (0.0, 0.0, 0.0), "cell": (1.0, 1.0, 1.0)}
    plain = lift_projection(intrinsics, pose, to_pixel, **grid)
    torch.testing.assert_close(plain, lift_projection(intrinsics, pose, to_pixel, **grid, image_aug=eye))
    single = lift_projection(intrinsics.float(), pose, to_pixel, **grid)
    assert single.dtype == torch.float32
    assert torch.equal(single, lift_projection(intrinsics.float().double(), pose, to_pixel, **grid).float())
