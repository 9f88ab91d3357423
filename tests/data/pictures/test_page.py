"""Pictures of samples: where boxes, points and depth land, for any rig."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bev_data.infos.info import Annotations, CameraFrame, Info, LidarFrame
from bev_data.infos.infos import build_infos, find_version
from bev_data.pictures.box_projection import project_boxes
from bev_data.pictures.camera import read_photo
from bev_data.pictures.canvas import Canvas
from bev_data.pictures.page import draw_sample
from bev_data.pictures.style import CLASS_COLORS, Drawing

INTRINSICS = np.array([[80.0, 0, 49.5], [0, 80.0, 29.5], [0, 0, 1]])
SIZE = (100, 60)
# x right, y down, z forward, as a camera that looks along the ego's x axis.
CAMERA_AXES = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
FORWARD = np.linalg.inv(CAMERA_AXES)
YAWS = {
    "CAM_FRONT": 0,
    "CAM_FRONT_LEFT": 55,
    "CAM_FRONT_RIGHT": -55,
    "CAM_BACK": 180,
    "CAM_BACK_LEFT": 110,
    "CAM_BACK_RIGHT": -110,
}
GREY = (96, 96, 96)


def box(x, y, z=1.5, *, yaw=0.0, size=(4.0, 2.0, 1.6), velocity=(0.0, 0.0)):
    return [x, y, z, *size, yaw, *velocity]


def turn(degrees):
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def write_info(root: Path, cameras=tuple(YAWS), *, boxes=(), lidar=None, size=SIZE) -> Info:
    """A rig at (100, 50) of the map; boxes, in keyego, are cars; lidar points lie in the ego frame."""
    ego2global = np.eye(4)
    ego2global[:2, 3] = (100.0, 50.0)
    frames = {}
    for name in cameras:
        Image.new("RGB", size, GREY).save(root / f"{name}.png")
        frames[name] = CameraFrame(
            f"{name}.png", 0, turn(YAWS[name]) @ CAMERA_AXES, ego2global, INTRINSICS, *size
        )
    if lidar is not None:
        np.concatenate([lidar, np.zeros((len(lidar), 2))], axis=1).astype(np.float32).tofile(
            root / "lidar.bin"
        )
    rows = np.array(boxes, dtype=np.float64).reshape(-1, 9)
    count = len(rows)
    half = rows[:, 6] / 2
    annotations = Annotations(
        tokens=tuple(f"box {i}" for i in range(count)),
        categories=("vehicle.car",) * count,
        centers=rows[:, :3] + ego2global[:3, 3],
        sizes=rows[:, 3:6],
        rotations=np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=-1),
        velocities=rows[:, 7:9],
        num_lidar_pts=np.full(count, 5),
        num_radar_pts=np.zeros(count, dtype=np.int64),
        attributes=("",) * count,
    )
    frame = None if lidar is None else LidarFrame("lidar.bin", 0, np.eye(4), ego2global)
    return Info("token", "scene-0001", 0, None, frames, (), frame, annotations)


def share_of(picture: Image.Image, color, region) -> float:
    """Share of a region's pixels that have about a colour."""
    pixels = np.asarray(picture.crop(region)).astype(int)
    return float((np.abs(pixels - color).max(axis=-1) < 40).mean())


def plot_centre(picture: Image.Image) -> tuple[int, int]:
    """The ego's place: the plot lies in the middle of a page whose two rows of cameras are equally high."""
    return picture.width // 2, picture.height // 2


def test_a_box_ahead_lands_around_the_optical_centre():
    (seen,) = project_boxes(np.array([box(10, 0)]), FORWARD, INTRINSICS, SIZE)
    assert len(seen.edges) == 12
    assert seen.depth == pytest.approx(10)
    points = np.array(seen.edges).reshape(-1, 2)
    # The rear face is 8 m away, 2 m wide and 1.6 m high; the front face 12 m away.
    assert points.min(axis=0) == pytest.approx([49.5 - 80 / 8, 29.5 - 80 * 0.8 / 8])
    assert points.max(axis=0) == pytest.approx([49.5 + 80 / 8, 29.5 + 80 * 0.8 / 8])
    front = np.array(seen.front)
    assert np.ptp(front[:, 0]) == pytest.approx(80 * 2 / 12)
    (start, end) = seen.heading
    assert start == pytest.approx((49.5, 29.5 + 80 * 0.8 / 10))
    assert end == pytest.approx((49.5, 29.5 + 80 * 0.8 / 12))


