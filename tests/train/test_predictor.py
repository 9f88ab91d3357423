"""From images and calibrations to boxes: as the evaluation sees them, and one moment after the other."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bev_data import History, KeyFrameDataset, collate, open_infos
from bev_models import (
    BEVEncoderConfig,
    BEVGrid,
    Cameras,
    DepthBins,
    DepthNetConfig,
    DetectorConfig,
    HeadConfig,
    ImageEncoderConfig,
    StereoConfig,
    build_detector,
)
from bev_train import Calibration, Moment, Predictor

README = Path(__file__).parents[2] / "README.md"
SIZE = (32, 64)
NAMES = ("front", "back")


def detector(frames=2, **changes):
    """A tiny detector with random weights, the same each time."""
    torch.manual_seed(0)
    settings = {
        "image": ImageEncoderConfig(depth=18, width=8, frozen_stem=False, neck_channels=8),
        "depth_net": DepthNetConfig(DepthBins(2, 26, 2), mid_channels=16, context_channels=8),
        "stereo": StereoConfig((2.0, 10.0, 26.0), iterations=2, mask_channels=8, downsample_channels=8),
        "bev": BEVEncoderConfig(BEVGrid((-25.6, 25.6, 3.2), (-25.6, 25.6, 3.2)), channels=8, neck_channels=8),
        "head": HeadConfig(channels=8, score_threshold=0.01, max_boxes=5),
    }
    return build_detector(DetectorConfig(frames=frames, **settings | changes))


def rig():
    """Two cameras 1.5 m above the ground, one looking ahead and one back."""
    ahead = np.array([[0, 0, 1, 1.0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    back = np.diag([-1.0, -1, 1, 1]) @ ahead
    intrinsics = np.array([[60.0, 0, 63.5], [0, 60, 39.5], [0, 0, 1]])
    return {name: Calibration(intrinsics, pose) for name, pose in zip(NAMES, (ahead, back), strict=True)}


def pose(step, slip=0.0):
    matrix = np.eye(4)
    matrix[0, 3] = 0.7 * step + slip
    return matrix


def pictures(step):
    rng = np.random.default_rng(step)
    return {name: rng.integers(0, 256, (80, 128, 3), dtype=np.uint8) for name in NAMES}


def same(one, other):
    assert len(one.boxes) > 3
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.names == other.names
    for name in NAMES:
        np.testing.assert_array_equal(one.depth[name], other.depth[name])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_boxes_are_those_of_evaluation(world):
    """The same key frame through the dataset and through files, calibrations and poses."""
    model = detector().eval()
    infos = open_infos(world, "v1.0-mini", "mini_val")
    dataset = KeyFrameDataset(infos, world, image_size=SIZE, history=History(), lidar_depth=False)
    batch = collate([dataset[1]])
    with torch.no_grad():
        matrices = (batch.sensor2keyego, batch.key2sensor, batch.intrinsics, batch.image_aug, batch.bev_aug)
        predictions = model(model.normalize(batch.images), Cameras(*matrices))
    (expected,) = model.decode(predictions)
    info = infos[1]
    cameras = {name: Calibration(c.intrinsics, c.sensor2ego) for name, c in info.cameras.items()}

    def moment(frames):
        images = {name: world / frame.file for name, frame in frames.items()}
        return Moment(images, {name: frame.ego2global for name, frame in frames.items()})

    predictor = Predictor(model, SIZE, cameras)
    before = moment(infos[info.prev].cameras)
    found = predictor.predict(moment(info.cameras), [before], info.keyego2global)
    assert len(found.boxes) > 3
    np.testing.assert_array_equal(found.boxes, expected.boxes.numpy())
    assert found.names == [model.class_names[label] for label in expected.labels]
    depth = model.expected_depth(predictions.depth_probs)[0].numpy()
    np.testing.assert_array_equal(found.depth[next(iter(cameras))], depth[0])
    # The frame before in a step of its own; cameras expose one after the other, so the net is told anew.
    predictor.step(before.images, 0.0, before.ego2global, infos[info.prev].keyego2global)
    again = predictor.step(*(moment(info.cameras)[0], 0.5, moment(info.cameras)[1]), info.keyego2global)
    np.testing.assert_array_equal(again.boxes, found.boxes)


@pytest.mark.parametrize(
    ("frames", "stride", "changes"),
    [(1, 1, {"stereo": None}), (2, 1, {}), (3, 2, {}), (2, 5, {"stereo": None})],
)
def test_steps_give_the_numbers_of_the_batch_path(frames, stride, changes):
    predictor = Predictor(detector(frames, **changes), SIZE, rig(), stride=stride)
    seen = []
    calls = []
    predictor.detector.image_backbone.register_forward_hook(lambda *_: calls.append(1))
    for step in range(stride * (frames - 1) + 2):
        key = Moment(pictures(step), pose(step))
        calls.clear()
        found = predictor.step(*key[:1], 0.1 * step, key.ego2global)
        assert len(calls) == 1
        places = [min(j * stride, len(seen)) for j in range(1, frames)]
        history = [seen[-place] if place else key for place in places]
        same(found, predictor.predict(key, history))
        seen.append(key)


def test_a_gap_and_a_reset_begin_anew():
    predictor = Predictor(detector(), SIZE, rig(), max_gap=0.5)
    predictor.step(pictures(0), 0.0, pose(0))
    same(predictor.step(pictures(1), 0.6, pose(1)), predictor.predict(Moment(pictures(1), pose(1))))
    with pytest.raises(
        ValueError, match=r"time must rise from step to step, got 0.1 s after 0.6 s; call reset"
    ):
        predictor.step(pictures(2), 0.1, pose(2))
    predictor.reset()
    same(predictor.step(pictures(2), 0.1, pose(2)), predictor.predict(Moment(pictures(2), pose(2))))


def test_a_camera_that_failed_shows_what_it_showed_last():
    predictor = Predictor(detector(), SIZE, rig())
    predictor.step(pictures(0), 0.0, pose(0))
    failed = {"front": pictures(1)["front"], "back": None}
    found = predictor.step(failed, 0.1, pose(1))
    # As if it had been exposed then, from there.
    seen = Moment(
        {"front": pictures(1)["front"], "back": pictures(0)["back"]}, {"front": pose(1), "back": pose(0)}
    )
    same(found, predictor.predict(seen, [Moment(pictures(0), pose(0))]))
    black = {"front": pictures(1)["front"], "back": np.zeros((80, 128, 3), np.uint8)}
    predictor.reset()
    first = predictor.step(failed, 0.2, pose(1))
    same(first, predictor.predict(Moment(black, pose(1))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (30, 64)}, "image_size must be .* multiples of 32 pixels, got"),
        ({"stride": 0}, "stride must be at least 1 moment, got 0"),
        ({"max_gap": 0.0}, "max_gap must be above 0 s, got 0.0"),
        ({"cameras": {}}, "cameras must hold at least one calibration"),
        (
            {"cameras": {"front": Calibration(np.eye(3), np.zeros((4, 4)))}},
            "sensor2ego of front must be a rigid",
        ),
        (
            {"cameras": {"front": Calibration(np.zeros((3, 3)), np.eye(4))}},
            "intrinsics of front must be 3x3 with",
        ),
    ],
)
def test_wrong_settings(change, message):
    settings = {"image_size": SIZE, "cameras": rig()} | change
    with pytest.raises(ValueError, match=message):
        Predictor(detector(), **settings)


@pytest.mark.parametrize(
    ("images", "ego2global", "message"),
    [
        ({"left": None}, np.eye(4), r"images must be of the cameras \['front', 'back'\], got \['left'\]"),
        ({"front": np.zeros((4, 4), np.uint8)}, np.eye(4), "image of front must be RGB bytes"),
        ({"front": "nowhere.jpg"}, np.eye(4), "image of front must be a file, none at nowhere.jpg"),
        ({"front": __file__}, np.eye(4), "image of front must be whole, got"),
        ({}, np.eye(3), "ego2global must be a rigid 4x4 matrix"),
        ({}, {"front": np.eye(4)}, "ego2global must have a pose for each camera, got none for back"),
    ],
)
def test_wrong_moments(images, ego2global, message):
    predictor = Predictor(detector(), SIZE, rig())
    with pytest.raises(ValueError, match=message):
        predictor.step(images, 0.0, ego2global)


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"^```python\n(import numpy.*?)^```$", README.read_text(), re.DOTALL | re.M)
    model = detector()
    checkpoint = tmp_path / "outputs" / "my" / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    state = {f"detector.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "detector": dataclasses.asdict(model.config)}, checkpoint)
    for i in range(3):
        Image.new("RGB", (1600, 900), (90, 110, 10 * i)).save(tmp_path / f"front_{i}.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    assert len(re.findall(r"m/s$", capsys.readouterr().out, re.M)) >= 3
