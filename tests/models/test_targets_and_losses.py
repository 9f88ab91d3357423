import math

import pytest
import torch

from bev_models import (
    BEVGrid,
    BoxCoder,
    DepthBins,
    DetectionLoss,
    HeadConfig,
    LossConfig,
    Predictions,
    TaskMaps,
)
from bev_models.losses import (
    box_loss,
    depth_bin_of_cells,
    depth_loss,
    heatmap_loss,
    nearest_depth_of_cells,
    stereo_loss,
)
from bev_models.targets import center_targets

from . import tiny

CONFIG = tiny.config()
GRID, TASKS = CONFIG.bev.grid, [1, 2]


def maps_of(targets):
    """The maps a perfect head would predict."""
    tasks = []
    for target in targets:
        batch, _, rows, columns = target.heatmap.shape
        regressed = torch.zeros(batch, 10, rows * columns)
        regressed[target.sample, :, target.cell] = target.boxes
        offset, height, size, rotation, velocity = regressed.view(batch, 10, rows, columns).split(
            (2, 1, 3, 2, 2), dim=1
        )
        logits = torch.where(target.heatmap == 1, 5.0, -5.0)
        tasks.append(TaskMaps(logits, offset, height, size, rotation, velocity))
    return tasks


def by_place(boxes):
    return boxes[:, 0].argsort()


def test_round_trip_returns_the_boxes():
    samples = [tiny.boxes(12, seed=0), tiny.boxes(3, seed=1)]
    boxes, labels = [list(parts) for parts in zip(*samples, strict=True)]
    found = BoxCoder(GRID, HeadConfig(tasks=CONFIG.head.tasks, nms_scale=(0.0, 0.0))).decode(
        maps_of(center_targets(boxes, labels, TASKS, GRID))
    )
    for detections, expected, of_class in zip(found, boxes, labels, strict=True):
        ours, theirs = by_place(detections.boxes), by_place(expected)
        torch.testing.assert_close(detections.boxes[ours], expected[theirs], atol=1e-4, rtol=1e-5)
        assert detections.labels[ours].tolist() == of_class[theirs].tolist()
        torch.testing.assert_close(detections.scores, torch.full_like(detections.scores, 5.0).sigmoid())


def test_a_box_ten_metres_ahead_peaks_ten_metres_ahead():
    box = torch.tensor([[10.3, -4.6, 0.0, 4, 2, 1.5, 0.0, 1, 2]])
    target = center_targets([box], [torch.tensor([0])], TASKS, GRID)[0]
    assert (target.heatmap[0, 0] == 1).nonzero().tolist() == [[11, 26]]
    assert target.cell.tolist() == [11 * 32 + 26]
    torch.testing.assert_close(target.boxes[0, :2], torch.tensor([0.3, 0.4]), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.boxes[0, 3:6].exp(), box[0, 3:6])


def test_bumps_of_neighbours_merge_by_maximum():
    boxes = torch.tensor([[0.5, 0.5, 0, 8, 8, 2, 0, 0, 0], [3.5, 0.5, 0, 8, 8, 2, 0, 0, 0]])
    labels = torch.tensor([0, 0])
    together = center_targets([boxes], [labels], TASKS, GRID)[0].heatmap
    alone = [center_targets([boxes[i : i + 1]], [labels[:1]], TASKS, GRID)[0].heatmap for i in range(2)]
    torch.testing.assert_close(together, torch.maximum(*alone))


@pytest.mark.parametrize(
    ("change", "floor", "trunc"),
    [
        ({0: 16.0}, 0, 0),
        ({1: 15.99}, 1, 1),
        ({0: -16.5}, 0, 1),  # up to one cell below: truncation folds it into the first cell
        ({0: -17.0}, 0, 0),
        ({3: 0.0}, 0, 0),
        ({4: 0.0}, 0, 0),
        ({0: math.nan}, 0, 0),
    ],
)
def test_boxes_that_count(change, floor, trunc):
    box = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0, 0, 0]])
    for column, value in change.items():
        box[0, column] = value
    for rounding, count in (("floor", floor), ("trunc", trunc)):
        target = center_targets([box], [torch.tensor([0])], TASKS, GRID, rounding)[0]
        assert len(target.boxes) == count
        assert (target.heatmap == 1).sum() == count


def test_no_boxes_at_all():
    none = torch.zeros(0, 9), torch.zeros(0, dtype=torch.long)
    for target in center_targets([none[0]] * 2, [none[1]] * 2, TASKS, GRID):
        assert target.heatmap.shape[0] == 2
        assert target.heatmap.sum() == 0
        assert len(target.boxes) == 0


def test_unknown_velocity_adds_nothing():
    box, label = tiny.boxes(1)
    unknown = box.clone()
    unknown[:, 7:] = math.nan
    maps = maps_of(center_targets([box], [label.clamp(max=0)], TASKS, GRID))[0]
    off = maps._replace(
        velocity=(maps.velocity + 3).requires_grad_(), height=(maps.height + 2).requires_grad_()
    )
    target = center_targets([unknown], [label.clamp(max=0)], TASKS, GRID)[0]
    loss = box_loss(off, target).mean()
    assert loss.item() == pytest.approx(2, rel=1e-5)  # the height alone
    loss.backward()
    assert off.velocity.grad.abs().sum() == 0
    assert off.height.grad.abs().sum() == 1


