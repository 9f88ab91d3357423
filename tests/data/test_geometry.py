"""Rotations, poses and boxes between frames."""

import numpy as np
import pytest

from bev_data.geometry import boxes_to_frame, invert, matrix_to_quaternion, pose, quaternion_to_matrix


def test_quaternions_and_matrices_are_inverse_to_each_other():
    quaternions = np.random.default_rng(0).normal(size=(200, 4))
    quaternions[:3] = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]  # half turns, where the trace vanishes
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    matrices = quaternion_to_matrix(quaternions)
    back = np.stack([matrix_to_quaternion(matrix) for matrix in matrices])
    signs = np.sign((back * quaternions).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(back * signs, quaternions, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrices), 1)


def test_quarter_turn_about_z_brings_forward_to_left():
    matrix = quaternion_to_matrix([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    np.testing.assert_allclose(matrix @ [1, 0, 0], [0, 1, 0], atol=1e-15)


def test_invert_undoes_poses():
    rng = np.random.default_rng(1)
    poses = np.stack([pose(rng.normal(size=4), rng.normal(size=3) * 1e3) for _ in range(5)])
    np.testing.assert_allclose(invert(poses) @ poses, np.broadcast_to(np.eye(4), (5, 4, 4)), atol=1e-12)


def test_a_box_ahead_in_the_map_is_ahead_of_the_ego():
    ego2global = pose([np.sqrt(0.5), 0, 0, np.sqrt(0.5)], [100, 50, 0])  # heads to the map's y
    boxes = boxes_to_frame(
        invert(ego2global),
        centers=np.array([[100.0, 60.0, 1.0]]),
        sizes=np.array([[4.0, 2.0, 1.5]]),
        rotations=np.array([[np.sqrt(0.5), 0, 0, np.sqrt(0.5)]]),
        velocities=np.array([[0.0, 3.0]]),
    )
    np.testing.assert_allclose(boxes, [[10, 0, 1, 4, 2, 1.5, 0, 3, 0]], atol=1e-12)


def test_unknown_velocity_stays_unknown_and_no_boxes_stay_none():
    unknown = boxes_to_frame(
        np.eye(4), np.zeros((1, 3)), np.ones((1, 3)), np.eye(4)[:1], np.full((1, 2), np.nan)
    )
    assert np.isnan(unknown[0, 7:]).all()
    assert np.isfinite(unknown[0, :7]).all()
    none = boxes_to_frame(np.eye(4), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 4)), np.zeros((0, 2)))
    assert none.shape == (0, 9)


def test_quaternion_of_length_zero_is_refused():
    with pytest.raises(ValueError, match="length above 0"):
        quaternion_to_matrix([0, 0, 0, 0])