def test_a_box_around_the_camera_is_cut_at_the_image():
    (seen,) = project_boxes(np.array([box(0, 0, size=(8.0, 3.0, 2.0))]), FORWARD, INTRINSICS, SIZE)
    points = np.array([*np.array(seen.edges).reshape(-1, 2), *seen.front])
    assert (points >= -0.5 - 1e-6).all()
    assert (points <= np.array(SIZE) - 0.5 + 1e-6).all()
    # 4 m ahead the front face is 60 pixels wide and 40 high: all of it is seen.
    assert np.ptp(np.array(seen.front), axis=0) == pytest.approx([60, 40])


@pytest.mark.parametrize("place", [(-10, 0), (5, 30)])
def test_a_box_out_of_sight_is_not_drawn(place):
    assert project_boxes(np.array([box(*place)]), FORWARD, INTRINSICS, SIZE) == [None]


def test_dashes_reach_both_ends_of_a_line():
    canvas = Canvas(40, 5)
    canvas.line([(2, 2.5), (38, 2.5)], (255, 255, 255), 1, dash=4)
    row = np.asarray(canvas.finished())[2, :, 0]
    assert row[3] > 0
    assert row[36] > 0
    assert (row[3:37] == 0).any()


def test_boxes_land_on_the_image_and_in_the_plot(tmp_path):
    info = write_info(tmp_path, boxes=[box(10, 0)])
    picture = draw_sample(info, tmp_path, bev_range=20)
    color = CLASS_COLORS["car"]
    # The front camera fills the middle third of the upper row, 640 pixels wide, below a title of 58 pixels.
    scale = 636 / 100
    left = 642 + scale * (49.5 - 10)
    upper, lower = (58 + scale * (30 + 80 * side * 0.8 / 8) for side in (-1, 1))
    assert share_of(picture, color, (left - 3, upper + 20, left + 6, lower - 20)) > 0.1
    # 10 m ahead at 720 pixels for 40 m: 180 pixels above the ego; the rear half of the box is pale.
    x, y = plot_centre(picture)
    assert share_of(picture, color, (x - 10, y - 180 - 34, x + 10, y - 180 - 28)) > 0.5
    assert share_of(picture, color, (x - 10, y - 180 + 10, x + 10, y - 180 + 20)) == 0


def test_true_boxes_are_white_dashes_beside_predictions(tmp_path):
    info = write_info(tmp_path, boxes=[box(10, 0)])
    predicted = [box(10, 8), box(10, -8)], [0.9, 0.1], [1, 0]
    picture = draw_sample(info, tmp_path, detections=predicted, bev_range=20)
    x, y = plot_centre(picture)
    truth, above, below = ((x - 30 + dx, y - 230, x + 30 + dx, y - 130) for dx in (0, -144, 144))
    assert share_of(picture, (255, 255, 255), truth) > 0.005
    assert share_of(picture, CLASS_COLORS["car"], truth) == 0
    assert share_of(picture, CLASS_COLORS["truck"], above) > 0.05
    assert share_of(picture, CLASS_COLORS["car"], below) == 0


def test_velocity_arrow_ends_where_a_box_will_be_in_a_second(tmp_path):
    x_range = 20.0
    standing = draw_sample(write_info(tmp_path, boxes=[box(0, -8)]), tmp_path, bev_range=x_range)
    moving = draw_sample(
        write_info(tmp_path, boxes=[box(0, -8, velocity=(6, 0))]), tmp_path, bev_range=x_range
    )
    changed = np.argwhere((np.asarray(standing) != np.asarray(moving)).any(axis=-1))
    x, y = plot_centre(moving)
    pixels = 720 / (2 * x_range)
    assert changed[:, 0].min() == pytest.approx(y - 6 * pixels, abs=2)
    assert changed[:, 1].mean() == pytest.approx(x + 8 * pixels, abs=2)


def test_an_unknown_velocity_draws_no_arrow(tmp_path):
    standing = draw_sample(write_info(tmp_path, boxes=[box(9, 3)]), tmp_path)
    unknown = draw_sample(write_info(tmp_path, boxes=[box(9, 3, velocity=(np.nan, np.nan))]), tmp_path)
    assert standing == unknown


def test_predicted_depth_is_bright_nearby(tmp_path):
    info = write_info(tmp_path)
    depth = np.full((6, 4, 8), 50, dtype=np.float32)
    depth[1] = 2.5
    picture = draw_sample(info, tmp_path, expected_depth=depth)
    # The left panels show, from top to bottom, front left (the second camera), front and front right.
    column = np.asarray(picture.convert("L"))[:, 300]
    y = picture.height // 2
    assert column[y - 240] > 200
    assert column[y] < 100


