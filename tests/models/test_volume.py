"""Stereo by a volume: where patches tell scene points apart, its scores peak at how far away they are."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from bev_models import (
    DepthBins,
    DepthNetOutput,
    DetectionLoss,
    LossConfig,
    StereoConfig,
    StereoSource,
    VolumeConfig,
    config_from_dict,
)
from bev_models.losses import matching_loss
from bev_models.volume import Matching, MatchingFeatures, VolumeStereo

from . import tiny
from .stereo_scene import STRIDE, Scene, Wall

BINS = DepthBins(2, 34, 0.5)
SMALL = StereoConfig(kind="volume", volume=VolumeConfig(stride=4, channels=8, planes=12, width=4))


def word(size, logits=None):
    """A depth net's word on one image."""
    logits = torch.zeros(1, BINS.count, *size) if logits is None else logits
    return DepthNetOutput(logits, torch.zeros(1, 8, *size), None, None, None)


def source(features, projection):
    return StereoSource(features, torch.zeros(1, BINS.count, *features.shape[2:]), projection, projection)


def matched(scene, planes=32):
    """Scores of a scene whose features name its points, and the volume."""
    volume = VolumeStereo(BINS, STRIDE, stride=STRIDE, planes=planes).eval()
    height, width = scene.size
    projection = scene.cameras.sweep_projection(0, 1, (height * STRIDE, width * STRIDE), scene.size)
    key, other = (F.normalize(scene.codes(frame), dim=1) for frame in (0, 1))
    with torch.no_grad():
        return volume(word(scene.size), key, [source(other, projection)]).matching


def test_scores_peak_at_the_true_depth_wherever_both_frames_see_the_point():
    scene = Scene([Wall((1.97, 1, 0.2), 7.3, relief=0.1)], yaw=math.pi / 2, size=(12, 240))
    matching = matched(scene)
    truth = scene.depths[0]
    cells, depth = scene.project(scene.points[0], 1)
    # The window and the planes' steps of 9 % blur what is seen at the border.
    inside = ((cells >= 3) & (cells <= torch.tensor([236, 8]))).all(-1) & (depth > 0)
    inside &= (truth > BINS.start) & (truth < BINS.stop)
    best = matching.planes[matching.scores[0].argmax(0)]
    error = (best / truth).log().abs()[inside]
    assert inside.double().mean() > 0.3
    assert error.quantile(0.95) < math.log(matching.planes[1] / matching.planes[0])
    assert (matching.seen[0].gather(0, matching.scores[0].argmax(0)[None])[0][inside] == 1).all()


def test_parallax_is_what_depth_moves_and_none_without_motion():
    wall = [Wall((0, 1, 0), 10.0)]
    side = matched(Scene(wall, yaw=math.pi / 2, size=(8, 64)))
    # The side camera moves 1 m across its view: a match lies focal / depth pixels away.
    expected = 316 * STRIDE * (1 / (0.9 * side.planes) - 1 / (1.1 * side.planes))
    torch.testing.assert_close(
        side.parallax[0, :, 4, 32], expected.clamp(max=64 * STRIDE), rtol=1e-3, atol=1e-3
    )
    # What lies nearer than the view's edges reach is not in the other image: 316 / depth cells away.
    assert side.seen[0, :, 4, 32].tolist() == [float(316 / z < 32) for z in side.planes.tolist()]
    still = matched(Scene(wall, yaw=math.pi / 2, size=(8, 64), moved=0.0))
    assert still.parallax.max() < 1e-2
    assert still.seen.min() == 1


def test_features_begin_as_the_normalised_correlation_of_patches():
    torch.manual_seed(0)
    features = MatchingFeatures(27, stride=2)
    image = torch.randn(1, 3, 16, 24)
    other = torch.randn(1, 3, 16, 24)
    found = (features(image) * features(other)).sum(1)

    def patches(x):
        return F.unfold(x, 3, padding=1, stride=2).view(1, 3, 9, 8, 12)

    one, two = (p - p.mean(2, keepdim=True) for p in (patches(image), patches(other)))
    # The rotation is exact but for what centring it takes away.
    cosine = F.cosine_similarity(one.flatten(1, 2), two.flatten(1, 2), dim=1)
    assert torch.corrcoef(torch.stack([found.flatten(), cosine.flatten()]))[0, 1] > 0.8
    brighter = 3 * image + 0.7
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # the border sees zeros beside the image
    torch.testing.assert_close(features(brighter)[inner], features(image)[inner], rtol=1e-4, atol=1e-4)


@pytest.fixture
def volume():
    """A small volume, and something to match."""
    torch.manual_seed(0)
    volume = VolumeStereo(BINS, 4, stride=2, channels=8, planes=12, width=4)
    features = F.normalize(torch.randn(2, 1, 8, 16, 24), dim=2)
    projection = torch.eye(3, 4)[None].clone()
    projection[:, 0, 3] = 9.0
    cells = torch.eye(3, 4)[None].clone()
    cells[:, 0, 3] = 4.5
    logits = torch.randn(1, BINS.count, 8, 12)
    other = StereoSource(features[1], torch.zeros_like(logits), projection, cells)
    return volume, word((8, 12), logits), features[0], other


def test_it_begins_with_nothing_to_add(volume):
    stereo, reference, features, other = volume
    assert stereo(reference, features, [other]).added.abs().max() == 0


