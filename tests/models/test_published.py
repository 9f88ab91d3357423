"""Published checkpoints: names both ways, files as they are, strictness."""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from bev_models import PUBLISHED, Detector, DetectorConfig, build_detector, build_published, load_weights
from bev_models.config import config_from_dict
from bev_models.published import DERIVED, ours_to_published, published_to_ours, to_published
from bev_models.weights import read_file, recognise

from . import recipe, tiny

EXPERIMENT = "bev_stereo_lss_r50_256x704_128x128_24e_2key"


def explode(reason: str) -> None:
    """Fail."""
    pytest.fail(reason)


class Surprise:
    """Fails where it is unpickled."""

    def __reduce__(self) -> Any:
        return explode, ("code of the file was run",)


class Settings(dict[str, Any]):
    """As Lightning keeps hyper-parameters."""


@pytest.fixture(scope="module")
def published(golden_json: Callable[[str], Any]) -> dict[str, Tensor]:
    """State dict of a published checkpoint of the small configuration, by its own names and shapes."""
    keys = golden_json("keys_small_2key")
    names = {key.removeprefix("model.") for key, _, _ in keys}
    state = {}
    for key, shape, dtype in keys:
        short = key.removeprefix("model.")
        value = (
            torch.zeros(shape) if short in DERIVED else torch.from_numpy(recipe.weight(short, shape, names))
        )
        state[f"model.{short}"] = value.reshape(shape).to(getattr(torch, dtype))
    return state


@pytest.fixture(scope="module")
def expected(golden_json: Callable[[str], Any]) -> Detector:
    """The small detector with the weights that `published` holds."""
    detector = build_detector(recipe.small_config())
    recipe.fill(detector, golden_json("keys_small_2key"))
    return detector


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["keys_2key", "keys_2key_da", "keys_small_2key_da"])
def test_every_name_goes_there_and_back(name: str, golden_json: Callable[[str], Any]):
    keys = [key.removeprefix("model.") for key, _, _ in golden_json(name)]
    ours = {key: published_to_ours(key) for key in keys if key not in DERIVED}
    assert len(set(ours.values())) == len(keys) - len(DERIVED)
    assert all(ours_to_published(str(mine)) == key for key, mine in ours.items())


