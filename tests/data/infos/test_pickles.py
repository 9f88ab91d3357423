"""Pickles of BEVDepth and BEVStereo: what they say comes in, what infos say goes out, code stays out."""

import os
import pickle
import shutil

import numpy as np
import pytest

from bev_data.commands.main import main
from bev_data.infos.infos import Infos, open_infos
from bev_data.infos.pickles import export_pickle, import_pickle, load_plain_pickle


@pytest.fixture
def exported(mini_val, tmp_path):
    """Key frames of mini_val as these projects hold them, and the file they came from."""
    path = tmp_path / "nuscenes_infos_mini_val.pkl"
    export_pickle(mini_val, path)
    return pickle.loads(path.read_bytes()), path


def test_a_round_trip_gives_the_same_infos(mini_val, exported, database):
    _, path = exported
    infos, dropped = import_pickle(path, database, version="v1.0-mini", split="mini_val")
    assert dropped == 0
    assert (infos.cameras, list(infos.prev), infos.tokens) == (
        mini_val.cameras,
        [-1, 0, 1, -1],
        mini_val.tokens,
    )
    for a, b in zip(mini_val, infos, strict=True):
        steps = zip((a.cameras, *a.sweeps), (b.cameras, *b.sweeps), strict=True)
        frames = [(one[name], other[name]) for one, other in steps for name in one]
        for x, y in [*frames, (a.lidar, b.lidar)]:
            assert (x.file, x.timestamp) == (y.file, y.timestamp)
            np.testing.assert_allclose(x.sensor2ego, y.sensor2ego, atol=1e-14)
            np.testing.assert_allclose(x.ego2global, y.ego2global, atol=1e-13)
        for field in ("centers", "sizes", "rotations", "num_lidar_pts", "num_radar_pts"):
            np.testing.assert_array_equal(getattr(a.annotations, field), getattr(b.annotations, field))
        np.testing.assert_array_equal(np.nan_to_num(a.annotations.velocities), b.annotations.velocities)


def test_the_records_are_those_that_the_projects_read(exported, mini_val):
    entries, _ = exported
    info, entry = mini_val[2], entries[2]
    camera = entry["cam_infos"]["CAM_BACK"]
    assert camera["filename"] == info.cameras["CAM_BACK"].file
    assert np.shape(camera["calibrated_sensor"]["camera_intrinsic"]) == (3, 3)
    assert len(camera["ego_pose"]["rotation"]) == 4
    assert entry["lidar_infos"]["LIDAR_TOP"]["ego_pose"]["timestamp"] == info.lidar.timestamp
    assert [set(step) for step in entry["cam_sweeps"]] == [{"CAM_FRONT", "CAM_BACK"}] * 6
    box = entry["ann_infos"][0]
    # Width before length, as in the tables.
    np.testing.assert_array_equal(box["size"], info.annotations.sizes[0][[1, 0, 2]])
    assert box["velocity"].shape == (3,)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_all_protocols_are_read(exported, tmp_path, database, protocol):
    entries, _ = exported
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(entries, protocol=protocol))
    infos, _ = import_pickle(path, database, version="v1.0-mini", split="x")
    assert len(infos) == 4
    np.testing.assert_array_equal(
        infos[1].annotations.velocities[0], entries[1]["ann_infos"][0]["velocity"][:2]
    )


def test_records_of_older_scripts_are_read(exported, tmp_path, database):
    """Without sizes, sweeps, lidar or boxes."""
    entries, _ = exported
    for entry in entries:
        for key in ("cam_sweeps", "lidar_infos", "ann_infos"):
            del entry[key]
        for camera in entry["cam_infos"].values():
            del camera["width"], camera["height"]
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(entries))
    info = import_pickle(path, database, version="v1.0-mini", split="x").infos[0]
    assert (info.cameras["CAM_BACK"].width, info.cameras["CAM_BACK"].height) == (80, 40)
    assert (info.sweeps, info.lidar, len(info.annotations)) == ((), None, 0)


