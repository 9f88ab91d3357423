"""Rigs of one's own: the example, the checks, and what happens where something is missing."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bev_data.commands.main import main
from bev_data.geometry import pose
from bev_data.infos.info import Annotations, CameraFrame, Info, LidarFrame
from bev_data.infos.infos import Infos, open_infos
from bev_data.rig import check_rig, complete_key_frames, save_rig
from bev_data.samples.dataset import KeyFrameDataset
from bev_data.samples.history import History, history_frames

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_rig.py"
SIZES = ((64, 48), (96, 40), (40, 80), (33, 31), (70, 50), (64, 64), (50, 34))


BOX = Annotations(
    ("b",),
    ("car",),
    np.array([[10.0, 0, 1]]),
    np.array([[4.0, 2, 1]]),
    np.array([[1.0, 0, 0, 0]]),
    np.zeros((1, 2)),
    np.array([1]),
    np.array([0]),
    ("",),
)


def camera(name, stamp, size=(64, 48)):
    lens = np.array([[40.0, 0, 30], [0, 40, 20], [0, 0, 1]])
    mount = pose([0.5, -0.5, 0.5, -0.5], [0, 0, 1.5])
    return CameraFrame(f"{name}/{stamp}.jpg", stamp, mount, np.eye(4), lens, *size)


def key_frame(number, names=("a", "b"), sweeps=(), seconds=None, prev="before", **changes):
    stamp = round((0.5 * number if seconds is None else seconds) * 1e6)
    info = Info(
        token=f"t{number}",
        scene="s",
        timestamp=stamp,
        prev=(number - 1 if number else None) if prev == "before" else prev,
        cameras={name: camera(name, stamp) for name in names},
        sweeps=tuple(
            {name: camera(name, stamp - 83_333 * (i + 1)) for name in step} for i, step in enumerate(sweeps)
        ),
        lidar=None,
        annotations=Annotations.empty(),
    )
    return dataclasses.replace(info, **changes)


def tokens_of(frames, name="a"):
    return [frame[name].timestamp for frame in frames]


def test_the_example_runs(tmp_path, capsys):
    batch = runpy.run_path(str(EXAMPLE))["main"](tmp_path)
    assert batch.images.shape == (3, 2, 2, 3, 64, 160)
    assert [len(boxes) for boxes in batch.boxes] == [1, 1, 1]
    assert (batch.lidar_depth > 0).sum() > 100
    assert "2, 3, 64, 160" in capsys.readouterr().out


@pytest.fixture
def own(tmp_path):
    """The example's root, which has infos and no tables."""
    runpy.run_path(str(EXAMPLE))["main"](tmp_path)
    return tmp_path


def test_a_rig_without_tables_is_drawn(own):
    picture = own / "sample.png"
    for options in (["0"], ["drive-0-1"], ["0", "--version", "own", "--split", "train"]):
        assert main(["show", str(own), *options, "--out", str(picture)]) == 0
        with Image.open(picture) as drawn:
            assert drawn.width > 500
        picture.unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["0", "--split", "val"], "the split of own in {root} must be one of: train; got 'val'"),
        (["0", "--version", "other"], "must hold the folder other"),
        (["none"], "the sample must be a token of own in {root} or an index, got 'none'"),
    ],
)
def test_what_a_rig_without_tables_lacks_is_named(own, capsys, options, message):
    assert main(["show", str(own), *options, "--out", "x.png"]) == 2
    assert message.format(root=own) in capsys.readouterr().err


def test_versions_without_tables_are_told_apart(own, capsys):
    infos = open_infos(own, "own", "train")
    save_rig(infos, own, version="second", split="train")
    assert main(["show", str(own), "0", "--out", "x.png"]) == 2
    assert f"--version must be given for {own}; it has: own, second" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2, 5, 7])
