"""Stereo is real: where features name scene points, the search finds how far away they are."""

import math

import pytest
import torch

from bev_models import DepthBins, DepthNetOutput, DynamicStereo, StereoConfig, StereoSource
from bev_models.stereo import candidate_offsets

from .stereo_scene import STRIDE, Board, Scene, Wall, matcher

BINS = DepthBins()
RANGES = StereoConfig().ranges
# Three candidates follow a match but do not look for one: from the middle of a range whose parallax is some
# forty cells they see nothing. Thirty-three see everything between the borders of a range.
ITERATIONS, SAMPLES, GAIN = 12, 33, 40.0

LEFT = math.pi / 2
WALL = Wall((1.97, 1, 0.2), 7.3, relief=0.1)  # seen from the side camera it recedes from 4 m to 28 m
SIZE = (12, 240)


def test_side_camera_finds_depth_wherever_both_frames_see_the_point():
    found = Scene([WALL], yaw=LEFT, size=SIZE).search(matcher(BINS, RANGES, ITERATIONS, SAMPLES, GAIN), BINS)
    assert found.seen.double().mean() > 0.65
    assert found.depth[found.seen].min() < 5.5  # in three of the four ranges
    assert found.depth[found.seen].max() > 27
    assert found.error[found.seen].max() < 0.25
    assert found.error[found.seen].median() < 0.05


def test_points_beside_something_that_hides_others():
    board = Board(axis=1, at=6.0, across=(-1.0, 1.0), up=(-1.0, 1.55))
    scene = Scene([Wall((1.0, 1, 0.2), 10.3, relief=0.1)], [board], yaw=LEFT, size=SIZE)
    found = scene.search(matcher(BINS, RANGES, ITERATIONS, SAMPLES, GAIN), BINS)
    jump = scene.depths[0].diff(dim=1).abs().max()
    assert jump > 2
    assert found.error[found.seen].max() < 0.25


def test_front_camera_finds_depth_wherever_depth_moves_the_point():
    """Straight ahead nothing moves, and no stereo sees depth; bilinear sampling resolves about 1/7 cell."""
    walls = [
        Wall((0.05, 1, 0.1), 2.2, relief=0.03),
        Wall((0.1, -1, 0), 2.5, relief=0.03),
        Wall((1, 0.1, 0), 12.0, relief=0.1),
    ]
    found = Scene(walls, size=SIZE).search(matcher(BINS, RANGES, ITERATIONS, SAMPLES, GAIN), BINS)
    visible = found.seen & (found.motion >= 0.15)
    assert visible.double().mean() > 0.45
    assert found.error[visible].max() < 0.25


def refine(scene, start_error, sigma):
    """Search as published (3 candidates, 3 iterations) from near the truth; what is found, error before."""
    stereo = matcher(BINS, RANGES, iterations=3, samples=3, gain=20.0)
    truth = scene.depths[0].float()
    generator = torch.Generator().manual_seed(1)
    start = truth + (2 * torch.rand(truth.shape, generator=generator) - 1) * start_error
    share = (start - stereo.range_start) / (stereo.range_stop - stereo.range_start)
    mu = share.clamp(1e-4, 1 - 1e-4).logit()[None]
    height, width = scene.size
    logits = torch.zeros(1, BINS.count, height, width)
    word = DepthNetOutput(logits, logits[:, :8], mu, torch.full_like(mu, sigma), torch.zeros_like(mu))
    projection = scene.cameras.sweep_projection(0, 1, (height * STRIDE, width * STRIDE), scene.size)
    with torch.no_grad():
        found = stereo(word, scene.codes(0), [StereoSource(scene.codes(1), logits, projection, projection)])
    return scene.judge(found.mu[0], stereo.range_stop.flatten()), (start - truth).abs()


def test_the_published_search_refines_a_depth_it_is_told_roughly():
    found, before = refine(Scene([WALL], yaw=LEFT, size=SIZE), start_error=0.5, sigma=0.6)
    seen = found.seen & (found.depth < 28)
    assert (before[seen] < 0.25).double().mean() < 0.55
    assert (found.error[seen] < 0.25).double().mean() > 0.97
    assert found.error[seen].median() < 0.05


