"""Single functions against reference values."""

import numpy as np
import pytest
import torch

from bev_models import BEVGrid, BoxCoder, DepthBins, HeadConfig, TaskMaps, size_aware_circle_nms
from bev_models.depth_net import DeformableConv
from bev_models.losses import depth_bin_of_cells, depth_loss
from bev_models.stereo import candidate_offsets
from bev_models.targets import center_targets, gaussian_radius


@pytest.mark.parametrize(("reach", "samples"), [(3, 3), (3, 5), (2, 4), (1, 7)])
def test_candidate_offsets(units, reach, samples):
    expected = torch.from_numpy(units[f"k_list64.r{reach}_n{samples}"]).float()
    torch.testing.assert_close(candidate_offsets(samples, float(reach)), expected)


def test_depth_labels_and_loss(units):
    lidar = torch.from_numpy(units["gtdepth.in"])
    index, known = depth_bin_of_cells(lidar, (4, 6), DepthBins())
    found = torch.where(known, index, -1).flatten()
    assert found.tolist() == units["gtdepth.bin"].tolist()
    probs = torch.from_numpy(units["gtdepth.pred"])[None]
    loss = 3 * depth_loss(probs, lidar, DepthBins()).mean()
    torch.testing.assert_close(loss, torch.from_numpy(units["gtdepth.loss"]))


def test_gaussian_radius(units):
    length, width, overlap, radius, used = torch.from_numpy(
        units["gauss.radius_table_len_wid_overlap_radius_used"]
    ).T
    found = torch.stack(
        [gaussian_radius(le, wi, float(ov)) for le, wi, ov in zip(length, width, overlap, strict=True)]
    )
    torch.testing.assert_close(found, radius, atol=0, rtol=1e-6)  # the table was made in float32
    assert found.long().clamp(min=2).tolist() == used.tolist()


def side_of_radius(radius):
    """Side in cells of a square box that gets a heatmap bump of this radius."""
    sides = torch.linspace(1, 200, 4000)
    radii = gaussian_radius(sides, sides).long().clamp(min=2)
    return float(sides[radii == radius].median())


def test_heatmap(units):
    expected = torch.from_numpy(units["gauss.heatmap"])
    rows, columns = expected.shape
    grid = BEVGrid((0, columns, 1), (0, rows, 1), (-5, 3, 8))
    boxes = torch.zeros(len(units["gauss.calls"]), 9)
    for box, (x, y, radius) in zip(boxes, units["gauss.calls"].tolist(), strict=True):
        box[0], box[1] = x + 0.5, y + 0.5
        box[3:6] = side_of_radius(radius)
    target = center_targets([boxes], [torch.zeros(len(boxes), dtype=torch.long)], [1], grid)[0]
    torch.testing.assert_close(target.heatmap[0, 0], expected)


def test_decoding(units):
    maps = {name: torch.from_numpy(units[f"coder.in.{name}"]) for name in ("reg", "height", "dim", "vel")}
    rotation = torch.from_numpy(
        np.concatenate([units["coder.in.rot_sin"], units["coder.in.rot_cos"]], axis=1)
    )
    heat = torch.from_numpy(units["coder.in.heat"])
    task = TaskMaps(heat.logit(), maps["reg"], maps["height"], maps["dim"], rotation, maps["vel"])
    grid = BEVGrid((-25.6, 25.6, 1.6), (-25.6, 12.8, 1.6), (-5, 3, 8))
    head = HeadConfig(tasks=(("a", "b"),), nms_scale=(0.5,), center_range=(30, 30, 10))
    for b, found in enumerate(BoxCoder(grid, head).candidates(task)):
        torch.testing.assert_close(found.scores, torch.from_numpy(units[f"coder.out.b{b}.scores"]))
        assert found.labels.tolist() == units[f"coder.out.b{b}.labels"].tolist()
        boxes = torch.from_numpy(units[f"coder.out.b{b}.bboxes"])
        boxes[:, 3:6] = boxes[:, 3:6].exp()  # the reference's coder was handed sizes as they are
        torch.testing.assert_close(found.boxes, boxes, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("scale", ["0.2", "0.4", "0.6", "0.7", "0.8", "0.9"])
def test_size_aware_circle_nms(units, scale):
    x, y, length, width, yaw, scores = torch.from_numpy(units["nms.dets"]).T
    zero = torch.zeros_like(x)
    boxes = torch.stack([x, y, zero, length, width, zero, yaw, zero, zero], dim=1)
    kept = size_aware_circle_nms(boxes, scores, float(scale)).tolist()
    expected = units[f"nms.keep_{scale}"].tolist()
    assert kept[:83] == expected
    if scale == "0.2":
        assert kept == units["nms.keep_0.2_post500"].tolist()


def test_deformable_convolution(units):
    """With offsets given by hand: the offset convolution is asked for its bias alone, cell by cell."""
    case = {key: torch.from_numpy(units[f"dcn.{key}"]) for key in ("x", "offset", "weight", "y", "grad_out")}
    conv = DeformableConv(case["x"].shape[1])
    offset = case["offset"].requires_grad_()
    conv.offset.register_forward_hook(lambda *_: offset)
    with torch.no_grad():
        conv.weight.copy_(case["weight"])
    x = case["x"].requires_grad_()
    y = conv(x)
    torch.testing.assert_close(y, case["y"], atol=1e-5, rtol=1e-5)
    y.backward(case["grad_out"])
    for name, gradient in (("gx", x.grad), ("goffset", offset.grad), ("gweight", conv.weight.grad)):
        torch.testing.assert_close(gradient, torch.from_numpy(units[f"dcn.{name}"]), atol=1e-4, rtol=1e-4)
