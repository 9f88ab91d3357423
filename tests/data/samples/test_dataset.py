"""Samples: matrices, history, boxes, chance, and what is said about files that cannot be used."""

import dataclasses
import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from bev_data.geometry import invert, matrix_to_quaternion, pose
from bev_data.infos.info import Annotations, CameraFrame, Info, LidarFrame
from bev_data.infos.infos import Infos, open_infos
from bev_data.samples.augment import augment_boxes
from bev_data.samples.batch import collate
from bev_data.samples.dataset import (
    BevAugmentation,
    DataQuirks,
    History,
    ImageAugmentation,
    KeyFrameDataset,
    SampleOptions,
)
from bev_data.samples.depth_files import write_depth_files
from bev_data.samples.history import history_frames
from bev_data.samples.lidar_depth import depth_points

SIZE = (32, 64)
NO_HISTORY = History(frames=0)


@pytest.fixture(scope="module")
def make(database, mini_val):
    def make_dataset(**settings):
        return KeyFrameDataset(mini_val, database, **{"image_size": SIZE, **settings})

    return make_dataset


def test_shapes_and_types(make):
    sample = make(history=History(frames=2))[2]
    t, n = 3, 2
    assert sample.images.shape == (t, n, 3, 32, 64)
    assert sample.images.dtype == torch.uint8
    assert sample.images.is_contiguous()
    for name, shape in {
        "sensor2keyego": (t, n, 4, 4),
        "key2sensor": (t, n, 4, 4),
        "intrinsics": (t, n, 3, 3),
        "image_aug": (t, n, 3, 3),
        "bev_aug": (4, 4),
        "lidar_depth": (n, 32, 64),
        "boxes": (3, 9),
    }.items():
        assert getattr(sample, name).shape == shape
        assert getattr(sample, name).dtype == torch.float32
    assert sample.labels.dtype == torch.int64
    assert sample.meta.token == "scene-0103-2"


def test_matrices_lead_from_camera_to_camera_through_the_map(make, mini_val):
    sample = make(history=History(frames=1))[1]
    info, before = mini_val[1], mini_val[0]
    for n, name in enumerate(mini_val.cameras):
        now, then = info.cameras[name], before.cameras[name]
        in_map = now.sensor2global @ [0.5, -0.2, 7, 1]
        expected = invert(then.sensor2global) @ in_map
        moved = sample.key2sensor[1, n].double().numpy() @ [0.5, -0.2, 7, 1]
        np.testing.assert_allclose(moved, expected, atol=1e-5)
        in_keyego = sample.sensor2keyego[1, n].double().numpy() @ expected
        np.testing.assert_allclose(in_keyego, invert(info.keyego2global) @ in_map, atol=1e-4)
    np.testing.assert_allclose(sample.key2sensor[0], np.broadcast_to(np.eye(4), (2, 4, 4)), atol=1e-6)


def test_only_boxes_of_classes_with_points_are_kept(make):
    dataset = make(history=NO_HISTORY)
    sample = dataset[1]
    assert [dataset.classes[label] for label in sample.labels] == ["car", "pedestrian", "traffic_cone"]
    some = make(history=NO_HISTORY, classes=("pedestrian", "car"))[1]
    assert some.labels.tolist() == [1, 0]
    everything = make(history=NO_HISTORY, options=SampleOptions(min_points=0))[1]
    assert len(everything.labels) == 4  # a bicycle without points joins; an animal is no class


def test_boxes_stand_where_the_annotations_are(make, mini_val):
    sample = make(history=NO_HISTORY)[1]
    center = sample.meta.keyego2global @ [*sample.boxes[0, :3].double().tolist(), 1]
    np.testing.assert_allclose(center[:3], mini_val[1].annotations.centers[0], atol=1e-4)
    heading = sample.meta.keyego2global[:2, :2] @ [np.cos(sample.boxes[0, 6]), np.sin(sample.boxes[0, 6])]
    assert np.arctan2(heading[1], heading[0]) == pytest.approx(0.5, abs=1e-6)
    velocity = sample.meta.keyego2global[:2, :2] @ sample.boxes[0, 7:].double().numpy()
    np.testing.assert_allclose(velocity, [2, 0], atol=1e-5)


def test_unknown_velocity_is_nan_or_zero_as_asked(make):
    assert make(history=NO_HISTORY)[3].boxes[:, 7:].isnan().all()
    zero = make(history=NO_HISTORY, quirks=DataQuirks(unknown_velocity="zero"))[3]
    assert (zero.boxes[:, 7:] == 0).all()