def test_perfect_maps_cost_nothing_but_the_clamp():
    boxes, labels = tiny.boxes(6)
    targets = center_targets([boxes], [labels], TASKS, GRID)
    for maps, target in zip(maps_of(targets), targets, strict=True):
        assert box_loss(maps, target).mean() == 0
        sure = torch.where(target.heatmap == 1, 20.0, -20.0)
        assert heatmap_loss(sure, target.heatmap).mean() < 1e-4
        assert heatmap_loss(-sure, target.heatmap).mean() > 5


def test_loss_of_nothing_is_finite_and_has_a_gradient():
    tasks = [
        TaskMaps(*(torch.zeros(1, c, 32, 32, requires_grad=True) for c in (classes, 2, 1, 3, 2, 2)))
        for classes in TASKS
    ]
    probs = torch.full((1, 2, 16, 4, 6), 1 / 16, requires_grad=True)
    none = [torch.zeros(0, 9)], [torch.zeros(0, dtype=torch.long)]
    loss = DetectionLoss(CONFIG)
    assert set(loss(Predictions(tasks, probs), *none)) == {"heatmap", "boxes"}
    losses = loss(Predictions(tasks, probs), *none, torch.zeros(1, 2, 64, 96))
    assert set(losses) == {"heatmap", "boxes", "depth"}
    assert losses["boxes"] == losses["depth"] == 0
    sum(losses.values()).backward()
    assert tasks[0].heatmap.grad.isfinite().all()


def test_weights_scale_the_terms():
    boxes, labels = tiny.boxes(6)
    tasks = maps_of(center_targets([boxes], [labels], TASKS, GRID))
    tasks = [maps._replace(height=maps.height + 1) for maps in tasks]
    predictions = Predictions(tasks, torch.full((1, 2, 16, 4, 6), 1 / 16))
    lidar = torch.full((1, 2, 64, 96), 7.0)
    one = DetectionLoss(CONFIG, LossConfig(1.0, 1.0))(predictions, [boxes], [labels], lidar)
    other = DetectionLoss(CONFIG, LossConfig(0.5, 2.0))(predictions, [boxes], [labels], lidar)
    assert other["boxes"].item() == pytest.approx(0.5 * one["boxes"].item())
    assert other["depth"].item() == pytest.approx(2 * one["depth"].item())
    assert other["heatmap"] == one["heatmap"]


@pytest.mark.parametrize(
    ("depth", "index"),
    [(2.0, 0), (2.99, 0), (3.0, 1), (17.99, 15), (18.0, None), (1.99, None), (0.0, None), (1e9, None)],
)
def test_depth_bins(depth, index):
    lidar = torch.zeros(1, 1, 16, 16)
    lidar[0, 0, 5, 9] = depth
    found, known = depth_bin_of_cells(lidar, (1, 1), DepthBins(2, 18, 1))
    assert known.item() == (index is not None)
    if index is not None:
        assert found.item() == index


def test_the_nearest_point_of_a_cell_counts():
    lidar = torch.zeros(1, 1, 16, 32)
    lidar[0, 0, 3, 4], lidar[0, 0, 7, 15] = 9.0, 5.0
    nearest = nearest_depth_of_cells(lidar, (1, 2))
    assert nearest[0, 0, 0].tolist() == [5.0, math.inf]


def test_depth_loss_of_a_certain_cell():
    bins = DepthBins(2, 18, 1)
    probs = torch.zeros(1, 1, 16, 1, 1)
    probs[0, 0, 5] = 1
    lidar = torch.full((1, 1, 16, 16), 7.5)
    assert depth_loss(probs, lidar, bins).mean() == 0
    even = torch.full((1, 1, 16, 1, 1), 1 / 16)
    expected = math.log(16) + 15 * math.log(16 / 15)
    assert depth_loss(even, lidar, bins).mean().item() == pytest.approx(expected, rel=1e-5)


def test_stereo_loss_is_the_log_likelihood_of_lidar():
    bins = DepthBins(2, 18, 1)
    density = torch.full((1, 1, 16, 4, 4), 0.1)
    density[0, 0, 5, 0, 0] = 0.5  # a fourth of the mass
    lidar = torch.zeros(1, 1, 16, 16)
    lidar[0, 0, 2, 1] = 7.5
    assert stereo_loss(density, lidar, bins).mean().item() == pytest.approx(math.log(4), rel=1e-4)
    lidar[0, 0, 15, 15] = 3.5
    assert stereo_loss(density, lidar, bins).mean().item() == pytest.approx(math.log(4 * 16) / 2, rel=1e-4)
    assert stereo_loss(density, torch.zeros_like(lidar), bins).mean() == 0


