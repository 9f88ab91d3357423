import math

import pytest
import torch

from bev_models import BEVGrid, Cameras, camera_vector

from . import tiny

GRID = BEVGrid((-16, 16, 1), (-16, 16, 1), (-5, 3, 8))
IMAGE, CELLS = (64, 96), (4, 6)  # stride 16


def see(projection, j, i, depth):
    """Position that a 3x4 gives for cell (j, i) at a depth."""
    return projection @ torch.tensor([j * depth, i * depth, depth, 1.0], dtype=projection.dtype)


def test_camera_vector_order():
    numbers = torch.arange(100.0, 200.0)
    cameras = Cameras(
        sensor2keyego=torch.zeros(1, 2, 1, 4, 4),
        key2sensor=torch.full((1, 2, 1, 4, 4), -1.0),
        intrinsics=torch.zeros(1, 2, 1, 3, 3),
        image_aug=torch.zeros(1, 2, 1, 3, 3),
        bev_aug=torch.zeros(1, 4, 4),
    )
    places = [(cameras.intrinsics[0, 0, 0], r, c) for r, c in ((0, 0), (1, 1), (0, 2), (1, 2))]
    places += [(cameras.image_aug[0, 0, 0], r, c) for r in range(2) for c in range(3)]
    places += [(cameras.bev_aug[0], r, c) for r, c in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2))]
    places += [(cameras.sensor2keyego[0, 0, 0], r, c) for r in range(3) for c in range(4)]
    for number, (matrix, row, column) in zip(numbers, places, strict=False):
        matrix[row, column] = number
    assert camera_vector(cameras).tolist() == [numbers[:27].tolist()]


def test_camera_vector_is_that_of_the_key_frame_for_every_camera():
    cameras = tiny.rig(batch=2, frames=3, cameras=5)
    vector = camera_vector(cameras)
    assert vector.shape == (10, 27)
    key_only = cameras._replace(
        sensor2keyego=cameras.sensor2keyego[:, :1], intrinsics=cameras.intrinsics[:, :1]
    )
    torch.testing.assert_close(camera_vector(key_only), vector)
    torch.testing.assert_close(vector[6, 15:].view(3, 4), cameras.sensor2keyego[1, 0, 1, :3])


def forward_camera(yaw=0.0, height=1.5, ahead=1.5):
    """One camera whose optical axis goes through the centre of cell (2, 1) of the 4 x 6 map."""
    cameras = tiny.rig(cameras=1, frames=1)
    cameras.sensor2keyego[0, 0, 0] = tiny.pose(yaw, (ahead, 0.0, height))
    cameras.intrinsics[..., :2, 2] = torch.tensor([2 * 16 + 7.5, 1 * 16 + 7.5])
    return cameras


@pytest.mark.parametrize("depth", [2.0, 7.0, 10.0])
def test_the_optical_axis_of_a_front_camera_lies_on_the_x_axis(depth):
    projection = forward_camera().lift_projection(0, IMAGE, CELLS, GRID)[0, 0]
    x, y, z = see(projection, 2, 1, depth)
    assert x == pytest.approx(16 + 1.5 + depth, abs=1e-4)
    assert y == pytest.approx(16, abs=1e-4)
    assert z == pytest.approx((1.5 + 5) / 8, abs=1e-4)


def test_image_right_is_ego_right_and_image_down_is_down():
    projection = forward_camera().lift_projection(0, IMAGE, CELLS, GRID)[0, 0]
    _, y, _ = see(projection, 3, 1, 10.0)
    assert y == pytest.approx(16 - 10 * 16 / 50, abs=1e-4)
    _, _, z = see(projection, 2, 2, 10.0)
    assert z == pytest.approx((1.5 - 10 * 16 / 50 + 5) / 8, abs=1e-4)


def test_a_camera_to_the_left_sees_the_left():
    projection = forward_camera(yaw=math.pi / 2, ahead=0.0).lift_projection(0, IMAGE, CELLS, GRID)[0, 0]
    x, y, _ = see(projection, 2, 1, 10.0)
    assert x == pytest.approx(16, abs=1e-4)
    assert y == pytest.approx(26, abs=1e-4)


def test_corner_cells_lie_on_corner_pixels_where_published_weights_ask_for_it():
    cameras = forward_camera()
    cameras.intrinsics[..., :2, 2] = torch.tensor([95.0, 63.0])
    projection = cameras.lift_projection(0, IMAGE, CELLS, GRID, cells="corners")[0, 0]
    x, y, z = see(projection, 5, 3, 10.0)
    assert (x, y) == (pytest.approx(27.5, abs=1e-4), pytest.approx(16, abs=1e-4))
    assert z == pytest.approx(6.5 / 8, abs=1e-4)