def test_lidar_depth_lands_where_the_matrices_say(make, mini_val, database):
    """A depth pixel, brought back into the camera by the sample's matrices, is a point of the sweep."""
    sample = make(history=NO_HISTORY, training=True, bev_aug=None)[1]
    points = depth_points(database, mini_val[1], mini_val.cameras)[0]
    v, u = np.nonzero(sample.lidar_depth[0].numpy())
    assert len(u) > 5
    to_input = sample.image_aug[0, 0].double().numpy()
    # A pixel reaches half a pixel to either side of its middle.
    projected = to_input[:2, :2] @ points[:, :2].T + to_input[:2, 2:] + 0.5
    for x, y in zip(u, v, strict=True):
        inside = (np.floor(projected[0] + 1e-3) == x) & (np.floor(projected[1] + 1e-3) == y)
        inside |= (np.floor(projected[0] - 1e-3) == x) & (np.floor(projected[1] - 1e-3) == y)
        assert sample.lidar_depth[0, y, x] == points[inside, 2].min()


def square_camera(database, mini_val, row):
    """Infos of one camera of 4:3 whose horizon lies in this row."""
    info = mini_val[1]
    frame = info.cameras["CAM_FRONT"]
    intrinsics = np.array([[60.0, 0, 31.5], [0, 60, row], [0, 0, 1]])
    level = pose([0.5, -0.5, 0.5, -0.5], [1.5, 0, 1.5])
    camera = dataclasses.replace(frame, sensor2ego=level, intrinsics=intrinsics)
    alone = dataclasses.replace(info, prev=None, cameras={"CAM_FRONT": camera}, sweeps=())
    return Infos.from_list([alone], version="own", split="all")


@pytest.mark.parametrize("training", [False, True])
def test_the_horizon_of_a_square_camera_is_in_every_sample(database, mini_val, training):
    infos = square_camera(database, mini_val, 24.0)
    dataset = KeyFrameDataset(
        infos, database, image_size=(64, 192), history=NO_HISTORY, training=training, lidar_depth=False
    )
    for epoch in range(10):
        dataset.set_epoch(epoch)
        horizon = dataset[0].image_aug[0, 0].double().numpy() @ [31.5, 24.0, 1]
        assert 0 <= horizon[1] < 32


@pytest.mark.parametrize(("row", "crop"), [(24.0, "published"), (-20.0, "horizon")])
def test_a_camera_whose_horizon_is_cut_off_is_named(database, mini_val, row, crop):
    infos = square_camera(database, mini_val, row)
    with pytest.warns(UserWarning, match=r"CAM_FRONT .* 64x192 pixels, got row -\d+.*show --input"):
        KeyFrameDataset(
            infos, database, image_size=(64, 192), history=NO_HISTORY, quirks=DataQuirks(crop=crop)
        )


def test_depth_from_files_is_depth_from_lidar(write_database, tmp_path):
    root = write_database(tmp_path / "d", scenes={"scene-0103": 1})
    infos = open_infos(root, "v1.0-mini", "mini_val", progress=False)
    write_depth_files(root, infos, progress=False)
    settings = {"image_size": SIZE, "training": True}
    files = KeyFrameDataset(infos, root, **settings, options=SampleOptions(depth_source="files"))[0]
    computed = KeyFrameDataset(infos, root, **settings)[0]
    assert torch.equal(files.lidar_depth, computed.lidar_depth)
    (root / "samples" / "LIDAR_TOP" / "scene-0103-LIDAR_TOP-0.pcd.bin").unlink()
    assert KeyFrameDataset(infos, root, image_size=SIZE, lidar_depth=False)[0].lidar_depth is None
    with pytest.raises(FileNotFoundError, match=r"LIDAR_TOP-0\.pcd\.bin is missing.*lidar_depth"):
        KeyFrameDataset(infos, root, image_size=SIZE)[0]