def test_gradient_reaches_both_frames_and_not_the_monocular_depth(volume):
    stereo, reference, features, other = volume
    torch.nn.init.normal_(stereo.net[4].weight)
    reference.logits.requires_grad_()
    sides = [features.requires_grad_(), other.features.requires_grad_()]
    found = stereo(reference, features, [other])
    (found.added.square().sum() + found.matching.scores.square().sum()).backward()
    assert reference.logits.grad is None
    assert all(side.grad.abs().sum() > 0 for side in sides)


def test_two_frames_that_are_one_change_nothing(volume):
    stereo, reference, features, other = volume
    torch.nn.init.normal_(stereo.net[4].weight)
    one, two = (stereo(reference, features, [other] * count) for count in (1, 2))
    torch.testing.assert_close(one.added, two.added)
    torch.testing.assert_close(one.matching, two.matching)


def test_a_frame_that_sees_nothing_of_a_cell_does_not_count(volume):
    stereo, reference, features, other = volume
    away = other.mask_projection.clone()
    away[:, 2] = -away[:, 2]  # everything lies behind it
    blind = other._replace(projection=away, mask_projection=away, features=-other.features)
    alone = stereo(reference, features, [other]).matching
    beside = stereo(reference, features, [other, blind]).matching
    torch.testing.assert_close(beside.scores, alone.scores)
    torch.testing.assert_close(beside.seen, alone.seen / 2)
    assert stereo(reference, features, [blind]).added.isfinite().all()


def test_one_other_frame_at_least(volume):
    stereo, reference, features, _ = volume
    with pytest.raises(ValueError, match="stereo needs at least one other frame, got none"):
        stereo(reference, features, [])


def test_matching_loss_counts_cells_that_a_match_can_tell():
    planes = torch.tensor([2.0, 4.0, 8.0, 16.0])
    scores = torch.zeros(1, 4, 1, 3)
    scores[0, 2, 0, 0] = 5.0
    seen, parallax = torch.ones(1, 4, 1, 3), torch.full((1, 4, 1, 3), 10.0)
    lidar = torch.zeros(1, 1, 4, 12)
    lidar[0, 0, 1, 1] = 7.0  # nearest to the plane at 8 m, by their ratio
    certain = -math.log(math.exp(5) / (math.exp(5) + 3))
    loss = matching_loss(Matching(planes, scores, seen, parallax), lidar)
    assert loss.mean().item() == pytest.approx(certain, rel=1e-5)
    lidar[0, 0, 2, 6] = 3.0
    loss = matching_loss(Matching(planes, scores, seen, parallax), lidar)
    assert loss.mean().item() == pytest.approx((certain + math.log(4)) / 2, rel=1e-5)
    for blind in (
        Matching(planes, scores, seen * torch.tensor([1.0, 0, 1]), parallax),
        Matching(planes, scores, seen, parallax * torch.tensor([1.0, 0, 1])),
    ):
        assert matching_loss(blind, lidar).mean().item() == pytest.approx(certain, rel=1e-5)
    lidar[0, 0, 0, 9] = 20.0  # beyond the last plane
    assert matching_loss(blind, lidar).mean().item() == pytest.approx(certain, rel=1e-5)
    assert matching_loss(blind, torch.zeros_like(lidar)).mean() == 0


@pytest.mark.parametrize("frames", [2, 3])
def test_a_detector_trains_it_and_tells_depth_before_it(frames):
    config = dataclasses.replace(tiny.config(frames=frames), stereo=SMALL)
    torch.manual_seed(0)
    model = tiny.build_detector(config)
    boxes, labels = tiny.boxes()
    lidar = torch.zeros(1, 2, *tiny.SIZE)
    lidar[:, :, ::7, ::7] = 7.5
    predictions = model(tiny.images(frames=frames), tiny.rig(frames=frames, moved=4.0))
    losses = DetectionLoss(config, LossConfig(stereo_weight=1.0))(predictions, [boxes], [labels], lidar)
    torch.stack(list(losses.values())).sum().backward()
    assert losses["stereo"] > 0
    for part in (model.stereo.features.patch, model.stereo.net[4], model.depth_net.mono_head[-1]):
        assert part.weight.grad.abs().sum() > 0
    assert predictions.mono_depth_probs is None

    torch.nn.init.normal_(model.stereo.net[4].weight)
    found = model.eval()(tiny.images(frames=frames), tiny.rig(frames=frames, moved=4.0))
    assert found.matching is None
    assert (found.mono_depth_probs - found.depth_probs).abs().max() > 1e-4
    torch.testing.assert_close(found.depth_probs.sum(2), torch.ones(1, 2, 4, 6))


def test_its_settings_come_back_from_plain_values():
    config = dataclasses.replace(tiny.config(), stereo=SMALL)
    assert config_from_dict(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stride": 3}, "volume stride must be 1, 2 or 4 pixels, got 3"),
        ({"planes": 1}, "volume planes must be at least 2, got 1"),
        ({"channels": 0}, "volume channels must be at least 1, got 0"),
        ({"width": 0}, "volume width must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        VolumeConfig(**values)


def test_channels_side_by_side_give_the_same_numbers():
    torch.manual_seed(0)
    model = tiny.build_detector(dataclasses.replace(tiny.config(), stereo=SMALL)).eval()
    torch.nn.init.normal_(model.stereo.net[4].weight)
    before = model(tiny.images(), tiny.rig()).depth_probs
    after = model.to(memory_format=torch.channels_last)(tiny.images(), tiny.rig()).depth_probs
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
