"""`bev-data check`: a whole database passes, and every kind of damage is named with its file or record."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from bev_data.checks import check_version
from bev_data.commands.main import main
from bev_data.geometry import invert, quaternion_to_matrix, transform_points
from bev_data.infos.infos import build_infos, open_infos
from bev_data.samples.depth_files import write_depth_files

IMAGE = "samples/CAM_FRONT/scene-0103-CAM_FRONT-3.jpg"
SWEEP = "sweeps/CAM_BACK/scene-0103-CAM_BACK-4.jpg"
LIDAR = "samples/LIDAR_TOP/scene-0103-LIDAR_TOP-1.pcd.bin"


@pytest.fixture(scope="session")
def whole(write_database, tmp_path_factory):
    """A database whose boxes hold as many lidar points as it says."""
    root = write_database(tmp_path_factory.mktemp("whole"))
    rng = np.random.default_rng(0)
    for split in ("mini_train", "mini_val"):
        for info in build_infos(root, "v1.0-mini", split, progress=False):
            a = info.annotations
            inside = [
                a.centers[i]
                + (rng.uniform(-0.45, 0.45, (n, 3)) * a.sizes[i]) @ quaternion_to_matrix(a.rotations[i]).T
                for i, n in enumerate(a.num_lidar_pts)
            ]
            to_lidar = invert(info.lidar.ego2global @ info.lidar.sensor2ego)
            around = np.fromfile(root / info.lidar.file, np.float32).reshape(-1, 5)
            boxes = transform_points(to_lidar, np.concatenate(inside))
            points = np.concatenate([around[:, :3], boxes])
            np.pad(points, ((0, 0), (0, 2))).astype(np.float32).tofile(root / info.lidar.file)
    return root


@pytest.fixture
def root(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "data")


def change(root, table, token, **fields):
    path = root / "v1.0-mini" / f"{table}.json"
    rows = json.loads(path.read_text())
    next(row for row in rows if row["token"] == token).update(fields)
    path.write_text(json.dumps(rows))


def test_a_whole_database_has_no_problems(whole, capsys):
    assert main(["check", str(whole), "--workers", "1", "--all-files"]) == 0
    # Every image once: those of the key frames and those between them.
    images = len(list(whole.glob("s*/CAM_*/*.jpg")))
    assert capsys.readouterr().out == f"v1.0-mini: read 6 of 6 key frames, {images} images; no problems\n"


def test_a_part_can_be_checked(whole):
    report = check_version(whole, "v1.0-mini", fraction=0.5, sweeps=False, progress=False)
    assert (report.key_frames, report.images, report.problems) == (3, 6, ())


def truncate(root):
    path = root / IMAGE
    path.write_bytes(path.read_bytes()[:-200])


def shrink(root):
    Image.new("RGB", (32, 24)).save(root / IMAGE)


def cut_lidar(root):
    path = root / LIDAR
    path.write_bytes(path.read_bytes()[:-3])


def nan_lidar(root):
    np.full((100, 5), np.nan, np.float32).tofile(root / LIDAR)


FILES = {
    "missing image": (lambda root: (root / IMAGE).unlink(), IMAGE, "the image .* is missing"),
    "missing sweep": (lambda root: (root / SWEEP).unlink(), SWEEP, "the image .* is missing"),
    "truncated image": (truncate, IMAGE, "must be whole, got a damaged file"),
    "empty image": (lambda root: (root / IMAGE).write_bytes(b""), IMAGE, "must be whole, got a damaged file"),
    "image of another size": (shrink, IMAGE, "must have 64x48 pixels .*, got 32x24"),
    "missing lidar": (lambda root: (root / LIDAR).unlink(), LIDAR, "the lidar file .* is missing"),
    "empty lidar": (lambda root: (root / LIDAR).write_bytes(b""), LIDAR, "got 0 bytes"),
    "lidar cut off": (cut_lidar, LIDAR, "one or more points of 20 bytes, got"),
    "lidar without numbers": (nan_lidar, LIDAR, "lidar points must be within 500 m"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("quick", [False, True])
def test_a_file_that_is_not_whole_is_named_and_listed(root, tmp_path, capsys, name, quick):
    damage, file, message = FILES[name]
    damage(root)
    fixes = tmp_path / "again.txt"
    options = ["--quick", "--fraction", "1"] if quick else []
    assert main(["check", str(root), "--workers", "1", "--fix-list", str(fixes), *options]) == 1
    output = capsys.readouterr().out
    lines = [line for line in output.splitlines() if line.startswith("  ")]
    assert len(lines) == 1
    assert lines[0].find(file.rpartition("/")[2]) > 0
    assert re.search(message, lines[0])
    assert fixes.read_text() == f"{file}\n"


TABLES = {
    "time": (
        "sample_data",
        "scene-0103-CAM_BACK-3",
        {"timestamp": 2_000_900_000},
        "must be later than the rec",
    ),
    "key time": (
        "sample_data",
        "scene-0061-CAM_BACK-0",
        {"timestamp": 999_000_000},
        "within 0.3 s of its samp",
    ),
    "sample time": ("sample", "scene-0103-1", {"timestamp": 1}, "samples must go forward in time"),
    "sample link": ("sample", "scene-0103-1", {"prev": ""}, "must link back within scene-0103"),
    "scene length": ("scene", "scene-0103", {"nbr_samples": 7}, "must have 7 samples, got 3"),
    "link": ("sample_data", "scene-0103-CAM_BACK-3", {"sample_token": "x"}, "must belong to a sample"),
    "prev": (
        "sample_data",
        "scene-0103-CAM_BACK-3",
        {"prev": "x"},
        "must follow a recording that sample_data",
    ),
    "other sensor": (
        "sample_data",
        "scene-0103-CAM_BACK-3",
        {"prev": "scene-0103-CAM_FRONT-2"},
        "a recording of the same sensor",
    ),
    "pose of another moment": (
        "sample_data",
        "scene-0103-CAM_BACK-4",
        {"ego_pose_token": "scene-0103-CAM_BACK-6"},
        "must be that of its own moment",
    ),
    "no pose": ("sample_data", "scene-0103-CAM_BACK-4", {"ego_pose_token": "x"}, "must be in ego_pose.json"),
    "pose off": (
        "ego_pose",
        "scene-0103-CAM_BACK-4",
        {"translation": [0, 0, 0]},
        "within reach of the one befo",
    ),
    "pose length": (
        "ego_pose",
        "scene-0103-CAM_BACK-4",
        {"rotation": [2, 0, 0, 0]},
        "a quaternion of length 1",
    ),
    "mount": (
        "calibrated_sensor",
        "CAM_BACK",
        {"translation": [1500, 0, 1500]},
        "within 20 m of the vehicle",
    ),
    "upside down": ("calibrated_sensor", "CAM_BACK", {"rotation": [0.5, 0.5, 0.5, 0.5]}, "axis downward"),
    "focal length": (
        "calibrated_sensor",
        "CAM_BACK",
        {"camera_intrinsic": [[0.006, 0, 0.004], [0, 0.006, 0.003], [0, 0, 1]]},
        "must see 10 to 170 degrees",
    ),
    "no intrinsics": ("calibrated_sensor", "CAM_BACK", {"camera_intrinsic": []}, "3x3 camera_intrinsic"),
    "box": (
        "sample_annotation",
        "scene-0103-vehicle.car-1",
        {"size": [2, -4, 1]},
        "must have sides of 0 to 60 m",
    ),
    "fast box": (
        "sample_annotation",
        "scene-0103-vehicle.car-1",
        {"translation": [912.0, 204.0, 0.8]},
        "move at up to 70 m/s",
    ),
    "no instance": (
        "sample_annotation",
        "scene-0103-animal-1",
        {"instance_token": "x"},
        "instance.json .* every rec",
    ),
    "broken row": ("ego_pose", "scene-0103-CAM_BACK-4", {"rotation": "none"}, r"ego_pose\.json .*got `str`"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_wrong_is_named(root, capsys, name):
    table, token, fields, message = TABLES[name]
    change(root, table, token, **fields)
    assert main(["check", str(root), "--workers", "1", "--fraction", "0"]) == 1
    assert re.search(message, capsys.readouterr().out)


def test_a_missing_table_is_listed(root, tmp_path, capsys):
    (root / "v1.0-mini" / "ego_pose.json").unlink()
    assert main(["check", str(root), "--fix-list", str(tmp_path / "again.txt")]) == 1
    assert "the table ego_pose.json must be in" in capsys.readouterr().out
    assert (tmp_path / "again.txt").read_text() == "v1.0-mini/ego_pose.json\n"


def test_boxes_of_another_frame_are_found(root, capsys):
    table = root / "v1.0-mini" / "sample_annotation.json"
    rows = json.loads(table.read_text())
    for row in rows:
        # As if the boxes stood in the frame of the vehicle.
        row["translation"] = [row["translation"][0] - 100, row["translation"][1] - 200, row["translation"][2]]
    table.write_text(json.dumps(rows))
    assert main(["check", str(root), "--workers", "1"]) == 1
    assert "boxes must contain their lidar points, got 0 of 2" in capsys.readouterr().out


def test_cameras_that_lidar_does_not_land_in_are_found(root, capsys):
    # Up, where no point is.
    up = [float(v) for v in (np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5))]
    change(root, "calibrated_sensor", "CAM_BACK", rotation=up)
    assert main(["check", str(root), "--workers", "1"]) == 1
    assert "lidar must land in the images, got" in capsys.readouterr().out


def test_depth_files_and_infos_are_checked_where_they_are(root, capsys):
    infos = open_infos(root, "v1.0-mini", "mini_val", progress=False)
    write_depth_files(root, infos, progress=False)
    assert check_version(root, "v1.0-mini", progress=False).problems == ()
    path = root / "depth_gt" / "scene-0103-CAM_BACK-3.jpg.bin"
    # Without the checksum at its beginning, as other projects write such files.
    points = np.fromfile(path, np.float32).reshape(-1, 3)[1:]
    (points * [1, 1, 2]).astype(np.float32).tofile(path)
    (root / "v1.0-mini" / "sensor.json").touch()
    assert main(["check", str(root), "--workers", "1"]) == 1
    output = capsys.readouterr().out
    assert f"the depth file {path} must hold the lidar points of its image, but differs" in output
    assert "v1.0-mini_mini_val.arrow must be made from the tables there are" in output


def test_workers_find_the_same(root, capfd):
    for file in (IMAGE, SWEEP, LIDAR):
        (root / file).unlink()
    reports = []
    for workers in (1, 2):
        assert main(["check", str(root), "--workers", str(workers), "--limit", "0"]) == 1
        reports.append(capfd.readouterr().out)
    assert reports[0] == reports[1]
    assert "3 problems" in reports[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{root}/nowhere"], "the data root must be a folder"),
        (["{root}/maps"], "must hold a version folder"),
        (["{root}", "--version", "v1.0-test"], "must hold the folder v1.0-test"),
    ],
)
def test_wrong_usage_ends_with_2(whole, capsys, arguments, message):
    assert main(["check", *(argument.format(root=whole) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err
