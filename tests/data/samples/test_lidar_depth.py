"""Lidar points in images: geometry, the published numbers, and the depth files."""

import dataclasses

import numpy as np
import pytest

from bev_data.geometry import pose
from bev_data.infos.info import CameraFrame, LidarFrame
from bev_data.samples.depth_files import write_depth_files
from bev_data.samples.lidar_depth import (
    _checksum,
    depth_file,
    depth_points,
    project_lidar,
    read_depth_file,
    read_lidar,
    write_depth_file,
)

LOOKS_AHEAD = pose([0.5, -0.5, 0.5, -0.5], [0, 0, 1.5])  # a camera 1.5 m above the ground
AHEAD = CameraFrame(
    "c.jpg", 0, LOOKS_AHEAD, np.eye(4), np.array([[100.0, 0, 50], [0, 100, 30], [0, 0, 1]]), 101, 61
)


def test_a_point_ahead_lands_in_the_middle():
    lidar = LidarFrame("l.bin", 0, np.eye(4), np.eye(4))
    points = np.array([[10, 0, 1.5], [10, 1, 0.5], [-10, 0, 1.5], [10, 20, 0]], dtype=np.float32)
    # The second lies 1 m to the left and 1 m below the axis; one is behind, one outside.
    np.testing.assert_allclose(project_lidar(points, lidar, AHEAD), [[50, 30, 10], [40, 40, 10]], rtol=1e-6)


def test_the_ego_moves_between_sweep_and_exposure():
    later = dataclasses.replace(AHEAD, ego2global=pose([1, 0, 0, 0], [3, 0, 0]))
    lidar = LidarFrame("l.bin", 0, np.eye(4), np.eye(4))
    points = np.array([[10, 0, 1.5]], dtype=np.float32)
    assert project_lidar(points, lidar, later)[0, 2] == pytest.approx(7)


def test_points_must_lie_a_pixel_inside():
    lidar = LidarFrame("l.bin", 0, np.eye(4), np.eye(4))
    u = np.array([0.9, 1.1, 99.9, 100.1])
    points = np.stack([np.full(4, 10.0), (50 - u) / 10, np.full(4, 1.5)], axis=-1).astype(np.float32)
    np.testing.assert_allclose(project_lidar(points, lidar, AHEAD)[:, 0], [1.1, 99.9], rtol=1e-5)


def test_points_are_the_published_ones(goldens):
    spec = goldens.json("gen_depth")
    lidar = LidarFrame("l.bin", 0, pose(**spec["lidar_cs"]), pose(**spec["lidar_ego"]))
    compared = 0
    for name, camera in spec["cams"].items():
        if f"gdepth.{name}" not in goldens.arrays:
            continue
        sensor2ego = pose(camera["cs"]["rotation"], camera["cs"]["translation"])
        ego2global = pose(camera["ego"]["rotation"], camera["ego"]["translation"])
        intrinsics = np.array(camera["cs"]["camera_intrinsic"])
        frame = CameraFrame("c.jpg", 0, sensor2ego, ego2global, intrinsics, 1600, 900)
        points = project_lidar(goldens.arrays["gdepth.pc"], lidar, frame)
        expected = goldens.arrays[f"gdepth.{name}"]
        assert points.shape == expected.shape
        # The published code keeps points of the map frame in float32, which moves them by up to 0.1 mm:
        # up to 0.03 pixels for points half a metre from the camera.
        np.testing.assert_allclose(points[:, :2], expected[:, :2], atol=0.05)
        np.testing.assert_allclose(points[:, 2], expected[:, 2], atol=2e-4)
        compared += 1
    assert compared == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_files_hold_what_the_loader_computes(write_database, tmp_path, workers):
    from bev_data.infos.infos import open_infos

    root = write_database(tmp_path / "d", scenes={"scene-0103": 2})
    infos = open_infos(root, "v1.0-mini", "mini_val", progress=False)
    assert write_depth_files(root, infos, workers=workers, progress=False) == (4, 0)
    for info in infos:
        for name, points in zip(infos.cameras, depth_points(root, info, infos.cameras), strict=True):
            assert len(points) > 10
            np.testing.assert_array_equal(read_depth_file(root, info.cameras[name]), points)
    # A stopped run goes on: what is whole stays, what is missing or cut off is written.
    files = [depth_file(root, info.cameras["CAM_BACK"]) for info in infos]
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-5])
    assert write_depth_files(root, infos, workers=workers, progress=False) == (2, 2)
    assert write_depth_files(root, infos, overwrite=True, progress=False) == (4, 0)
    assert {path.suffix for path in (root / "depth_gt").iterdir()} == {".bin"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_missing_or_damaged_sweep_stops_the_run_by_name(write_database, tmp_path, workers):
    from bev_data.infos.infos import open_infos

    root = write_database(tmp_path / "d", scenes={"scene-0103": 2})
    infos = open_infos(root, "v1.0-mini", "mini_val", progress=False)
    path = root / infos[1].lidar.file
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"got 11997 bytes in .*{path.name}"):
        write_depth_files(root, infos, workers=workers, progress=False)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path.name} is missing"):
        write_depth_files(root, infos, workers=workers, progress=False)


def test_empty_sweeps_and_missing_depth_files_are_named(tmp_path):
    lidar = LidarFrame("l.bin", 0, np.eye(4), np.eye(4))
    (tmp_path / "l.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"got 0 bytes in .*l\.bin"):
        read_lidar(tmp_path, lidar)
    with pytest.raises(FileNotFoundError, match=r"c\.jpg\.bin is missing; make it with `bev-data depth-gt`"):
        read_depth_file(tmp_path, AHEAD)
    depth_file(tmp_path, AHEAD).parent.mkdir()
    depth_file(tmp_path, AHEAD).write_bytes(b"12345")
    with pytest.raises(ValueError, match=r"triples of 12 bytes, got 5 bytes"):
        read_depth_file(tmp_path, AHEAD)


def test_damaged_depth_files_are_not_believed(tmp_path):
    """A bit of every byte, and every length; files of other projects by their values alone."""
    points = np.array([[5.5, 7.25, 3.0], [60.0, 20.0, 12.5], [0.5, 33.0, 80.0]], dtype=np.float32)
    path = depth_file(tmp_path, AHEAD)
    write_depth_file(path, points)
    content = path.read_bytes()
    np.testing.assert_array_equal(read_depth_file(tmp_path, AHEAD), points)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"c\.jpg\.bin; make it with `bev-data depth-gt` again"):
            read_depth_file(tmp_path, AHEAD)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"c\.jpg\.bin; make it with"):
            read_depth_file(tmp_path, AHEAD)
    path.write_bytes(content[12:])
    np.testing.assert_array_equal(read_depth_file(tmp_path, AHEAD), points)
    for wrong in ([-3.0, 7, 3], [5, 1e6, 3], [5, 7, 0], [5, 7, -1], [5, 7, np.inf], [np.nan, 7, 3]):
        path.write_bytes(np.array([wrong], dtype=np.float32).tobytes())
        with pytest.raises(ValueError, match="pixels of its image and depths above 0 m"):
            read_depth_file(tmp_path, AHEAD)


def test_the_checksum_is_no_point_to_other_projects():
    """They scale and crop in float32, round to int16 and keep what is inside of the image."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        u, v, depth = _checksum(rng.bytes(60))
        scale = rng.uniform(0.2, 1.2)
        pixel = (np.array([u, v]) * scale).clip(-32768, 32767).astype(np.int16)
        assert depth == 0
        assert (pixel < 0).all()