@pytest.mark.parametrize("name", ["keys_2key", "keys_2key_da"])
def test_what_we_write_has_the_published_names_shapes_and_types(name: str, golden_json: Callable[[str], Any]):
    experiment = EXPERIMENT if name == "keys_2key" else "bev_stereo_lss_r50_256x704_128x128_20e_cbgs_2key_da"
    with torch.device("meta"):
        detector = build_published(experiment)
    written = to_published(detector.state_dict(), detector.config)
    found = {
        key: (list(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in written.items()
    }
    assert found == {key: (shape, dtype) for key, shape, dtype in golden_json(name)}


@pytest.mark.parametrize("variant", ["2key", "2key_da"])
@pytest.mark.slow
def test_published_detectors_take_their_weights_and_run(variant: str, golden_json: Callable[[str], Any]):
    """Six cameras, both frames, 256 x 704, weights by formula under the published names."""
    names = {"2key": EXPERIMENT, "2key_da": "bev_stereo_lss_r50_256x704_128x128_20e_cbgs_2key_da"}
    detector = build_published(names[variant]).eval().to(memory_format=torch.channels_last)
    recipe.fill(detector, golden_json(f"keys_{variant}"))
    cameras = tiny.rig(cameras=6)
    intrinsics = torch.tensor([[560.0, 0, 352], [0, 560, 90], [0, 0, 1]]).expand(1, 2, 6, 3, 3)
    with torch.no_grad():
        found = detector(recipe.images(1, 256, 704), cameras._replace(intrinsics=intrinsics))
    assert found.depth_probs.shape == (1, 6, 112, 16, 44)
    torch.testing.assert_close(found.depth_probs.sum(2), torch.ones(1, 6, 16, 44))
    assert len(found.tasks) == 6
    assert all(x.shape[2:] == (128, 128) and x.isfinite().all() for maps in found.tasks for x in maps)
    assert len(detector.decode(found)[0].boxes) > 0


def test_buffers_that_repeat_settings():
    with torch.device("meta"):
        detector = build_published(EXPERIMENT)
    written = to_published(detector.state_dict(), detector.config)
    assert written["model.backbone.voxel_size"].tolist() == pytest.approx([0.8, 0.8, 8])
    assert written["model.backbone.voxel_coord"].tolist() == pytest.approx([-50.8, -50.8, -1])
    assert written["model.backbone.voxel_num"].tolist() == [128, 128, 1]
    assert written["model.backbone.k_list"].tolist() == pytest.approx([-1.71474505, 0, 1.71474505])
    frustum = written["model.backbone.frustum"]
    assert frustum[0, 0, 0].tolist() == [0, 0, 2, 1]
    assert frustum[-1, -1, -1].tolist() == [703, 255, 57.5, 1]


@pytest.mark.parametrize("layout", ["bare", "moving average", "lightning", "data parallel", "safetensors"])
def test_a_published_file_is_taken_as_it_is(
    layout: str, published: dict[str, Tensor], expected: Detector, tmp_path: pathlib.Path
):
    path = tmp_path / ("weights.safetensors" if layout == "safetensors" else "weights.pth")
    if layout == "safetensors":
        safetensors.torch.save_file(published, path)
    else:
        content: dict[str, Any] = {"state_dict": published}
        if layout == "bare":
            content = published
        elif layout == "moving average":
            content |= {"epoch": 23, "global_step": 42000}
        elif layout == "lightning":
            content |= {
                "pytorch-lightning_version": "1.6.0",
                "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
                "hyper_parameters": Settings(
                    args=argparse.Namespace(gpus=8), root=pathlib.PurePosixPath("/data")
                ),
                "callbacks": {Settings: {"best": torch.tensor(1.0)}},
                "surprise": Surprise(),
            }
        else:
            content = {"state_dict": {key.removeprefix("model."): value for key, value in published.items()}}
        torch.save(content, path)
    detector = build_detector(recipe.small_config())
    load_weights(detector, path)
    assert same(detector.state_dict(), expected.state_dict())


def test_there_and_back_through_files(
    published: dict[str, Tensor], expected: Detector, tmp_path: pathlib.Path
):
    written = to_published(expected.state_dict(), expected.config, (64, 192))
    learned = [key for key in published if key.removeprefix("model.") not in DERIVED]
    assert written.keys() == published.keys()
    assert all(torch.equal(written[key], published[key]) for key in learned)
    torch.save({"state_dict": written}, tmp_path / "back.pth")
    detector = build_detector(recipe.small_config())
    load_weights(detector, tmp_path / "back.pth")
    assert same(detector.state_dict(), expected.state_dict())


@pytest.mark.parametrize("prefix", ["", "detector."])
def test_our_own_files(prefix: str, tmp_path: pathlib.Path):
    source, target = tiny.detector(seed=0), tiny.detector(seed=1)
    torch.save({prefix + key: value for key, value in source.state_dict().items()}, tmp_path / "ours.pth")
    load_weights(target, tmp_path / "ours.pth")
    assert same(target.state_dict(), source.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.head.shared_conv.conv.weight"), r"lack head\.shared\.0\.weight \("),
        (
            lambda state: state.update({"model.backbone.extra.weight": torch.zeros(1)}),
            r"have besides model\.backbone\.extra\.weight",
        ),
        (
            lambda state: state.update({"model.backbone.mask_net.0.bias": torch.zeros(7)}),
            r"have in another shape stereo\.mask_net\.0\.bias \[7\] for \[64\]",
        ),
        (
            lambda state: [state.pop(key) for key in list(state) if ".mono_depth_net." in key],
            r"lack depth_net\.mono_head\..* and 9 more",
        ),
    ],
)
def test_weights_that_do_not_fit_are_listed_and_nothing_is_loaded(
    change: Callable[[dict[str, Tensor]], object],
    message: str,
    published: dict[str, Tensor],
    tmp_path: pathlib.Path,
):
    state = dict(published)
    change(state)
    torch.save({"state_dict": state}, tmp_path / "wrong.pth")
    detector = build_detector(recipe.small_config())
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(detector, tmp_path / "wrong.pth")
    assert same(detector.state_dict(), before)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"no weights", "must be a whole file of torch.save or safetensors"),
        ("a.safetensors", b"no weights", "must be a whole file of torch.save or safetensors"),
    ],
)
def test_files_of_something_else(name: str, content: bytes, message: str, tmp_path: pathlib.Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_file(tmp_path / name)


def test_files_without_weights(tmp_path: pathlib.Path):
    torch.save({"state_dict": {"a": 3}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="must be tensors by name, got something else"):
        read_file(tmp_path / "a.pth")
    with pytest.raises(FileNotFoundError, match=r"must be a file, none at .*b\.pth"):
        read_file(tmp_path / "b.pth")


def test_experiments_are_told_apart_by_their_weights():
    assert len(PUBLISHED) == 7
    for name, config in PUBLISHED.items():
        with torch.device("meta"):
            state = build_published(name).state_dict()
        assert recognise(state) == config
    with pytest.raises(ValueError, match="have in another shape"):
        recognise(tiny.detector().state_dict())
    with pytest.raises(ValueError, match="must be one of bev_stereo_lss_r50"):
        build_published("bev_stereo")


def test_a_configuration_survives_json():
    for config in (DetectorConfig(), recipe.small_config(), tiny.config(stereo=False)):
        assert config_from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