class TestHistory:
    def frames(self, infos, index, **settings):
        history = History(**settings)
        frames = history_frames(infos, infos[index], history, infos.cameras)
        return [frame["CAM_FRONT"].file.split("-")[-1].removesuffix(".jpg") for frame in frames]

    def test_key_frames(self, mini_val):
        assert self.frames(mini_val, 2, frames=2) == ["6", "3", "0"]
        assert self.frames(mini_val, 2, frames=1, stride=2) == ["6", "0"]
        assert self.frames(mini_val, 1, frames=2) == ["3", "0", "0"]
        assert self.frames(mini_val, 0, frames=2) == ["0", "0", "0"]
        assert self.frames(mini_val, 3, frames=1) == ["0", "0"]  # another scene begins

    def test_sweeps(self, mini_val):
        assert self.frames(mini_val, 2, source="sweeps", frames=2, stride=2) == ["6", "4", "2"]
        assert self.frames(mini_val, 1, source="sweeps", frames=1, stride=5) == ["3", "0"]
        assert self.frames(mini_val, 0, source="sweeps", frames=1, stride=5) == ["0", "0"]

    @pytest.mark.parametrize(
        ("case", "lengths"),
        [("all", [6, 6]), ("miss4", [6, 4]), ("miss43", [6, 3]), ("short", [3, 3])],
    )
    def test_the_published_choice_of_sweeps(self, goldens, case, lengths):
        def camera(stamp):
            return CameraFrame("x.jpg", stamp, np.eye(4), np.eye(4), np.eye(3), 10, 10)

        stamps = goldens.arrays[f"ds.sweep4_{case}.timestamps"]
        key = int(stamps[0, 0])
        sweeps = []
        for i in range(max(lengths)):
            present = {"whole": lengths[0] > i, "gappy": lengths[1] > i}
            sweeps.append({name: camera(key - (i + 1) * 83_333) for name, there in present.items() if there})
        cameras = {"whole": camera(key), "gappy": camera(key)}
        info = Info("t", "s", key, None, cameras, tuple(sweeps), None, Annotations.empty())
        infos = Infos.from_list([info], version="v", split="s")
        frames = history_frames(infos, infos[0], History("sweeps", stride=5), infos.cameras)
        assert frames[1]["gappy"].timestamp == pytest.approx(int(stamps[1, 0]), abs=10)

    def test_incomplete_key_frames_are_dropped_if_asked(self, make):
        assert len(make(history=History(frames=1))) == 4
        dropped = make(history=History(frames=1, missing="drop"))
        assert [dropped[i].meta.token for i in range(len(dropped))] == ["scene-0103-1", "scene-0103-2"]
        sweeps = make(history=History("sweeps", frames=2, stride=2, missing="drop"))
        assert [sweeps[i].meta.token for i in range(len(sweeps))] == ["scene-0103-2"]

    def test_too_much_history_is_refused(self, make):
        with pytest.raises(ValueError, match="no key frame of split mini_val has 3 frames of history"):
            make(history=History(frames=3, missing="drop"))
        with pytest.raises(
            ValueError, match=r"must be at most 6, .*, got 10; collect more with `bev-data infos --sweeps 10`"
        ):
            make(history=History("sweeps", frames=2, stride=5))

    @pytest.mark.usefixtures("unchecked_shapes")
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"source": "video"}, "'key_frames' or 'sweeps', got 'video'"),
            ({"frames": -1}, "0 or more, got -1"),
            ({"stride": 0}, "1 or more, got 0"),
            ({"missing": "skip"}, "'repeat' or 'drop', got 'skip'"),
        ],
    )
    def test_settings_are_checked(self, settings, message):
        with pytest.raises(ValueError, match=message):
            History(**settings)


class TestChance:
    def test_evaluation_has_none(self, make):
        dataset = make(history=NO_HISTORY)
        first = dataset[0]
        dataset.set_epoch(5)
        assert torch.equal(first.images, dataset[0].images)
        assert torch.equal(first.bev_aug, torch.eye(4))

    def test_seed_epoch_and_index_decide(self, make):
        dataset = make(history=NO_HISTORY, training=True)
        first = dataset[0]
        assert torch.equal(first.images, dataset[0].images)
        assert not torch.equal(first.bev_aug, dataset[1].bev_aug)
        dataset.set_epoch(1)
        assert not torch.equal(first.bev_aug, dataset[0].bev_aug)
        dataset.set_epoch(0)
        assert torch.equal(first.bev_aug, dataset[0].bev_aug)
        assert not torch.equal(first.bev_aug, make(history=NO_HISTORY, training=True, seed=1)[0].bev_aug)
        assert not torch.equal(first.image_aug, dataset.draw(0, repetition=1).image_aug)

    def test_workers_that_live_on_follow_the_epoch(self, make):
        dataset = make(history=NO_HISTORY, training=True, lidar_depth=False)
        context = multiprocessing.get_context("forkserver")
        loader = DataLoader(
            dataset,
            2,
            collate_fn=collate,
            num_workers=1,
            persistent_workers=True,
            multiprocessing_context=context,
        )
        for epoch in (0, 1):
            dataset.set_epoch(epoch)
            loaded = torch.cat([batch.bev_aug for batch in loader])
            expected = torch.stack([dataset[i].bev_aug for i in range(len(dataset))])
            assert torch.equal(loaded, expected)

    def test_boxes_follow_the_bev_augmentation(self, make):
        plain, augmented = make(history=NO_HISTORY)[1], make(history=NO_HISTORY, training=True)[1]
        expected = augment_boxes(plain.boxes.double().numpy(), augmented.bev_aug.double().numpy())
        np.testing.assert_allclose(augmented.boxes, expected, atol=1e-4)

    def test_one_draw_for_all_frames_of_a_camera(self, make):
        sample = make(history=History(frames=1), training=True)[1]
        assert torch.equal(sample.image_aug[0], sample.image_aug[1])
        assert not torch.equal(sample.image_aug[0, 0, :, 2], sample.image_aug[0, 1, :, 2])

    def test_augmentations_can_be_left_out(self, make):
        sample = make(history=NO_HISTORY, training=True, image_aug=None, bev_aug=None)[1]
        assert torch.equal(sample.image_aug, make(history=NO_HISTORY)[1].image_aug)
        assert torch.equal(sample.bev_aug, torch.eye(4))
        make(history=NO_HISTORY, training=True, image_aug=ImageAugmentation(), bev_aug=BevAugmentation())[1]