def test_sweeps_with_the_key_frames_pose_are_left_out(exported, tmp_path, database, capsys):
    entries, _ = exported
    for entry in entries:
        for step in entry["cam_sweeps"]:
            step["CAM_BACK"]["ego_pose"] = entry["cam_infos"]["CAM_BACK"]["ego_pose"]
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(entries))
    infos, dropped = import_pickle(path, database, version="v1.0-mini", split="x")
    assert dropped == sum(len(entry["cam_sweeps"]) for entry in entries) == 9
    assert [set(step) for step in infos[2].sweeps] == [{"CAM_FRONT"}] * 6


class _Attack:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (_Attack(os.mkdir, "gotcha"), f"{os.mkdir.__module__}.mkdir"),
        (_Attack(eval, "__import__('os').mkdir('gotcha')"), "builtins.eval"),
        (_Attack(np.load, "x"), "numpy.load"),
        (_Attack(getattr, "text", "upper"), "builtins.getattr"),
    ],
)
def test_code_is_refused_and_not_run(exported, tmp_path, database, monkeypatch, capsys, attack, name):
    entries, _ = exported
    entries[1]["ann_infos"][0]["velocity"] = attack
    path = tmp_path / "nuscenes_12hz_infos_train.pkl"
    path.write_bytes(pickle.dumps(entries))
    monkeypatch.chdir(tmp_path)
    root = shutil.copytree(
        database, tmp_path / "data", ignore=shutil.ignore_patterns("infos", "samples", "sweeps")
    )
    assert main(["import", str(root), str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path} is not read: it must hold plain data and NumPy arrays only, got" in error
    assert name.rpartition(".")[2] in error
    assert not (tmp_path / "gotcha").exists()
    assert not (root / "infos").exists()


def test_codecs_other_than_that_of_bytes_are_refused(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"c_codecs\nencode\n(Vdata\nVzlib_codec\ntR.")
    with pytest.raises(ValueError, match="must be encoded as latin1, got 'zlib_codec'"):
        load_plain_pickle(path)
    path.write_bytes(pickle.dumps(np.arange(3), protocol=2))
    np.testing.assert_array_equal(load_plain_pickle(path), [0, 1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "x.pkl does not exist"),
        (b"", "must be whole, got a damaged file: .*x.pkl"),
        (b"\x80\x04\x95", "must be whole, got a damaged file: .*x.pkl"),
        (pickle.dumps({"infos": [], "metadata": {}}), "must be a list of key frames with cam_infos"),
        (pickle.dumps([{"cam_infos": {"CAM": {}}, "scene_token": "s"}]), "key frame 0 must have the records"),
    ],
)
def test_what_is_no_such_pickle_is_named(tmp_path, content, message):
    path = tmp_path / "x.pkl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        import_pickle(path, tmp_path, version="v1.0-mini", split="x")


def test_a_damaged_pickle_is_named(exported, tmp_path):
    _, path = exported
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"damaged file: .*nuscenes_infos_mini_val\.pkl"):
        load_plain_pickle(path)


def test_the_commands_join_the_projects(database, tmp_path, capsys):
    """Exported, imported into a root without tables, and opened from there."""
    root = shutil.copytree(database, tmp_path / "data", ignore=shutil.ignore_patterns("infos"))
    path = tmp_path / "nuscenes_12hz_infos_mini_val.pkl"
    assert main(["export", str(root), str(path)]) == 0
    shutil.rmtree(root / "v1.0-mini")
    shutil.rmtree(root / "infos")
    assert main(["import", str(root), str(path)]) == 2
    assert "--version must be given, such as v1.0-trainval" in capsys.readouterr().err
    assert main(["import", str(root), str(path), "--version", "v1.0-mini"]) == 0
    assert "mini_val: 4 key frames, 2 cameras" in capsys.readouterr().out
    infos = open_infos(root, "v1.0-mini", "mini_val", progress=False)
    assert isinstance(infos, Infos)
    assert len(infos) == 4
    # What has no tables can be drawn and exported again, too.
    assert main(["show", str(root), "1", "--out", str(tmp_path / "sample.png")]) == 0
    assert main(["export", str(root), str(path)]) == 0
    assert main(["import", str(root), str(path.rename(tmp_path / "other.pkl"))]) == 2
    assert "--split must be given for a pickle named other.pkl" in capsys.readouterr().err