def flipped_half(width=96):
    """Half the size, 7 pixels cropped from the top, flipped."""
    return torch.tensor([[-0.5, 0, width / 2], [0, 0.5, -7], [0, 0, 1]])


def test_image_augmentation_is_undone():
    """The original pixel that an input pixel came from decides where it is lifted."""
    plain, augmented = forward_camera(), forward_camera()
    augmented.image_aug[:] = flipped_half()
    at = augmented.lift_projection(0, IMAGE, CELLS, GRID)[0, 0]
    u, v = 4 * 16 + 7.5, 2 * 16 + 7.5  # input pixel of cell (4, 2)
    original = ((u - 48) / -0.5, (v + 7) / 0.5)
    j, i = (original[0] - 7.5) / 16, (original[1] - 7.5) / 16
    expected = see(plain.lift_projection(0, IMAGE, CELLS, GRID)[0, 0], j, i, 6.0)
    torch.testing.assert_close(see(at, 4, 2, 6.0), expected, atol=1e-4, rtol=1e-5)


def test_bev_augmentation_turns_scales_and_mirrors_where_features_land():
    cameras = forward_camera(ahead=0.0)
    c, s = math.cos(0.3), math.sin(0.3)
    turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    cameras.bev_aug[0, :3, :3] = torch.diag(torch.tensor([1.0, -1, 1])) @ (1.1 * turn)
    x, y, _ = see(cameras.lift_projection(0, IMAGE, CELLS, GRID)[0, 0], 2, 1, 10.0)
    assert x == pytest.approx(16 + 11 * c, abs=1e-4)
    assert y == pytest.approx(16 - 11 * s, abs=1e-4)


@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_every_cell_of_an_unmoved_camera_maps_to_itself(moved):
    cameras = tiny.rig(batch=2, cameras=3, moved=moved)
    cameras.image_aug[:] = flipped_half()
    cameras.image_aug[:, :, 1, :2] *= 1.7
    identity = torch.eye(3, 4).expand(6, 3, 4)
    itself = [(0, 0), (1, 1)] if moved else [(0, 0), (0, 1), (1, 0), (1, 1)]
    for reference, source in itself:
        found = cameras.sweep_projection(reference, source, IMAGE, CELLS)
        torch.testing.assert_close(found, identity, atol=1e-4, rtol=0)


def test_a_point_ahead_moves_toward_the_middle_of_the_image_before():
    cameras = forward_camera()
    cameras = Cameras(
        *(matrix.repeat(1, 2, *[1] * (matrix.dim() - 2)) for matrix in cameras[:4]), cameras.bev_aug
    )
    cameras.key2sensor[:] = torch.eye(4)
    cameras.key2sensor[:, 1, :, 2, 3] = 1.0  # one metre behind: what was 9 m ahead was 10 m ahead
    projection = cameras.sweep_projection(0, 1, IMAGE, CELLS)[0]
    u, v, z = see(projection, 5, 3, 9.0)
    assert z == pytest.approx(10)
    assert u / z == pytest.approx(2 + 3 * 0.9, abs=1e-5)
    assert v / z == pytest.approx(1 + 2 * 0.9, abs=1e-5)
    back = cameras.sweep_projection(1, 0, IMAGE, CELLS)[0]
    u, v, z = see(back, 2 + 3 * 0.9, 1 + 2 * 0.9, 10.0)
    assert (u / z, v / z) == (pytest.approx(5, abs=1e-4), pytest.approx(3, abs=1e-4))


def test_the_published_convention_is_half_a_cell_off():
    """Corner cells on corner pixels, sampled as if cells were centred: from -1/2 to count - 1/2."""
    cameras = tiny.rig(cameras=1, moved=0.0)
    projection = cameras.sweep_projection(0, 1, IMAGE, (16, 24), cells="corners")[0]
    u, v, z = see(projection, 0, 0, 5.0)
    assert (u / z, v / z) == (pytest.approx(-0.5, abs=1e-4), pytest.approx(-0.5, abs=1e-4))
    u, v, z = see(projection, 23, 15, 5.0)
    assert (u / z, v / z) == (pytest.approx(23.5, abs=1e-4), pytest.approx(15.5, abs=1e-4))


def test_positions_survive_poses_far_from_the_origin():
    """Poses a kilometre away, in float32, as the camera of a map frame: composed without loss."""
    cameras = tiny.rig(cameras=2)
    exact = Cameras(*(matrix.double() for matrix in cameras)).lift_projection(0, (256, 704), (16, 44), GRID)
    found = cameras.lift_projection(0, (256, 704), (16, 44), GRID)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.float(), atol=1e-6, rtol=1e-6)
