"""The rendered world: its geometry is exact, and the tools of nuScenes find it in order."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import load_gt
from nuscenes.eval.detection.algo import accumulate, calc_ap
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import points_in_box
from PIL import Image

from bev_data.nuscenes.taxonomy import CATEGORY_TO_CLASS
from bev_data.world import Scene, View, build_scene, camera_pose, render, scan
from bev_data.world.street.layout import KINDS

pytestmark = pytest.mark.slow

Points = NDArray[np.float64]
SIZE = (320, 180)
KEY_FRAMES = 4
TIME = 1.0


class World(NamedTuple):
    root: Path
    database: NuScenes
    scenes: list[Scene]


@pytest.fixture(scope="session")
def world(rendered_world: Callable[..., Path]) -> World:
    root = rendered_world(scenes=2, image_size=SIZE, key_frames=KEY_FRAMES, sweep_hz=4, supersample=1)
    scenes = [build_scene(number, 0, KEY_FRAMES, *SIZE) for number in range(2)]
    return World(root, NuScenes("v1.0-mini", str(root), verbose=False), scenes)


@pytest.fixture(scope="session")
def views(world: World) -> list[View]:
    """All six cameras of the first scene at one instant."""
    return [render(world.scenes[0], camera, TIME) for camera in world.scenes[0].mounting.cameras]


def surface_points(scene: Scene, index: int, view: View, time: float) -> Points:
    """Every pixel's point in the world, [height, width, 3]; NaN in the sky."""
    camera = scene.mounting.cameras[index]
    v, u = np.mgrid[0 : camera.height, 0 : camera.width]
    rays = np.stack([(u - camera.cx) / camera.focal, (v - camera.cy) / camera.focal, np.ones(u.shape)], -1)
    pose = camera_pose(scene, camera, time)
    depth = np.where(np.isfinite(view.depth), view.depth, np.nan)
    return np.asarray(rays * depth[..., None] @ pose.rotation.T + pose.translation)


