"""Argoverse 2: small logs of that format, and the real one where it is there."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from PIL import Image

from bev_data.checks.files import points_in_boxes
from bev_data.commands.main import main
from bev_data.geometry import boxes_to_frame, invert, pose, transform_points
from bev_data.infos.argoverse import CAMERAS, import_argoverse
from bev_data.rig import check_rig
from bev_data.samples.dataset import KeyFrameDataset
from bev_data.samples.history import History
from bev_data.samples.lidar_depth import read_lidar

START = 315_966_265_000_000_000  # nanoseconds
SWEEP = 100_000_000
SIZES = {"ring_front_center": (62, 82)}  # portrait; the others lie on their side
SPEED = 5.0  # of the vehicle, m/s along x of the city
BACK = [0.5, -0.5, -0.5, 0.5]


TURN = ("qw", "qx", "qy", "qz")
PLACE = ("tx_m", "ty_m", "tz_m")


def same(keys, values, count):
    """Columns of one value each."""
    return {key: [float(value)] * count for key, value in zip(keys, values, strict=True)}


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.feather.write_feather(pa.table(columns), str(path))


def place(time):
    return [100.0 + SPEED * (time - START) * 1e-9, 50.0, 10.0]


def write_log(folder: Path, sweeps=11, cameras=CAMERAS):
    """A log: a parked car ahead with its lidar points, one that drives beside, and a dog."""
    rng = np.random.default_rng(0)
    lidar_times = [START + SWEEP * k for k in range(sweeps)]
    image_times = {
        name: [START - 200_000_000 + 50_000_000 * k + 1_000_000 * n for k in range(2 * sweeps + 6)]
        for n, name in enumerate(cameras)
    }
    pose_times = sorted({*lidar_times, *(time for times in image_times.values() for time in times)})
    turned = [np.cos(0.1), 0.0, 0.0, np.sin(0.1)]
    write(
        folder / "city_SE3_egovehicle.feather",
        timestamp_ns=pa.array(pose_times, pa.int64()),
        **{
            key: [value] * len(pose_times)
            for key, value in zip(("qw", "qx", "qy", "qz"), turned, strict=True)
        },
        **{key: [place(t)[i] for t in pose_times] for i, key in enumerate(("tx_m", "ty_m", "tz_m"))},
    )
    mounts = [[0.5, -0.5, 0.5, -0.5] if "front" in name else BACK for name in cameras]
    write(
        folder / "calibration" / "egovehicle_SE3_sensor.feather",
        sensor_name=[*cameras, "up_lidar"],
        **{
            key: [*(m[i] for m in mounts), [1.0, 0, 0, 0][i]]
            for i, key in enumerate(("qw", "qx", "qy", "qz"))
        },
        **{key: [value] * (len(cameras) + 1) for key, value in (("tx_m", 1.6), ("ty_m", 0.0), ("tz_m", 1.4))},
    )
    sizes = [SIZES.get(name, (82, 62)) for name in cameras]
    write(
        folder / "calibration" / "intrinsics.feather",
        sensor_name=list(cameras),
        fx_px=[70.0] * len(cameras),
        fy_px=[70.0] * len(cameras),
        cx_px=[w / 2 for w, _ in sizes],
        cy_px=[h / 2 for _, h in sizes],
        **{key: [-0.2] * len(cameras) for key in ("k1", "k2", "k3")},
        height_px=pa.array([h for _, h in sizes], pa.uint16()),
        width_px=pa.array([w for w, _ in sizes], pa.uint16()),
    )
    for name, size in zip(cameras, sizes, strict=True):
        (folder / "sensors" / "cameras" / name).mkdir(parents=True)
        for time in image_times[name]:
            Image.new("RGB", size, (90, 90, 90)).save(folder / "sensors" / "cameras" / name / f"{time}.jpg")
    rows = []
    city2ego = [invert(pose(turned, place(time))) for time in lidar_times]
    for k, time in enumerate(lidar_times):
        boxes = {
            ("parked", "REGULAR_VEHICLE"): [120.0, 56.0, 10.8],
            ("driving", "BOX_TRUCK"): [110.0 + 3.0 * 0.1 * k, 44.0, 11.0],
            ("dog", "DOG"): [112.0, 52.0, 10.3],
        }
        clouds = []
        for (track, category), center in boxes.items():
            in_ego = transform_points(city2ego[k], np.array([center]))[0]
            local = rng.uniform(-0.45, 0.45, (20, 3)) * [4.0, 2.0, 1.5]
            heading = city2ego[k][:3, :3]
            clouds.append(local @ heading.T + in_ego)
            rows.append((time, track, category, *in_ego))
        cloud = np.concatenate([*clouds, rng.uniform([-40, -40, -1], [40, 40, -0.5], (600, 3))])
        write(
            folder / "sensors" / "lidar" / f"{time}.feather",
            **{key: pa.array(cloud[:, i].astype(np.float16)) for i, key in enumerate("xyz")},
            intensity=pa.array([7] * len(cloud), pa.uint8()),
        )
    columns = list(zip(*rows, strict=True))
    write(
        folder / "annotations.feather",
        timestamp_ns=pa.array(columns[0], pa.int64()),
        track_uuid=columns[1],
        category=columns[2],
        **same(("length_m", "width_m", "height_m"), (4.0, 2.0, 1.5), len(rows)),
        **same(TURN, (np.cos(0.1), 0, 0, -np.sin(0.1)), len(rows)),
        **{key: columns[3 + i] for i, key in enumerate(PLACE)},
        num_interior_pts=[20] * len(rows),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("av2")
    for name in ("log-a", "log-b"):
        write_log(folder / "val" / name)
    return folder


def test_logs_become_infos(root, capsys):
    assert main(["import-av2", str(root / "val"), str(root)]) == 0
    assert "val: 6 key frames, 7 cameras, 18 boxes" in capsys.readouterr().out
    infos = import_argoverse(root / "val", root, split="val")
    assert infos.cameras == CAMERAS
    assert infos.prev.tolist() == [-1, 0, 1, -1, 3, 4]
    assert (infos.timestamps[1] - infos.timestamps[0]) == 500_000
    info = infos[1]
    # The image nearest to the sweep, and those before it, each at its own moment.
    front = info.cameras["ring_front_center"]
    assert abs(front.timestamp - info.timestamp) <= 25_000
    assert [step["ring_front_center"].timestamp for step in info.sweeps] == [
        front.timestamp - 50_000 * k for k in range(1, 7)
    ]
    assert front.ego2global[0, 3] == pytest.approx(place(front.timestamp * 1000)[0], abs=1e-6)
    assert (front.width, front.height) == (62, 82)
    a = info.annotations
    assert a.categories == ("DOG", "truck", "car")
    assert a.centers[2] == pytest.approx([120, 56, 10.8])
    assert a.velocities == pytest.approx(np.array([[0, 0], [3, 0], [0, 0]]), abs=1e-6)
    # A box that is turned back by as much as the vehicle is turned points along x of the city.
    assert a.rotations == pytest.approx(np.tile([1.0, 0, 0, 0], (3, 1)), abs=1e-9)


def test_what_was_imported_fits_and_loads(root):
    infos = import_argoverse(root / "val", root, split="val")
    assert check_rig(infos, root) == []
    dataset = KeyFrameDataset(
        infos, root, image_size=(64, 128), history=History(source="sweeps", frames=1, stride=2)
    )
    sample = dataset[1]
    assert sample.images.shape == (2, 7, 3, 64, 128)
    assert sorted(sample.labels.tolist()) == [0, 1]
    assert (sample.lidar_depth > 0).any()


def test_the_test_set_has_no_boxes(root, tmp_path):
    shutil.copytree(root / "val" / "log-a", tmp_path / "log")
    (tmp_path / "log" / "annotations.feather").unlink()
    infos = import_argoverse(tmp_path / "log", tmp_path, split="test", stride=1)
    assert len(infos) == 11
    assert infos.num_boxes == 0


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("sensors/cameras", "must have images in sensors/cameras/ring_"),
        ("calibration/intrinsics.feather", "intrinsics.feather is missing"),
        ("city_SE3_egovehicle.feather", "must be a log of the Argoverse 2 sensor data set"),
    ],
)
def test_what_is_missing_is_named(root, tmp_path, capsys, gone, message):
    shutil.copytree(root / "val" / "log-a", tmp_path / "log")
    path = tmp_path / "log" / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert main(["import-av2", str(tmp_path / "log"), str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_damaged_files_and_folders_elsewhere_are_named(root, tmp_path, capsys):
    shutil.copytree(root / "val" / "log-a", tmp_path / "log")
    (tmp_path / "log" / "annotations.feather").write_bytes(b"ARROW1")
    assert main(["import-av2", str(tmp_path / "log"), str(tmp_path)]) == 2
    assert "annotations.feather" in capsys.readouterr().err
    assert main(["import-av2", str(root / "val"), str(tmp_path)]) == 2
    assert "must lie in the data root" in capsys.readouterr().err


@pytest.fixture
def real(tmp_path):
    """The real log, with grey images at its poses' moments: it comes without any."""
    folder = os.environ.get("BEV_NUSCENES_DIR")
    if folder is None or not (Path(folder) / "av2_val").is_dir():
        pytest.skip("BEV_NUSCENES_DIR names no folder with av2_val")
    shutil.copytree(Path(folder) / "av2_val", tmp_path / "val")
    (log,) = (tmp_path / "val").iterdir()
    (sweep,) = (log / "sensors" / "lidar").iterdir()
    for name in CAMERAS:
        (log / "sensors" / "cameras" / name).mkdir(parents=True)
        (log / "sensors" / "cameras" / name / f"{sweep.stem}.jpg").touch()
    return tmp_path


def test_points_lie_in_their_boxes_in_the_real_log(real):
    (info,) = import_argoverse(real / "val", real, split="val")
    a = info.annotations
    assert len(a) == 81
    boxes = boxes_to_frame(invert(info.keyego2global), a.centers, a.sizes, a.rotations, a.velocities)
    points = read_lidar(real, info.lidar).astype(np.float64)
    np.testing.assert_array_equal(points_in_boxes(points, boxes), a.num_lidar_pts)
    assert check_rig([info]) == []
    speeds = np.linalg.norm(a.velocities, axis=1)
    assert np.nanmax(speeds) < 25