def test_stereo_loss_reaches_the_search():
    model = tiny.detector().train()
    boxes, labels = tiny.boxes()
    lidar = torch.full((1, 2, *tiny.SIZE), 7.5)
    predictions = model(tiny.images(), tiny.rig())
    losses = DetectionLoss(model.config, LossConfig(stereo_weight=1.0))(predictions, [boxes], [labels], lidar)
    assert predictions.stereo_density.shape[3:] == (tiny.SIZE[0] // 4, tiny.SIZE[1] // 4)
    losses["stereo"].backward()
    for part in (model.stereo.similarity_net, model.depth_net.range_head):
        assert part[-1].weight.grad.abs().sum() > 0
    assert model.depth_net.mono_head[-1].weight.grad is None
    assert "stereo" not in DetectionLoss(model.config)(predictions, [boxes], [labels], lidar)


def test_decoding_limits():
    head = HeadConfig(
        tasks=(("car",),), nms_scale=(0.0,), max_boxes=3, score_threshold=0.5, center_range=(8, 8, 10)
    )
    maps = TaskMaps(*(torch.zeros(1, c, 32, 32) for c in (1, 2, 1, 3, 2, 2)))
    maps.heatmap[:] = -5
    maps.heatmap[0, 0, 16, 12:20] = torch.linspace(1, 2, 8)
    maps.heatmap[0, 0, 16, 30] = 9  # 14 m ahead: out of range
    maps.heatmap[0, 0, 20, 16] = 0  # a score of one half is not more than one half
    found = BoxCoder(BEVGrid((-16, 16, 1), (-16, 16, 1), (-5, 3, 8)), head).decode([maps])[0]
    assert found.boxes[:, 0].tolist() == [3, 2, 1]
    assert found.scores.diff().max() < 0


def test_boxes_that_overlap_fall_to_the_better_one():
    maps = TaskMaps(*(torch.zeros(1, c, 32, 32) for c in (1, 2, 1, 3, 2, 2)))
    maps.heatmap[:] = -5
    maps.size[:] = math.log(4.0)
    maps.rotation[:, 1] = 1
    maps.heatmap[0, 0, 16, 10], maps.heatmap[0, 0, 16, 12], maps.heatmap[0, 0, 16, 13] = 1.0, 2.0, 1.5
    # Extents of 4 m: with scale 0.5 boxes within 2 m of a better one fall.
    for scale, kept in ((0.5, [-4]), (0.4, [-4, -6]), (0.1, [-4, -3, -6])):
        head = HeadConfig(tasks=(("car",),), nms_scale=(scale,))
        assert BoxCoder(GRID, head).decode([maps])[0].boxes[:, 0].tolist() == kept


def test_only_boxes_of_one_class_suppress_each_other_when_asked():
    maps = TaskMaps(*(torch.zeros(1, c, 32, 32) for c in (2, 2, 1, 3, 2, 2)))
    maps.heatmap[:] = -5
    maps.size[:] = math.log(4.0)
    maps.rotation[:, 1] = 1
    maps.heatmap[0, 0, 16, 10], maps.heatmap[0, 0, 16, 11], maps.heatmap[0, 1, 16, 10] = 2.0, 1.5, 1.0
    for per_class, kept in ((False, [0]), (True, [0, 1])):
        head = HeadConfig(tasks=(("car", "truck"),), nms_scale=(0.5,), nms_per_class=per_class)
        assert BoxCoder(GRID, head).decode([maps])[0].labels.tolist() == kept


def test_peaks_are_the_highest_cells_around():
    maps = TaskMaps(*(torch.zeros(1, c, 32, 32) for c in (2, 2, 1, 3, 2, 2)))
    maps.heatmap[:] = -5
    maps.heatmap[0, 0, 16, 10], maps.heatmap[0, 0, 17, 11], maps.heatmap[0, 0, 16, 12] = 2.0, 1.5, 1.0
    maps.heatmap[0, 1, 17, 11] = 0.5  # of another class
    for size, logits in ((1, [2, 1.5, 1, 0.5]), (3, [2, 0.5]), (5, [2, 0.5])):
        head = HeadConfig(tasks=(("car", "truck"),), nms_scale=(0.0,), nms_per_class=True, peak_size=size)
        scores = BoxCoder(GRID, head).decode([maps])[0].scores
        torch.testing.assert_close(scores, torch.tensor(logits).sigmoid())


def test_height_of_boxes_as_published():
    boxes, labels = tiny.boxes(4)
    tasks = maps_of(center_targets([boxes], [labels.clamp(max=0)], TASKS, GRID))
    head = HeadConfig(tasks=CONFIG.head.tasks, nms_scale=(0.0, 0.0))
    center, bottom = (
        BoxCoder(GRID, head, box_height=height).decode(tasks)[0].boxes for height in ("center", "bottom")
    )
    torch.testing.assert_close(bottom[:, 2], center[:, 2] - center[:, 5] / 2)
    torch.testing.assert_close(bottom[:, 3:], center[:, 3:])