def in_picture(scene: Scene, index: int, points: Points, time: float) -> tuple[Points, Points, Points]:
    """Columns, rows and depths of points of the world; depth is negative behind the camera."""
    camera = scene.mounting.cameras[index]
    pose = camera_pose(scene, camera, time)
    x, y, z = np.moveaxis((points - pose.translation) @ pose.rotation, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return camera.focal * x / z + camera.cx, camera.focal * y / z + camera.cy, z


def plane_depth(view: View, column: Points, row: Points) -> tuple[Points, NDArray[np.bool_]]:
    """Depth between pixels, and where the four around are on one plane (1 / depth is linear there)."""
    i, j = np.floor(column).astype(int), np.floor(row).astype(int)
    a, b = column - i, row - j
    near = 1.0 / view.depth.astype(np.float64)
    n00, n01, n10, n11 = near[j, i], near[j, i + 1], near[j + 1, i], near[j + 1, i + 1]
    mean = (n00 * (1 - a) + n01 * a) * (1 - b) + (n10 * (1 - a) + n11 * a) * b
    user = view.user
    same = (user[j, i] == user[j, i + 1]) & (user[j, i] == user[j + 1, i])
    same &= user[j, i] == user[j + 1, i + 1]
    flat = np.abs(n00 + n11 - n01 - n10) < 1e-3 * mean
    with np.errstate(divide="ignore"):
        return 1.0 / mean, same & flat & (np.minimum(n00, n11) > 0)


def inside_picture(scene: Scene, column: Points, row: Points, depth: Points) -> NDArray[np.bool_]:
    width, height = scene.mounting.cameras[0].width, scene.mounting.cameras[0].height
    return (depth > 0.3) & (column >= 0) & (column < width - 1) & (row >= 0) & (row < height - 1)


def test_lidar_points_lie_at_the_rendered_depth(world: World, views: list[View]) -> None:
    scene = world.scenes[0]
    ego = scene.ego_pose(TIME)
    cloud = scan(scene, TIME).points[:, :3].astype(np.float64)
    points = cloud @ scene.mounting.lidar_rotation.T + scene.mounting.lidar_translation
    points = points @ ego.rotation.T + ego.translation
    compared = 0
    for index, view in enumerate(views):
        column, row, depth = in_picture(scene, index, points, TIME)
        kept = inside_picture(scene, column, row, depth)
        rendered, sure = plane_depth(view, column[kept], row[kept])
        apart = (rendered - depth[kept])[sure]
        # A camera may see something before a lidar point, but not through the surface that it lies on; the
        # few exceptions are edges and poles that pass between the four pixels around the point.
        assert (apart > 0.03).mean() < 0.015
        visible = apart > -0.3
        assert visible.mean() > 0.85
        # 2 cm: the ground's cells are curved, and pixels of it far away are long.
        assert np.quantile(np.abs(apart[np.abs(apart) < 0.3]), 0.97) < 0.02
        compared += int(visible.sum())
    assert compared > 5000


def test_pixels_of_a_road_user_lie_in_its_box(world: World, views: list[View]) -> None:
    scene = world.scenes[0]
    checked = 0
    for index, view in enumerate(views):
        points = surface_points(scene, index, view, TIME)
        for number in np.unique(view.user[view.user >= 0]):
            x, y, z, cos, sin = scene.user_pose(int(number), TIME)
            away = points[view.user == number] - np.array([x, y, z])
            local = np.column_stack([away[:, :2] @ np.array([[cos, -sin], [sin, cos]]), away[:, 2]])
            half = 0.5 * np.array(scene.users[number].size)
            assert (np.abs(local[:, :2]) <= half[:2] + 0.005).all()
            assert (local[:, 2] >= -0.005).all()
            assert (local[:, 2] <= 2 * half[2] + 0.005).all()
            checked += len(local)
    assert checked > 1000


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("moving", [False, True])
def test_the_box_of_every_kind_is_tight(kind: str, moving: bool) -> None:
    for seed in range(4):
        size = KINDS[kind].size
        solids = KINDS[kind].build(size, np.random.default_rng(seed), moving).solids
        low = np.min([solid.low for solid in solids], axis=0)
        high = np.max([solid.high for solid in solids], axis=0)
        np.testing.assert_allclose(high - low, size, atol=0.12 * min(size))
        assert (low >= np.array([-0.5 * size[0], -0.5 * size[1], 0.0]) - 1e-9).all()
        assert (high <= np.array([0.5 * size[0], 0.5 * size[1], size[2]]) + 1e-9).all()


def test_boxes_of_the_devkit_sit_on_their_pixels(world: World) -> None:
    scene, database = world.scenes[0], world.database
    sample = database.get("sample", database.scene[0]["first_sample_token"])
    rows = [row for row in database.sample_annotation if row["sample_token"] == sample["token"]]
    # Annotations are in the order of the scene's road users.
    order = [row["token"] for row in rows]
    checked = 0
    for camera in scene.mounting.cameras:
        time = camera.delay / 1e6
        view = render(scene, camera, time)
        _, boxes, intrinsics = database.get_sample_data(sample["data"][camera.channel])
        np.testing.assert_allclose(intrinsics, camera.intrinsics)
        for box in boxes:
            number = number_of(world, order.index(box.token))
            if scene.users[number].motion.moves(2.0) or not (view.user == number).any():
                continue
            v, u = np.nonzero(view.user == number)
            corners = intrinsics @ box.corners()
            if (corners[2] < 0.5).any():
                continue
            across, down = corners[:2] / corners[2]
            assert u.min() >= across.min() - 1
            assert u.max() <= across.max() + 1
            assert v.min() >= down.min() - 1
            assert v.max() <= down.max() + 1
            checked += 1
    assert checked > 10


def number_of(world: World, position: int) -> int:
    """Index of the road user whose annotation has a position in the first key frame of the first scene."""
    scene = world.scenes[0]
    ego = scene.ego_pose(0.0).translation
    away = [np.linalg.norm(scene.user_pose(k, 0.0)[:2] - ego[:2]) for k in range(len(scene.users))]
    return int(np.flatnonzero(np.array(away) <= 60.0)[position])


def test_velocities_are_those_of_the_motion(world: World) -> None:
    scene, database = world.scenes[0], world.database
    moving = 0
    first = [row for row in database.sample if row["scene_token"] == database.scene[0]["token"]]
    order = [row for row in database.sample_annotation if row["sample_token"] == first[0]["token"]]
    for position, row in enumerate(order):
        number = number_of(world, position)
        following = database.get("sample_annotation", row["next"])
        before, after = (np.array(scene.users[number].motion.at(t)[:2]) for t in (0.0, 1.0))
        velocity = database.box_velocity(following["token"])[:2]
        np.testing.assert_allclose(velocity, after - before, atol=1e-6)
        names = [database.get("attribute", token)["name"] for token in row["attribute_tokens"]]
        if np.linalg.norm(after - before) > 0.2:
            moving += 1
            assert names[0].endswith(("moving", "with_rider"))
    assert moving > 5


def test_lidar_points_in_boxes_are_counted(world: World) -> None:
    database = world.database
    counted = 0
    for sample in database.sample:
        path, boxes, _ = database.get_sample_data(sample["data"]["LIDAR_TOP"])
        cloud = LidarPointCloud.from_file(path).points[:3]
        for box in boxes:
            row = database.get("sample_annotation", box.token)
            # A little larger, for points are stored in single precision; where the ground rises into the
            # box, its points are in the box too without being the object's.
            box.wlh = box.wlh + 0.01
            inside = cloud[:, points_in_box(box, cloud)]
            local = box.orientation.inverse.rotation_matrix @ (inside - box.center[:, None])
            above = int((local[2] > 0.35 - 0.5 * box.wlh[2]).sum())
            assert above <= row["num_lidar_pts"] <= inside.shape[1]
            counted += row["num_lidar_pts"]
    assert counted > 500


def test_a_still_surface_looks_the_same_from_the_next_key_frame(world: World) -> None:
    scene = world.scenes[0]
    times = (0.5, 1.0)
    matched, differences, spread = 0, [], []
    for index, camera in enumerate(scene.mounting.cameras):
        one, two = (render(scene, camera, t) for t in times)
        points = surface_points(scene, index, one, times[0])[one.user < 0]
        colors = one.image[one.user < 0].astype(float).mean(-1)
        near = np.isfinite(points).all(1)
        column, row, depth = in_picture(scene, index, points[near], times[1])
        kept = inside_picture(scene, column, row, depth)
        rendered, sure = plane_depth(two, column[kept], row[kept])
        seen = sure & (np.abs(rendered - depth[kept]) < 0.02 * depth[kept])
        if not seen.any():  # a moving bus may fill a picture
            continue
        j, i = np.round(row[kept][seen]).astype(int), np.round(column[kept][seen]).astype(int)
        before, after = colors[near][kept][seen], two.image[j, i].astype(float).mean(-1)
        # Exposure differs from picture to picture.
        differences.append(np.abs(before / before.mean() - after / after.mean()))
        spread.append(np.abs(before / before.mean() - 1))
        matched += len(before)
    assert matched > 0.2 * 6 * SIZE[0] * SIZE[1]
    assert np.mean(np.concatenate(differences)) < 0.4 * np.mean(np.concatenate(spread))


def test_every_table_is_complete_and_linked(world: World) -> None:
    database = world.database
    assert [scene["name"] for scene in database.scene] == ["scene-0061", "scene-0103"]
    assert len(database.category) == 23
    assert len(database.sample) == 2 * KEY_FRAMES
    # Key frames at 2 Hz, and with 4 Hz one image in between.
    assert len(database.sample_data) == 2 * (6 * (2 * KEY_FRAMES - 1) + KEY_FRAMES)
    for row in database.sample_data:
        path = world.root / row["filename"]
        assert path.is_file()
        if row["next"]:
            following = database.get("sample_data", row["next"])
            assert following["prev"] == row["token"]
            assert following["timestamp"] > row["timestamp"]
            assert following["channel"] == row["channel"]
    image = next(row for row in database.sample_data if row["channel"] == "CAM_FRONT")
    with Image.open(world.root / image["filename"]) as picture:
        assert picture.size == (image["width"], image["height"]) == SIZE
    for instance in database.instance:
        token, number = instance["first_annotation_token"], 0
        while token:
            row, number = database.get("sample_annotation", token), number + 1
            token = row["next"]
        assert (row["token"], number) == (instance["last_annotation_token"], instance["nbr_annotations"])
    mask = database.map[0]["mask"]
    place = database.ego_pose[0]["translation"]
    assert mask.is_on_mask(place[0], place[1]).all()
    assert {row["visibility_token"] for row in database.sample_annotation} <= {"1", "2", "3", "4"}
    assert len({row["visibility_token"] for row in database.sample_annotation}) == 4


def test_ground_truth_as_predictions_is_perfect(world: World) -> None:
    config = config_factory("detection_cvpr_2019")
    truth = load_gt(world.database, "mini_train", DetectionBox)
    for token in truth.sample_tokens:
        truth.boxes[token] = [box for box in truth[token] if box.num_pts > 0]
    predictions = EvalBoxes()
    for token in truth.sample_tokens:
        copies = [{**box.serialize(), "detection_score": 0.9} for box in truth[token]]
        boxes = [DetectionBox.deserialize(copy) for copy in copies]
        predictions.add_boxes(token, boxes)
    present = {box.detection_name for box in truth.all}
    assert len(present) >= 7
    for name in present:
        data = accumulate(truth, predictions, name, config.dist_fcn_callable, 0.5)
        assert calc_ap(data, config.min_recall, config.min_precision) == pytest.approx(1.0)


def test_two_scenes_hold_every_class(world: World) -> None:
    names = {CATEGORY_TO_CLASS[row["category_name"]] for row in world.database.sample_annotation}
    assert len(names) >= 9


def test_road_users_do_not_touch(world: World) -> None:
    for scene in world.scenes:
        places = np.array([scene.user_pose(k, TIME)[:2] for k in range(len(scene.users))])
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 10 * np.eye(len(places))
        widths = np.array([user.size[1] for user in scene.users])
        assert (apart > 0.45 * np.minimum(widths[:, None], widths[None])).all()


def test_supersampling_averages_and_keeps_the_geometry(world: World) -> None:
    scene = world.scenes[0]
    camera = scene.mounting.cameras[0]
    coarse, fine = (render(scene, camera, TIME, supersample=n) for n in (1, 3))
    both = np.isfinite(coarse.depth) & np.isfinite(fine.depth)
    np.testing.assert_allclose(fine.depth[both], coarse.depth[both], rtol=1e-3)
    assert np.abs(fine.image.astype(float) - coarse.image).mean() < 8
    assert fine.seen.sum() == pytest.approx(9 * coarse.seen.sum(), rel=0.05)