@pytest.mark.parametrize("equipped", [True, False], ids=["lidar-and-boxes", "cameras-alone"])
def test_any_number_of_cameras_of_any_size(tmp_path, count, equipped):
    infos = []
    for number in range(2):
        stamp = number * 500_000
        frames = {f"cam{i}": camera(f"cam{i}", stamp, SIZES[i]) for i in range(count)}
        for frame in frames.values():
            (tmp_path / frame.file).parent.mkdir(exist_ok=True)
            Image.new("RGB", (frame.width, frame.height)).save(tmp_path / frame.file)
        extras = {}
        if equipped:
            np.save(tmp_path / f"{stamp}.npy", np.random.default_rng(0).uniform(0, 20, (60, 4)))
            extras["lidar"] = LidarFrame(f"{stamp}.npy", stamp, np.eye(4), np.eye(4))
            extras["annotations"] = BOX
        infos.append(key_frame(number, names=(), cameras=frames, **extras))
    save_rig(infos, tmp_path, version="own", split="train")
    dataset = KeyFrameDataset(
        open_infos(tmp_path, "own", "train"),
        tmp_path,
        image_size=(32, 64),
        history=History(frames=1),
        training=True,
        lidar_depth=equipped,
    )
    sample = dataset[1]
    assert sample.images.shape == (2, count, 3, 32, 64)
    assert len(sample.boxes) == equipped
    assert (sample.lidar_depth is not None) == equipped


class TestMissing:
    def test_key_frames_without_a_camera_are_refused_or_left_out(self):
        infos = [key_frame(0), key_frame(1, names=("a",)), key_frame(2), key_frame(3)]
        assert any(
            "t1 must have an image of each of ['a', 'b'], got ['a']" in p.message for p in check_rig(infos)
        )
        kept = complete_key_frames(infos, ("a", "b"))
        assert [(info.token, info.prev) for info in kept] == [("t0", None), ("t2", 0), ("t3", 1)]
        assert not check_rig(kept)
        assert len(complete_key_frames(infos, ("a",))) == 4

    def test_gaps_of_time_end_the_history(self):
        infos = Infos.from_list(
            [key_frame(0), key_frame(1), key_frame(2, seconds=7.0), key_frame(3, seconds=7.5)],
            version="v",
            split="s",
        )

        def stamps(row, **settings):
            history = History(**settings)
            return [s / 1e6 for s in tokens_of(history_frames(infos, infos[row], history, ("a", "b")))]

        assert stamps(3, frames=2) == [7.5, 7.0, 0.5]
        assert stamps(3, frames=2, max_gap=1.0) == [7.5, 7.0, 7.0]
        assert stamps(2, frames=1, max_gap=1.0) == [7.0, 7.0]
        dropped = self.usable(infos, History(frames=1, max_gap=1.0, missing="drop"))
        assert dropped == [1, 3]
        assert self.usable(infos, History(frames=1, missing="drop")) == [1, 2, 3]

    def usable(self, infos, history):
        from bev_data.samples.history import usable_key_frames

        return usable_key_frames(infos, history, ("a", "b")).tolist()

    def test_gaps_between_sweeps_do_too(self):
        regular = key_frame(0, sweeps=(("a", "b"), ("a", "b"), ("a", "b")))
        late = {name: camera(name, -2_000_000) for name in ("a", "b")}
        gappy = key_frame(1, sweeps=(("a", "b"),), prev=None)
        gappy = dataclasses.replace(gappy, sweeps=(*gappy.sweeps, late, late))
        infos = Infos.from_list([regular, gappy], version="v", split="s")

        def third(row, **settings):
            history = History("sweeps", stride=3, **settings)
            return history_frames(infos, infos[row], history, ("a", "b"))[1]["a"].timestamp

        assert third(0, max_gap=0.2) == third(0) == -249_999
        assert third(1) == -2_000_000
        assert third(1, max_gap=0.2) == 500_000 - 83_333
        assert self.usable(infos, History("sweeps", stride=3, max_gap=0.2, missing="drop")) == [0]
        assert self.usable(infos, History("sweeps", stride=3, missing="drop")) == [0, 1]

    @pytest.mark.usefixtures("unchecked_shapes")
    def test_a_gap_must_be_a_time(self):
        with pytest.raises(ValueError, match=r"max_gap must be above 0 s, got 0"):
            History(max_gap=0)