@pytest.fixture(scope="module")
def image_root(tmp_path_factory):
    """A folder with one black image of the size of nuScenes."""
    root = tmp_path_factory.mktemp("images")
    Image.new("RGB", (1600, 900)).save(root / "black.png")
    return root


class TestPublished:
    """Dataset items of one real rig, as the published code makes them."""

    CASES = ("eval_2key_first", "eval_2key_moved", "eval_2key_other_scene", "eval_key4")
    CAMERAS = (
        "CAM_FRONT_LEFT",
        "CAM_FRONT",
        "CAM_FRONT_RIGHT",
        "CAM_BACK_LEFT",
        "CAM_BACK",
        "CAM_BACK_RIGHT",
    )

    def dataset(self, goldens, case, root):
        """Key frame of the known rig, and a frame before it whose poses follow from the golden matrices."""
        spec, golden = goldens.json("gen_depth"), goldens.arrays
        now, before = {}, {}
        for n, name in enumerate(self.CAMERAS):
            camera = spec["cams"][name]
            sensor2ego = pose(camera["cs"]["rotation"], camera["cs"]["translation"])
            ego2global = pose(camera["ego"]["rotation"], camera["ego"]["translation"])
            intrinsics = np.array(camera["cs"]["camera_intrinsic"])
            now[name] = CameraFrame("black.png", 1, sensor2ego, ego2global, intrinsics, 1600, 900)
            earlier = golden[f"ds.{case}.sensor2ego"][1, n].astype(np.float64)
            before[name] = dataclasses.replace(
                now[name], ego2global=ego2global @ earlier @ invert(sensor2ego)
            )
        lidar = LidarFrame("l.bin", 1, pose(**spec["lidar_cs"]), pose(**spec["lidar_ego"]))
        infos = [
            Info("a", "s", 0, None, before, (), None, Annotations.empty()),
            Info("b", "s", 1, 0, now, (), lidar, Annotations.empty()),
        ]
        return KeyFrameDataset(
            Infos.from_list(infos, version="v", split="s"),
            root,
            image_size=(256, 704),
            lidar_depth=False,
            quirks=DataQuirks(keyego="published", pixels="published", crop="published"),
        )

    @pytest.mark.parametrize("case", CASES)
    def test_matrices(self, goldens, image_root, case):
        sample = self.dataset(goldens, case, image_root)[1]
        golden = {
            name: goldens.arrays[f"ds.{case}.{name}"]
            for name in ("sensor2ego", "sensor2sensor", "intrin", "ida")
        }
        # The published matrices are products and inverses in float32 of positions around 1000 m.
        np.testing.assert_allclose(sample.sensor2keyego, golden["sensor2ego"], atol=5e-4)
        np.testing.assert_allclose(sample.key2sensor, golden["sensor2sensor"], atol=1e-3)
        np.testing.assert_allclose(sample.intrinsics, golden["intrin"][..., :3, :3], rtol=1e-6)
        np.testing.assert_allclose(sample.image_aug[..., :2, :2], golden["ida"][..., :2, :2], atol=1e-6)
        np.testing.assert_allclose(sample.image_aug[..., :2, 2], golden["ida"][..., :2, 3], atol=1e-4)

    def test_mean_ego_pose(self, goldens, image_root):
        keyego2global = self.dataset(goldens, "eval_2key_first", image_root)[1].meta.keyego2global
        rotation = goldens.arrays["ds.eval_2key_first.meta_rot"]
        rotation = rotation / np.linalg.norm(rotation) * np.sign(rotation[0])
        np.testing.assert_allclose(
            keyego2global[:3, 3], goldens.arrays["ds.eval_2key_first.meta_trans"], atol=1e-9
        )
        np.testing.assert_allclose(matrix_to_quaternion(keyego2global[:3, :3]), rotation, atol=1e-9)

    def test_boxes_of_a_training_sample(self, goldens):
        plain, augmented = (
            goldens.arrays[f"ds.{case}.gt_boxes"] for case in ("upstream_test", "train_2key_seed0")
        )
        matrix = goldens.arrays["ds.train_2key_seed0.bda"].astype(np.float64)
        difference = augment_boxes(plain, matrix) - augmented
        difference[:, 6] = (difference[:, 6] + np.pi) % (2 * np.pi) - np.pi
        np.testing.assert_allclose(difference, 0, atol=2e-5)  # float32, up to 60 m


