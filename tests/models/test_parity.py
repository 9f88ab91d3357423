"""The detector against reference values, stage by stage: see goldens/README.md and recipe.py.

What follows the search for depth is chaotic in single cells. Limits are therefore measured, not chosen: they
are some times what rounding alone moves each number by (sensitivity.py, docs/fidelity.md).
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bev_models import DepthBins, DepthNetConfig, Detector, DetectorConfig, build_detector
from bev_models.config import PUBLISHED_TASKS
from bev_models.losses import depth_bin_of_cells
from bev_models.published import published_to_ours
from bev_models.targets import center_targets
from bev_ops import plane_sweep_correlation

from . import recipe, sensitivity
from .conftest import GOLDENS
from .parity import (
    VARIANTS,
    Given,
    Run,
    bulk_distance,
    distance,
    goldens_of,
    gradient_differences,
    ground_truth,
    one_run,
    reference_of,
    stage_names,
)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def expected(variant: str) -> Any:
    return reference_of(variant)


@pytest.fixture(scope="module")
def run(variant: str) -> Run:
    """One forward and backward pass in evaluation mode, one with batch statistics."""
    return one_run(Detector, variant)


@pytest.fixture(scope="module")
def given_depth(variant: str) -> Run:
    """The same from the reference's depth distributions: what comes after the search without its chaos."""
    return one_run(Given, variant)


def test_inputs_are_those_of_the_reference():
    values = goldens_of("2key")
    images = recipe.images().double()
    stats = torch.stack([images.mean(), images.std(correction=0), images.abs().max()])
    assert torch.from_numpy(values["input.imgs_stats"])[0] == pytest.approx(float(stats[0]), abs=1e-6)
    assert recipe.lidar_depth().double().sum() == pytest.approx(float(values["input.gt_depth_sum"]), rel=1e-6)


def test_every_stage(variant: str, run: Run):
    names = [name for name in stage_names(variant) if not name.endswith(("depth_sample", "argmax"))]
    assert len(names) > 30
    check_stages(variant, names, run, "own depth")


def test_depth_distributions(variant: str, run: Run):
    with np.load(GOLDENS / "depth_small_2key.npz") as file:
        for name in file.files:
            reference = torch.from_numpy(file[name])
            off = bulk_distance(run.stages[name], reference, sensitivity.KINDS["own depth"].share)
            assert off <= sensitivity.limit("own depth", mode_of(name), "depth distribution, whole"), name


def test_every_stage_but_the_search(variant: str, given_depth: Run):
    pattern = re.compile(r"(train\.)?(s\d\..*|ref\d\.(bev|depth_aggregation)|head\..*)")
    names = [name for name in stage_names(variant) if pattern.fullmatch(name)]
    assert len(names) > 30
    check_stages(variant, names, given_depth, "given depth")


def mode_of(name: str) -> str:
    return "trainBN" if name.startswith("train.") else "evalBN"


def check_stages(variant: str, names: list[str], run: Run, kind: str) -> None:
    golden = goldens_of(variant)
    wrong = {}
    for name in names:
        allowed = sensitivity.limit(kind, mode_of(name), sensitivity.stage_of(name.removeprefix("train.")))
        off = distance(
            run.stages[name], golden[name], float(golden[f"{name}#norm"]), sensitivity.KINDS[kind].share
        )
        if not off <= allowed:
            wrong[name] = f"{off:.1e} > {allowed:.0e}"
    assert not wrong