def test_without_motion_all_depths_match_alike_and_nothing_moves():
    scene = Scene([WALL], yaw=LEFT, size=SIZE, moved=0.0)
    found = scene.search(matcher(BINS, RANGES, 1, 3, GAIN), BINS)
    assert found.motion.max() < 1e-9
    middles, borders = torch.tensor([5.0, 12.0, 22.0, 43.0]), torch.tensor(RANGES[1:-1])
    middle = middles[torch.bucketize(found.depth.float(), borders, right=True)]
    torch.testing.assert_close(found.error, (middle - found.depth).abs(), atol=1e-2, rtol=0)


@pytest.fixture
def search():
    """A small search with random weights, and something to search in."""
    torch.manual_seed(0)
    stereo = DynamicStereo(
        DepthBins(2, 10, 1),
        **StereoConfig(
            (2.0, 5.0, 10.0), iterations=2, groups=2, mask_channels=4, downsample_channels=8
        ).search,
        upsampling=2,
    )
    features = torch.randn(2, 2, 4, 8, 12)
    word = DepthNetOutput(
        torch.randn(2, 8, 4, 6),
        torch.randn(2, 3, 4, 6),
        torch.randn(2, 2, 8, 12),
        torch.rand(2, 2, 8, 12) + 0.5,
        torch.randn(2, 2, 8, 12),
    )
    projection = torch.eye(3, 4).repeat(2, 1, 1)
    projection[:, 0, 3] = 3.0
    source = StereoSource(features[1], torch.randn(2, 8, 4, 6), projection, projection)
    return stereo, word, features[0], source


def test_result_keeps_its_promises(search):
    stereo, word, features, source = search
    found = stereo(word, features, [source])
    low, high = found.mu.amin((0, 2, 3)), found.mu.amax((0, 2, 3))
    assert (low >= torch.tensor([2.0, 5.0])).all()
    assert (high <= torch.tensor([5.0, 10.0])).all()
    assert found.sigma.min() >= 1
    assert found.depth.shape == (2, 8, 8, 12)
    assert found.logits.shape == found.mask.shape == (2, 8, 4, 6)
    assert ((found.mask > 0) & (found.mask < 1)).all()
    torch.testing.assert_close(found.mask[:, :1].expand(-1, 3, -1, -1), found.mask[:, :3])  # one per range


def test_no_gradient_into_features_or_the_other_frame(search):
    stereo, word, features, source = search
    inputs = [word.mu, word.sigma, word.range_score]
    outsiders = [features, source.features, source.logits, word.logits, word.context]
    for tensor in inputs + outsiders:
        tensor.requires_grad_()
    found = stereo(word, features, [source])
    (found.logits * found.mask).square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in inputs)
    assert all(tensor.grad is None for tensor in outsiders)


def test_ranges_pass_alone_or_together_with_the_same_numbers_in_evaluation(search):
    stereo, word, features, source = search
    stereo.eval()
    together = stereo(word, features, [source])
    stereo.batch_ranges = False
    for one, other in zip(together, stereo(word, features, [source]), strict=True):
        torch.testing.assert_close(one, other)
    stereo.train()
    stereo(word, features, [source])
    assert stereo.similarity_net[0][1].num_batches_tracked == 4  # two ranges, two iterations
    stereo.batch_ranges = True
    stereo(word, features, [source])
    assert stereo.similarity_net[0][1].num_batches_tracked == 6


def test_two_sources_that_are_one_change_nothing(search):
    stereo, word, features, source = search
    stereo.eval()
    for one, two in zip(stereo(word, features, [source]), stereo(word, features, [source] * 2), strict=True):
        torch.testing.assert_close(one, two)


def test_depths_of_zero_and_below_do_no_harm(search):
    stereo, word, features, source = search
    word = word._replace(sigma=torch.full_like(word.sigma, 10.0), mu=torch.full_like(word.mu, -20.0))
    ahead = source.projection.clone()
    ahead[:, 2, 3] = -2.0  # the source camera stands where the first range begins
    found = stereo(word, features, [source._replace(projection=ahead, mask_projection=ahead)])
    assert all(value.isfinite().all() for value in found)


def test_wrong_use(search):
    stereo, word, features, source = search
    with pytest.raises(ValueError, match="stereo needs at least one other frame, got none"):
        stereo(word, features, [])
    with pytest.raises(ValueError, match="stereo needs a depth net with ranges"):
        stereo(word._replace(mu=None, sigma=None, range_score=None), features, [source])


def test_the_middle_candidate_is_the_mean():
    for samples in (1, 3, 5, 33):
        offsets = candidate_offsets(samples, 3.0)
        assert offsets[samples // 2].abs() < 1e-6
        torch.testing.assert_close(offsets, -offsets.flip(0), atol=1e-6, rtol=0)