class TestRigs:
    @pytest.mark.parametrize(
        "sizes", [[(64, 48)], [(64, 48), (96, 40), (40, 80), (64, 48), (33, 31), (70, 50), (64, 64)]]
    )
    def test_any_number_of_cameras_of_any_size(self, write_database, tmp_path, sizes):
        cameras = {f"cam{i}": (*size, 40.0 * i) for i, size in enumerate(sizes)}
        root = write_database(tmp_path / "d", cameras=cameras, scenes={"scene-0103": 2})
        infos = open_infos(root, "v1.0-mini", "mini_val", progress=False)
        sample = KeyFrameDataset(infos, root, image_size=SIZE, training=True)[1]
        assert sample.images.shape == (2, len(sizes), 3, *SIZE)

    def test_some_of_the_cameras(self, make):
        sample = make(cameras=["CAM_BACK"])[1]
        both = make()[1]
        assert torch.equal(sample.images[:, 0], both.images[:, 1])
        assert torch.equal(sample.lidar_depth[0], both.lidar_depth[1])


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"image_size": (30, 64)}, r"multiples of 32 pixels, got \(30, 64\)"),
            ({"image_size": (0, 64)}, "multiples of 32 pixels"),
            ({"classes": ("car", "tank")}, r"different ones of car, .*, got \['car', 'tank'\]"),
            ({"classes": ()}, "different ones of"),
            ({"cameras": ["CAM_TOP"]}, r"some of CAM_FRONT, CAM_BACK, got \['CAM_TOP'\]"),
        ],
    )
    def test_settings(self, make, settings, message):
        with pytest.raises(ValueError, match=message):
            make(**settings)

    @pytest.mark.usefixtures("unchecked_shapes")
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (lambda: DataQuirks(keyego="camera"), "keyego must be one of lidar, published, got 'camera'"),
            (lambda: DataQuirks(depth_rule="last"), "depth_rule must be one of nearest, published"),
            (lambda: SampleOptions(decoding="slow"), "decoding must be one of fast, exact, got 'slow'"),
            (lambda: SampleOptions(min_points=-1), "min_points must be 0 or more, got -1"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            options()

    def test_images_that_cannot_be_used_are_named(self, write_database, tmp_path):
        root = write_database(tmp_path / "d", scenes={"scene-0103": 1})
        infos = open_infos(root, "v1.0-mini", "mini_val", progress=False)
        dataset = KeyFrameDataset(infos, root, image_size=SIZE, history=NO_HISTORY)
        path = root / infos[0].cameras["CAM_BACK"].file
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"damaged file: .*{path.name}"):
            dataset[0]
        path.write_bytes(b"not an image")
        with pytest.raises(ValueError, match=f"damaged file: .*{path.name}"):
            dataset[0]
        Image.new("RGB", (10, 10)).save(path)
        with pytest.raises(ValueError, match=f"80x40 pixels .*, got 10x10: .*{path.name}"):
            dataset[0]
        path.unlink()
        with pytest.raises(FileNotFoundError, match=f"image .*{path.name} is missing"):
            dataset[0]


def test_collate_refuses_a_mixture(make):
    sample = make(history=NO_HISTORY)[0]
    assert collate([sample, sample]).lidar_depth.shape == (2, 2, *SIZE)
    assert collate([sample._replace(lidar_depth=None)]).lidar_depth is None
    with pytest.raises(ValueError, match=r"or none, got none for \['scene-0103-0'\]"):
        collate([sample, sample._replace(lidar_depth=None)])
    with pytest.raises(ValueError, match="at least one sample"):
        collate([])