def test_scores_of_given_candidates(golden_json: Callable[[str], Any]):
    """One EM iteration at a time: fed the reference's own candidates, scores agree without chaos."""
    values = goldens_of("2key")
    config = recipe.small_config()
    detector = build_detector(config).eval()
    recipe.fill(detector, golden_json("keys_small_2key"))
    images, cameras = recipe.images(), recipe.cameras(values)
    with torch.no_grad():
        features = [detector.image_backbone(images[:, t].flatten(0, 1))[0] for t in range(2)]
        for reference in range(2):
            source = 1 - reference
            projection = cameras.sweep_projection(reference, source, (64, 192), (16, 48), "corners")
            for name in [f"ref{reference}.r{r}.it{k}" for r in range(4) for k in range(3)]:
                stored = torch.from_numpy(values[f"{name}.depth_sample"])
                stride = -(-12 * 3 * 16 * 48 // len(stored))
                candidates = torch.full((12 * 3 * 16 * 48,), 10.0)
                candidates[::stride] = stored
                correlation = plane_sweep_correlation(
                    features[reference],
                    features[source],
                    projection,
                    candidates.view(12, 3, 16, 48),
                    groups=8,
                    behind="corner",
                )
                score = detector.stereo.similarity_net(correlation.flatten(2, 3)).flatten()[::stride]
                expected = torch.from_numpy(values[f"{name}.score"])
                assert (score - expected).norm() <= 1e-4 * expected.norm(), name


def test_depth_labels():
    index, known = depth_bin_of_cells(recipe.lidar_depth(), (4, 12), DepthBins())
    found = torch.where(known, index, -1).flatten()
    assert found.tolist() == goldens_of("2key")["gt_depth.argmax"].tolist()


def test_detections(variant: str, run: Run):
    """As sets: scores that tie within rounding may swap, and with them the boxes that a box suppresses."""
    for b, found in enumerate(run.detections):
        boxes, scores, labels = (
            torch.from_numpy(goldens_of(variant)[f"final.b{b}.{key}"])
            for key in ("boxes", "scores", "labels")
        )
        assert abs(len(found.boxes) - len(boxes)) <= 0.01 * len(boxes)
        near = (found.boxes[:, None] - boxes).abs().amax(2) < 0.1
        same = near & ((found.scores[:, None] - scores).abs() < 0.01) & (found.labels[:, None] == labels)
        assert same.any(0).double().mean() >= 0.98
        assert same.any(1).double().mean() >= 0.98
        counts = (found.labels.bincount(minlength=10) - labels.bincount(minlength=10)).abs()
        assert counts.max() <= 2


def test_targets():
    values = goldens_of("2key")
    boxes, labels = ground_truth(values)
    grid = recipe.small_config().bev.grid
    targets = center_targets(boxes, labels, [len(task) for task in PUBLISHED_TASKS], grid, "trunc")
    for i, target in enumerate(targets):
        torch.testing.assert_close(target.heatmap, torch.from_numpy(values[f"tgt.t{i}.heatmap"]))
        found = sorted(zip(target.sample.tolist(), target.cell.tolist(), target.boxes.tolist(), strict=True))
        expected = sorted(
            zip(*(values[f"tgt.t{i}.{key}"].tolist() for key in ("sample", "cell", "boxes")), strict=True)
        )
        assert [row[:2] for row in found] == [row[:2] for row in expected]
        torch.testing.assert_close(
            torch.tensor([row[2] for row in found]), torch.tensor([row[2] for row in expected])
        )


@pytest.mark.parametrize("mode", ["evalBN", "trainBN"])
def test_losses(run: Run, expected: Any, mode: str):
    compare_losses(run.losses[mode], expected["losses"][mode], sensitivity.limit("own depth", mode, "losses"))


@pytest.mark.parametrize("mode", ["evalBN", "trainBN"])
def test_losses_after_the_search(given_depth: Run, expected: Any, mode: str):
    allowed = sensitivity.limit("given depth", mode, "losses")
    compare_losses(given_depth.losses[mode], expected["losses"][mode], allowed)


def compare_losses(found: dict[str, Tensor], reference: Any, tolerance: float) -> None:
    close = {"rel": tolerance}
    assert found["heatmap"].item() == pytest.approx(sum(reference["heatmap_loss_per_task"]), **close)
    assert found["boxes"].item() == pytest.approx(sum(reference["bbox_loss_per_task"]), **close)
    assert found["depth"].item() == pytest.approx(reference["depth_loss"], **close)
    assert sum(found.values()).item() == pytest.approx(reference["total"], **close)


@pytest.mark.parametrize("mode", ["evalBN", "trainBN"])
def test_gradients(run: Run, expected: Any, mode: str):
    check_gradients(run, expected, mode, "own depth")


@pytest.mark.parametrize("mode", ["evalBN", "trainBN"])
def test_gradients_after_the_search(given_depth: Run, expected: Any, mode: str):
    """The head's hold all; the depth net still learns through the search, whose chaos reaches it."""
    off = check_gradients(given_depth, expected, mode, "given depth")
    after = {key: float(value) for key, value in off.items() if key.startswith("head.")}
    assert len(after) > 100
    measure = "gradients of the head, largest"
    assert max(after.values()) <= sensitivity.limit("given depth", mode, measure)


def check_gradients(run: Run, expected: Any, mode: str, kind: str) -> dict[str, Tensor]:
    off, mine = gradient_differences(run.gradients[mode], expected["grads"][mode])
    values = torch.stack(list(off.values()))
    assert values.median() <= sensitivity.limit(kind, mode, "gradients, median")
    assert values.quantile(0.95) <= sensitivity.limit(kind, mode, "gradients, 95 % of them")
    total = sensitivity.limit(kind, mode, "gradients, norm of all")
    assert mine == pytest.approx(expected["losses"][mode]["total_grad_norm"], rel=total)
    return off


def test_running_statistics_after_one_training_step(run: Run, expected: Any):
    for key, reference in expected["buffers"].items():
        value = run.state[str(published_to_ours(key))]
        if key.endswith("num_batches_tracked"):
            assert value.item() == reference, key
            continue
        off = sensitivity.statistics_distance(value, *reference)
        assert off <= sensitivity.limit("own depth", "trainBN", "running statistics"), key


def test_documented_sensitivity_is_what_was_measured():
    document = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text(encoding="utf-8")
    assert sensitivity.table(sensitivity.stored()) in document


@pytest.mark.parametrize("name", ["2key", "2key_da"])
def test_published_checkpoints_fit_by_name_and_shape(name: str, golden_json: Callable[[str], Any]):
    config = DetectorConfig(depth_net=DepthNetConfig(aggregation=name.endswith("da")), quirks="published")
    with torch.device("meta"):
        detector = build_detector(config)
    ours = {key: list(value.shape) for key, value in detector.state_dict().items()}
    published = {published_to_ours(key): shape for key, shape, _ in golden_json(f"keys_{name}")}
    published.pop(None)
    # Pointwise over candidates: published as 1x1x1 convolutions, ours are 1x1.
    for key in published:
        if key.startswith("stereo.similarity_net") and published[key][2:] == [1, 1, 1]:
            published[key] = published[key][:4]
    assert published == ours