def changed(**changes):
    return dataclasses.replace(camera("a", 0), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": {}}, r"an image of each of \['a', 'b'\], got \[\]"),
        ({"token": "t0"}, "its own token, got 't0' 2 times"),
        ({"prev": 5}, "prev of key frame t1 must be an earlier row of its scene .*, got 5"),
        ({"timestamp": 0}, "an earlier moment, got 0"),
        ({"scene": "other"}, "an earlier row of its scene"),
        ({"sweeps": ({"c": camera("c", 0)},)}, "must be of its cameras, got 'c'"),
        ({"sweeps": ({"a": camera("a", 900_000)},)}, "sweep 0 of a of key frame t1 must be older"),
        ({"cameras": {"a": changed(sensor2ego=np.eye(4) * 2), "b": changed()}}, "rigid 4x4 sensor2ego"),
        (
            {"cameras": {"a": changed(ego2global=np.diag([1.0, -1, 1, 1])), "b": changed()}},
            "rigid 4x4 ego2global",
        ),
        ({"cameras": {"a": changed(intrinsics=np.eye(3) * 5), "b": changed()}}, "last row 0 0 1"),
        ({"cameras": {"a": changed(width=0), "b": changed()}}, "size of its image, got 0x48"),
        ({"cameras": {"a": changed(file="/tmp/x.jpg"), "b": changed()}}, "within the data root and relative"),
        (
            {"cameras": {"a": changed(file="../../x.jpg"), "b": changed()}},
            "within the data root and relative",
        ),
        (
            {"cameras": {"a": changed(intrinsics=np.diag([np.inf, 5.0, 1.0])), "b": changed()}},
            "focal lengths above 0",
        ),
        (
            {"lidar": LidarFrame("l", 0, np.zeros((4, 4)), np.eye(4))},
            "lidar of key frame t1 must have a rigid",
        ),
    ],
)
def test_what_breaks_the_schema_is_named(tmp_path, changes, message):
    infos = [key_frame(0), dataclasses.replace(key_frame(1), **changes)]
    with pytest.raises(ValueError, match=message):
        save_rig(infos, tmp_path, version="own", split="train", files=False)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": np.array([[4.0, 0, 1]])}, "sizes above 0 m"),
        ({"rotations": np.array([[3.0, 0, 0, 0]])}, "quaternions of length 1"),
        ({"categories": ("forklift",)}, r"ten detection classes, got only others: \['forklift'\]"),
        ({"attributes": ()}, r"as many entries in each field .*, got \[0, 1\]"),
    ],
)
def test_boxes_that_cannot_be_are_named(changes, message):
    (problem,) = check_rig([key_frame(0, annotations=dataclasses.replace(BOX, **changes))])
    with pytest.raises(ValueError, match=message):
        raise ValueError(problem.message)


def test_files_are_read(tmp_path):
    with pytest.raises(ValueError, match=r"image .*a/0\.jpg is missing.*; the image .*b/0\.jpg"):
        save_rig([key_frame(0)], tmp_path, version="own", split="train")
    (tmp_path / "l.npy").write_bytes(b"no table")
    lidar = LidarFrame("l.npy", 0, np.eye(4), np.eye(4))
    problems = check_rig([key_frame(0, lidar=lidar)], tmp_path)
    assert any("a damaged one: " in problem.message for problem in problems)
    np.save(tmp_path / "l.npy", np.zeros((4, 2)))
    problems = check_rig([key_frame(0, lidar=lidar)], tmp_path)
    assert any("rows of x y z, got an array of (4, 2)" in problem.message for problem in problems)


def parked_cars(root, shift):
    """A key frame with twelve boxes whose lidar points lie on the lower part, as they do on cars."""
    rng = np.random.default_rng(0)
    centers = np.array([[10.0 + 6 * (i % 6), 4.0 * (1 - 2 * (i // 6)), 0.8] for i in range(12)])
    sizes = np.tile([4.5, 1.9, 1.6], (12, 1))
    inside = centers[:, None] + sizes[:, None] * rng.uniform(-0.49, 0.49, (12, 40, 3))
    (root / "lidar").mkdir(parents=True)
    np.save(root / "lidar" / "0.npy", inside.reshape(-1, 3).astype(np.float32))
    for name in ("a", "b"):
        (root / name).mkdir()
        Image.new("RGB", (64, 48)).save(root / name / "0.jpg")
    annotations = Annotations(
        tuple(f"b{i}" for i in range(12)),
        ("car",) * 12,
        centers + shift * sizes * [0, 0, 1],
        sizes,
        np.tile([1.0, 0, 0, 0], (12, 1)),
        np.zeros((12, 2)),
        np.full(12, 40),
        np.zeros(12, dtype=np.int64),
        ("",) * 12,
    )
    return key_frame(0, lidar=LidarFrame("lidar/0.npy", 0, np.eye(4), np.eye(4)), annotations=annotations)


def test_boxes_given_by_their_bottom_are_seen(tmp_path):
    assert not [p for p in check_rig([parked_cars(tmp_path / "x", 0.0)], tmp_path / "x") if p.kind == "box"]
    (problem,) = check_rig([parked_cars(tmp_path / "y", -0.5)], tmp_path / "y")
    assert "got 0 of 12" in problem.message
    assert "half their height up: are centres given that are the middle of the bottom?" in problem.message
