"""Infos: what is read from the tables, the file they live in, and what is said when something is missing."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bev_data.infos.info import Annotations, CameraFrame, Info
from bev_data.infos.infos import Infos, build_infos, find_version, infos_path, open_infos
from bev_data.nuscenes.splits import find_version_of, list_splits, split_members
from bev_data.nuscenes.versions import load_devkit


def test_key_frames_come_scene_by_scene_in_time(mini_val):
    assert [(info.scene, info.token, info.prev) for info in mini_val] == [
        ("scene-0103", "scene-0103-0", None),
        ("scene-0103", "scene-0103-1", 0),
        ("scene-0103", "scene-0103-2", 1),
        ("scene-0916", "scene-0916-0", None),
    ]
    assert mini_val.cameras == ("CAM_FRONT", "CAM_BACK")
    assert list(mini_val.prev) == [-1, 0, 1, -1]


def test_frames_hold_what_the_tables_say(database, mini_val):
    tables = load_devkit(database, "v1.0-mini")
    camera = mini_val[1].cameras["CAM_BACK"]
    record = tables.get("sample_data", tables.get("sample", "scene-0103-1")["data"]["CAM_BACK"])
    assert (camera.file, camera.timestamp) == (record["filename"], record["timestamp"])
    assert (camera.width, camera.height) == (80, 40)
    pose = tables.get("ego_pose", record["ego_pose_token"])
    np.testing.assert_array_equal(camera.ego2global[:3, 3], pose["translation"])
    # The camera looks back: its optical axis is the ego's backward axis.
    np.testing.assert_allclose(camera.sensor2ego[:3, 2], [-1, 0, 0], atol=1e-12)
    lidar = mini_val[1].lidar
    assert lidar is not None
    np.testing.assert_array_equal(mini_val[1].keyego2global, lidar.ego2global)


def test_sweeps_run_back_in_time_through_key_frames(mini_val):
    info = mini_val[2]
    assert len(info.sweeps) == 6
    stamps = [info.cameras["CAM_FRONT"].timestamp, *(sweep["CAM_FRONT"].timestamp for sweep in info.sweeps)]
    assert np.allclose(np.diff(stamps), -500_000 / 3, atol=1)
    assert info.sweeps[2]["CAM_FRONT"].file == mini_val[1].cameras["CAM_FRONT"].file
    assert mini_val[0].sweeps == ()
    assert list(mini_val.has_sweep(2, ["CAM_FRONT", "CAM_BACK"])) == [False, True, True, False]
    assert list(mini_val.has_sweep(3, ["CAM_FRONT"])) == [False, False, True, False]


def test_velocities_are_the_devkits_and_unknown_ones_stay_unknown(database, mini_val):
    tables = load_devkit(database, "v1.0-mini")
    for info in mini_val:
        expected = [tables.box_velocity(token)[:2] for token in info.annotations.tokens]
        np.testing.assert_array_equal(info.annotations.velocities, expected)
    car = mini_val[1].annotations.categories.index("vehicle.car")
    np.testing.assert_allclose(mini_val[1].annotations.velocities[car], [2, 0], atol=1e-9)
    assert np.isnan(mini_val[3].annotations.velocities).all()  # a scene of one key frame


def test_sizes_are_length_width_height(mini_val):
    annotations = mini_val[0].annotations
    np.testing.assert_array_equal(
        annotations.sizes[annotations.categories.index("vehicle.car")], [4.6, 1.9, 1.6]
    )


def test_boxes_per_category_agree_with_the_infos(mini_val):
    rows, categories, names, enough = mini_val.boxes_per_category(3)
    found = sorted((int(r), names[c], bool(e)) for r, c, e in zip(rows, categories, enough, strict=True))
    expected = sorted(
        (i, category, bool(count >= 3))
        for i, info in enumerate(mini_val)
        for category, count in zip(info.annotations.categories, info.annotations.num_lidar_pts, strict=True)
    )
    assert found == expected


def assert_same(a: Info, b: Info) -> None:
    assert (a.token, a.scene, a.timestamp, a.prev) == (b.token, b.scene, b.timestamp, b.prev)
    assert len(a.sweeps) == len(b.sweeps)
    for x, y in zip((a.cameras, *a.sweeps), (b.cameras, *b.sweeps), strict=True):
        assert list(x) == list(y)
        for name in x:
            assert (x[name].file, x[name].timestamp) == (y[name].file, y[name].timestamp)
            for field in ("sensor2ego", "ego2global", "intrinsics"):
                np.testing.assert_array_equal(getattr(x[name], field), getattr(y[name], field))
    for field in ("centers", "sizes", "rotations", "velocities", "num_lidar_pts", "num_radar_pts"):
        np.testing.assert_array_equal(getattr(a.annotations, field), getattr(b.annotations, field))
    assert a.annotations.attributes == b.annotations.attributes


def test_a_file_gives_back_what_was_saved(database, tmp_path):
    built = build_infos(database, "v1.0-mini", "mini_val", progress=False)
    saved = built.save(tmp_path / "infos.arrow")
    assert (saved.version, saved.split, len(saved)) == ("v1.0-mini", "mini_val", 4)
    for a, b in zip(built, saved, strict=True):
        assert_same(a, b)
    assert [path.name for path in tmp_path.iterdir()] == ["infos.arrow"]


def test_saved_infos_pickle_as_their_path(mini_val):
    pickled = pickle.dumps(mini_val)
    assert len(pickled) < 1000
    assert_same(pickle.loads(pickled)[2], mini_val[2])


def test_built_infos_pickle_whole(database):
    built = build_infos(database, "v1.0-mini", "mini_train", progress=False)
    assert_same(pickle.loads(pickle.dumps(built))[1], built[1])


def test_indexing_is_that_of_a_sequence(mini_val):
    assert mini_val[-1].token == "scene-0916-0"
    assert [info.token for info in mini_val[1:3]] == ["scene-0103-1", "scene-0103-2"]
    with pytest.raises(IndexError, match="below 4, got 4"):
        mini_val[4]


def test_open_builds_once_and_again_when_tables_change(write_database, tmp_path):
    root = write_database(tmp_path / "data")
    first = open_infos(root, "v1.0-mini", "mini_train", progress=False)
    assert first.path == root / "infos" / "v1.0-mini_mini_train.arrow"
    stamp = first.path.stat().st_mtime_ns
    assert open_infos(root, "v1.0-mini", "mini_train", progress=False).path.stat().st_mtime_ns == stamp
    table = root / "v1.0-mini" / "sample_annotation.json"
    rows = json.loads(table.read_text())
    rows[0]["num_lidar_pts"] = 77
    table.write_text(json.dumps(rows))
    again = open_infos(root, "v1.0-mini", "mini_train", progress=False)
    assert again[0].annotations.num_lidar_pts[0] == 77


def test_more_sweeps_can_be_collected_and_stay(write_database, tmp_path):
    root = write_database(tmp_path / "data", scenes={"scene-0103": 5})
    build_infos(root, "v1.0-mini", "mini_val", num_sweeps=9, progress=False).save(
        infos_path(root, "v1.0-mini", "mini_val")
    )
    assert len(open_infos(root, "v1.0-mini", "mini_val", progress=False)[4].sweeps) == 9
    (root / "v1.0-mini" / "sensor.json").touch()
    assert open_infos(root, "v1.0-mini", "mini_val", progress=False).header.num_sweeps == 9
    with pytest.raises(ValueError, match="in 0 to 127, got 128"):
        build_infos(root, "v1.0-mini", "mini_val", num_sweeps=128)


def test_open_replaces_a_damaged_file(write_database, tmp_path):
    root = write_database(tmp_path / "data")
    path = open_infos(root, "v1.0-mini", "mini_train", progress=False).path
    path.write_bytes(path.read_bytes()[:1000])
    assert len(open_infos(root, "v1.0-mini", "mini_train", progress=False)) == 2


def test_infos_that_cannot_be_made_anew_are_refused_by_name(tmp_path):
    """Those of an old format, where there are no tables: nothing is guessed, nothing is overwritten."""
    path = tmp_path / "infos" / "mine_all.arrow"
    path.parent.mkdir()
    schema = pa.schema([("a", pa.int64())], metadata={"bev_data.infos": "0"})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.table({"a": [1]}, schema=schema))
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"mine_all\.arrow \(it has no checksums at its end\)"):
        open_infos(tmp_path, "mine", "all", progress=False)
    assert path.read_bytes() == content


def test_infos_of_a_root_that_cannot_be_written_go_to_the_users_cache(database, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    path = infos_path(database, "v1.0-mini", "mini_val")
    assert path.is_relative_to(tmp_path / "bev-data")
    assert path != infos_path(tmp_path, "v1.0-mini", "mini_val")


@pytest.mark.parametrize("damage", ["nothing", "text", "half", "other format"])
def test_a_file_that_is_no_infos_is_refused_by_name(mini_val, tmp_path, damage):
    path = tmp_path / "x.arrow"
    if damage == "text":
        path.write_text("hello")
    elif damage == "half":
        content = mini_val.path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif damage == "other format":
        schema = pa.schema([("a", pa.int64())], metadata={"bev_data.infos": "0"})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(pa.table({"a": [1]}, schema=schema))
    error = FileNotFoundError if damage == "nothing" else ValueError
    with pytest.raises(error, match=r"x\.arrow.*bev-data prepare"):
        Infos.load(path)


def test_own_data_becomes_infos():
    def camera(stamp):
        return CameraFrame(f"{stamp}.jpg", stamp, np.eye(4), np.eye(4), np.eye(3), 10, 20)

    own = [
        Info(str(i), "a drive", i, i - 1 if i else None, {"left": camera(i)}, (), None, Annotations.empty())
        for i in range(3)
    ]
    infos = Infos.from_list(own, version="mine", split="all")
    assert [info.prev for info in infos] == [None, 0, 1]
    assert infos[2].lidar is None
    assert len(infos[2].annotations) == 0
    with pytest.raises(ValueError, match=r"image of each of \['left', 'right'\]"):
        Infos.from_list(own, version="mine", split="all", cameras=["left", "right"])
    with pytest.raises(ValueError, match="earlier index of the same scene, got 0"):
        Infos.from_list([own[1]], version="mine", split="all")


def test_test_split_has_no_boxes(write_database, tmp_path):
    root = write_database(tmp_path / "d", version="v1.0-test", scenes={"scene-0077": 2}, annotations=False)
    infos = build_infos(root, find_version(root), "test", progress=False)
    assert [len(info.annotations) for info in infos] == [0, 0]


def test_splits_are_those_that_the_version_holds(database, write_database, tmp_path):
    assert list_splits(database, "v1.0-mini") == ["mini_train", "mini_val"]
    root = write_database(tmp_path / "d", version="v1.0-trainval", scenes={"scene-0061": 1, "scene-0003": 1})
    assert list_splits(root, "v1.0-trainval") == ["train", "val", "train_detect"]
    own = {"mine": ["scene-0003", "scene-0061"]}
    (root / "v1.0-trainval" / "splits.json").write_text(json.dumps(own))
    assert split_members(root, "v1.0-trainval", "mine") == ["scene-0003", "scene-0061"]
    assert len(build_infos(root, "v1.0-trainval", "mine", progress=False)) == 2


def test_trainval_is_preferred_to_mini(write_database, tmp_path):
    root = write_database(tmp_path / "d")
    assert find_version(root) == "v1.0-mini"
    (root / "v1.0-trainval").mkdir()
    assert find_version(root) == "v1.0-trainval"


def test_the_version_that_holds_the_split_is_preferred_to_all(write_database, tmp_path):
    root = write_database(tmp_path / "d", version="v1.0-trainval", scenes={"scene-0003": 1})
    other = write_database(tmp_path / "e", version="v1.0-test", scenes={"scene-0077": 1}, annotations=False)
    (other / "v1.0-test").rename(root / "v1.0-test")
    assert find_version(root) == "v1.0-trainval"
    assert find_version_of(root, "val") == "v1.0-trainval"
    assert find_version_of(root, "test") == "v1.0-test"
    assert find_version_of(root, "nowhere") == "v1.0-trainval"


@pytest.fixture
def broken(database, tmp_path) -> Path:
    """A copy of the tables that a test may damage."""
    shutil.copytree(database / "v1.0-mini", tmp_path / "d" / "v1.0-mini")
    shutil.copytree(database / "maps", tmp_path / "d" / "maps")
    return tmp_path / "d"


def test_missing_things_are_named(broken, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data root must be a folder, got .*nowhere"):
        find_version(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="must hold a version folder"):
        find_version(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"folder v1\.0-trainval, got versions: v1\.0-mini"):
        build_infos(broken, "v1.0-trainval", "val")
    with pytest.raises(ValueError, match="one of: mini_train, mini_val; got 'val'"):
        build_infos(broken, "v1.0-mini", "val")
    (broken / "v1.0-mini" / "ego_pose.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"ego_pose\.json must be in .*v1\.0-mini"):
        build_infos(broken, "v1.0-mini", "mini_val")


def test_damaged_tables_are_named(broken):
    table = broken / "v1.0-mini" / "scene.json"
    whole = table.read_text()
    table.write_text(whole[:100])
    with pytest.raises(ValueError, match=r"damaged file: .*scene\.json"):
        build_infos(broken, "v1.0-mini", "mini_val")
    table.write_text(whole)
    poses = broken / "v1.0-mini" / "ego_pose.json"
    poses.write_text(json.dumps(json.loads(poses.read_text())[:5]))
    with pytest.raises(ValueError, match=r"ego_pose\.json .* hold every record"):
        build_infos(broken, "v1.0-mini", "mini_val", progress=False)


def test_a_key_frame_without_one_of_the_cameras_is_named(broken):
    table = broken / "v1.0-mini" / "sample_data.json"
    rows = json.loads(table.read_text())
    row = next(row for row in rows if row["token"] == "scene-0103-CAM_BACK-3")
    row["is_key_frame"] = False
    table.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="none of CAM_BACK for the sample scene-0103-1"):
        build_infos(broken, "v1.0-mini", "mini_val", progress=False)
