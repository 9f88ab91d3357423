"""Mixed precision, memory layout, compilation: the same numbers, within what each can keep."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bev_models import DepthBins, DetectionLoss, Detector, Quirks, build_detector

from . import recipe, tiny
from .parity import goldens_of

HALVES = [torch.bfloat16, torch.float16]


def flat(predictions: Any) -> list[Tensor]:
    """All tensors of predictions."""
    return [*(x for maps in predictions.tasks for x in maps), predictions.depth_probs]


@pytest.fixture(scope="module")
def small(golden_json: Callable[[str], Any]) -> Detector:
    """The detector of the reference values, whose depths are sharp: probabilities reach 0.9."""
    detector = build_detector(recipe.small_config()).eval()
    recipe.fill(detector, golden_json("keys_small_2key"))
    return detector


@pytest.mark.parametrize("dtype", HALVES)
def test_depth_under_autocast_is_that_of_float32(small: Detector, dtype: torch.dtype):
    """Within 0.02; the search through noise images amplifies any rounding in a cell of a thousand."""
    images, cameras = recipe.images(), recipe.cameras(goldens_of("2key"))
    with torch.no_grad():
        exact = small(images, cameras)
        with torch.autocast("cpu", dtype=dtype):
            found = small(images, cameras)
    assert (found.mono_depth_probs - exact.mono_depth_probs).abs().max() < 2e-2
    off = (found.depth_probs - exact.depth_probs).abs().flatten()
    assert off.quantile(0.998) < 2e-2
    assert off.mean() < 1e-3
    assert all(x.isfinite().all() and x.dtype == torch.float32 for x in flat(found))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("quirks", ["published", Quirks()], ids=["published", "right"])
def test_wide_images_and_far_points_stay_finite_and_in_place(quirks: Any, dtype: torch.dtype):
    """1600 px times 58 m is more than float16 holds, and bfloat16 knows no pixel beyond 256."""
    model = tiny.detector(bins=DepthBins(2, 58, 0.5), ranges=(2, 8, 16, 28, 58), quirks=quirks).eval()
    cameras = tiny.rig()
    intrinsics = torch.tensor([[1266.0, 0, 816], [0, 1266, 32], [0, 0, 1]])
    cameras = cameras._replace(intrinsics=intrinsics.expand(1, 2, 2, 3, 3))
    images = tiny.images(size=(32, 1600))
    lifted: list[Tensor] = []
    model.view_transform.register_forward_hook(lambda _, inputs, output: lifted.extend([inputs[2], output]))
    with torch.no_grad():
        exact = model(images, cameras)
        with torch.autocast("cpu", dtype=dtype):
            found = model(images, cameras)
    assert all(x.isfinite().all() for x in flat(found))
    assert (found.depth_probs - exact.depth_probs).abs().max() < 2e-2
    assert torch.equal(lifted[0], lifted[4])
    assert lifted[0].dtype == torch.float32
    assert (lifted[5] - lifted[1]).norm() < 2e-2 * lifted[1].norm()


def test_geometry_warping_loss_and_head_stay_in_float32_under_autocast():
    model = tiny.detector().train()
    seen: dict[str, list[torch.dtype]] = {}
    watched = (
        "image_backbone.layer1",
        "stereo.similarity_net",
        "view_transform",
        "bev_encoder.trunk",
        "head",
    )
    for name in watched:

        def note(_: Any, inputs: tuple[Any, ...], output: Any, name: str = name) -> None:
            values = [*inputs, *(output if isinstance(output, (list, tuple)) else [output])]
            seen[name] = [x.dtype for x in values if isinstance(x, Tensor)]

        model.get_submodule(name).register_forward_hook(note)
    boxes, labels = tiny.boxes()
    lidar = torch.full((1, 2, *tiny.SIZE), 7.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = model(tiny.images(), tiny.rig())
        losses = DetectionLoss(model.config)(predictions, [boxes], [labels], lidar)
    assert torch.bfloat16 in seen["image_backbone.layer1"]
    # What the similarity net is given are correlations of warped features.
    assert seen["stereo.similarity_net"][0] == torch.float32
    # Depth and projection come in float32, context in bfloat16, the sum leaves in float32.
    assert seen["view_transform"] == [torch.float32, torch.bfloat16, torch.float32, torch.float32]
    assert set(seen["bev_encoder.trunk"]) == {torch.float32}
    assert set(seen["head"]) <= {torch.float32}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    with torch.autocast("cpu", enabled=False):
        again = DetectionLoss(model.config)(predictions, [boxes], [labels], lidar)
    assert all(torch.equal(losses[name], again[name]) for name in losses)


@pytest.mark.parametrize("quirks", ["published", Quirks()], ids=["published", "right"])
def test_cameras_one_by_one_give_the_same_numbers(quirks: Any):
    """The maps of cameras seen alone add up to the map of all; depths are each camera's own."""
    model = tiny.detector(quirks=quirks).eval()
    images, cameras = tiny.images(cameras=3), tiny.rig(cameras=3)
    maps: list[Tensor] = []
    model.view_transform.register_forward_hook(lambda _, inputs, output: maps.append(output))
    with torch.no_grad():
        together = model(images, cameras)
        for n in range(3):
            one = cameras._replace(
                **{
                    name: getattr(cameras, name)[:, :, n : n + 1]
                    for name in cameras._fields
                    if name != "bev_aug"
                }
            )
            alone = model(images[:, :, n : n + 1], one)
            torch.testing.assert_close(
                alone.depth_probs, together.depth_probs[:, n : n + 1], atol=1e-5, rtol=1e-4
            )
    for t in range(2):
        torch.testing.assert_close(maps[2 + t] + maps[4 + t] + maps[6 + t], maps[t], atol=1e-5, rtol=1e-4)


def test_compiled_gives_the_same_numbers():
    """Traced whole, without falling back to Python; in a process whose shape checks are not traced along."""
    script = """
import torch
from tests.models import tiny
model, images, cameras = tiny.detector().eval(), tiny.images(), tiny.rig()
with torch.no_grad():
    exact = model(images, cameras)
    found = torch.compile(model, backend="aot_eager", fullgraph=True)(images, cameras)
pairs = zip([*exact.tasks, exact[1:]], [*found.tasks, found[1:]], strict=True)
torch.testing.assert_close(*zip(*pairs), atol=1e-5, rtol=1e-4)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