def test_lidar_depth_stands_beside_the_plot(tmp_path):
    points = np.stack([np.full(200, 6.0), np.linspace(-3, 3, 200), np.full(200, 1.5)], axis=-1)
    out_of_sight = points + np.array([0, 0, 90])
    without = draw_sample(write_info(tmp_path, ("CAM_FRONT",), lidar=out_of_sight), tmp_path)
    picture = draw_sample(write_info(tmp_path, ("CAM_FRONT",), lidar=points), tmp_path)
    changed = np.argwhere((np.asarray(picture) != np.asarray(without)).any(axis=-1))
    beside = changed[changed[:, 1] < 400]
    # A line of points at the height of the camera: across the middle of its panel, the middle of the plot.
    assert np.ptp(beside[:, 1]) == pytest.approx(80 * (240 / 60), abs=4)
    assert np.ptp(beside[:, 0]) <= 3
    assert beside[:, 0].mean() == pytest.approx(picture.height - 58 - 360, abs=4)


@pytest.mark.parametrize("cameras", [("CAM_FRONT",), ("CAM_BACK", "CAM_FRONT_LEFT"), tuple(YAWS)], ids=len)
@pytest.mark.parametrize("with_lidar", [True, False])
def test_any_rig_is_drawn(tmp_path, cameras, with_lidar):
    info = write_info(tmp_path, cameras, boxes=[box(8, 2)], lidar=np.ones((5, 3)) if with_lidar else None)
    picture = draw_sample(info, tmp_path)
    assert picture.mode == "RGB"
    assert picture.width == 1920
    assert picture == draw_sample(info, tmp_path)


def test_cameras_can_be_chosen(tmp_path):
    info = write_info(tmp_path)
    depth = np.full((1, 2, 4), 10, dtype=np.float32)
    picture = draw_sample(info, tmp_path, cameras=["CAM_FRONT"], expected_depth=depth)
    assert picture.height < draw_sample(info, tmp_path).height


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bev_range": 0}, "bev_range must be above 0 m, got 0"),
        (
            {"depth_range": (5, 2)},
            r"depth_range must be \(low, high\) with 0 < low < high in metres, got \(5, 2\)",
        ),
        ({"cameras": ["CAM_UP"]}, r"cameras must be some of CAM_FRONT, got \['CAM_UP'\]"),
        (
            {"expected_depth": np.ones((2, 4, 8), np.float32)},
            r"shape \[n,h,w\] for n = 1 cameras, got \[2, 4, 8\]",
        ),
        ({"detections": ([[0.0] * 7], [0.5], [0])}, r"boxes \[m,9\].*got shapes \[1, 7\], \[1\] and \[1\]"),
        ({"detections": ([box(1, 1)], [0.5], [10])}, r"labels must be in \[0, 10\), got 10 to 10"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, options, message):
    info = write_info(tmp_path, ("CAM_FRONT",))
    with pytest.raises(ValueError, match=message):
        draw_sample(info, tmp_path, **options)


def test_a_missing_image_is_named(tmp_path):
    info = write_info(tmp_path, ("CAM_FRONT",))
    (tmp_path / "CAM_FRONT.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"CAM_FRONT\.png is missing"):
        draw_sample(info, tmp_path)


def test_real_nuscenes_is_drawn(tmp_path):
    folder = os.environ.get("BEV_NUSCENES_DIR")
    if folder is None:
        pytest.skip("BEV_NUSCENES_DIR names no folder of real nuScenes")
    root = Path(folder)
    info = build_infos(root, find_version(root), "mini_train", progress=False)[0]
    assert draw_sample(info, root) != draw_sample(info, root, detections=([], [], []))


def test_what_the_network_sees_can_be_drawn(tmp_path):
    """Pixels of the input, and lidar and boxes on them."""
    info = write_info(tmp_path, ("CAM_FRONT",), boxes=[box(10, 0)], lidar=np.array([[10.0, 0, 1.5]] * 30))
    bright = np.zeros((60, 100, 3), dtype=np.uint8)
    bright[28:32, 48:52] = 255  # around the optical centre
    Image.fromarray(bright).save(tmp_path / "CAM_FRONT.png")
    whole = draw_sample(info, tmp_path)
    seen = draw_sample(info, tmp_path, image_size=(32, 96))
    assert whole.height - seen.height == pytest.approx(636 * (60 / 100 - 32 / 96), abs=1)
    drawing = Drawing(info, tmp_path, ("CAM_FRONT",), np.eye(4), [], None, None, 50.0, (1.0, 60.0), (32, 96))
    photo = read_photo(drawing, "CAM_FRONT")
    rows, columns = np.nonzero(np.asarray(photo.image)[..., 0] > 128)
    assert photo.image.size == (96, 32)
    # The soft spot, and the place of the box's middle, which lies behind it.
    assert photo.matrix @ [49.5, 29.5, 1] == pytest.approx([columns.mean(), rows.mean(), 1], abs=0.3)
