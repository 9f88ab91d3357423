import math

import pytest
import torch

from bev_ops import lift_splat, voxel_pooling

GRID = (1, 16, 16)  # 1 m cells; x from 0 to 16 m, y from -8 to 8 m


def forward_camera(height=1, width=3, focal=4.0):
    """Cell times depth -> BEV cell of a camera at the origin that looks along x; y grows to the left."""
    matrix = torch.zeros(3, 4)
    matrix[0, 2] = 1  # x = depth
    matrix[1, 0], matrix[1, 2], matrix[1, 3] = -1 / focal, (width - 1) / 2 / focal, 8  # y
    return matrix[None, None]


def splat(depth, context, projection=None, bins=(4.0, 10.0, 12.5), grid=GRID, rounding="floor"):
    height, width = depth.shape[-2:]
    projection = forward_camera(height, width) if projection is None else projection
    return lift_splat(depth, context, projection, torch.tensor(bins), grid, rounding)


def test_a_point_ten_metres_ahead_lands_ten_metres_ahead():
    depth, context = torch.zeros(1, 1, 3, 1, 3), torch.zeros(1, 1, 2, 1, 3)
    depth[0, 0, 1, 0, 1] = 0.5
    context[0, 0, :, 0, 1] = torch.tensor([2.0, -4.0])
    bev = splat(depth, context)
    assert bev.shape == (1, 2, 16, 16)
    assert bev[0, :, 8, 10].tolist() == [1.0, -2.0]
    assert bev.abs().sum() == 3


def test_a_cell_on_the_left_of_the_image_lands_on_the_left():
    depth, context = torch.zeros(1, 1, 3, 1, 3), torch.ones(1, 1, 1, 1, 3)
    depth[0, 0, 2, 0, 0] = 1
    bev = splat(depth, context)
    assert bev[0, 0, 8 + 3, 12] == 1  # 12.5 m ahead, 12.5 / 4 m to the left


def test_cameras_and_bins_add_up():
    depth, context = torch.full((1, 2, 3, 1, 1), 0.25), torch.ones(1, 2, 1, 1, 1)
    projection = forward_camera(1, 1).expand(1, 2, 3, 4)
    bev = splat(depth, context, projection, bins=(4.0, 4.2, 30.0))
    assert bev[0, 0, 8, 4] == 1  # two cameras, two bins in one cell; the third lies beyond the grid
    assert bev.sum() == 1


def test_samples_of_a_batch_stay_apart():
    depth = torch.zeros(2, 1, 3, 1, 1)
    depth[0, 0, 0], depth[1, 0, 1] = 1, 1
    bev = splat(depth, torch.ones(2, 1, 1, 1, 1), forward_camera(1, 1).expand(2, 1, 3, 4))
    assert bev[0, 0, 8, 4] == 1
    assert bev[1, 0, 8, 10] == 1
    assert bev.sum() == 2


def test_height_is_summed_away_and_bounded():
    projection = forward_camera(3, 1)
    projection[0, 0, 2, 1] = 0.1  # z = row * depth / 10: 0, 1, 2 cells at 10 m
    depth = torch.zeros(1, 1, 3, 3, 1)
    depth[0, 0, 1] = 1
    context = torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 1, 3, 1)
    assert splat(depth, context, projection, grid=(2, 16, 16)).sum() == 11
    assert splat(depth, context, projection, grid=(3, 16, 16))[0, 0, 8, 10] == 111


@pytest.mark.parametrize(
    ("offset", "floor", "trunc"), [(-0.5, 0, 1), (-1.0, 0, 0), (0.0, 1, 1), (16.0, 0, 0)]
)
@pytest.mark.parametrize("row", [0, 1])
def test_borders(row, offset, floor, trunc):
    projection = torch.zeros(1, 1, 3, 4)
    projection[0, 0, row, 3] = offset
    depth, context = torch.ones(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    assert splat(depth, context, projection, bins=(1.0,), rounding="floor").sum() == floor
    assert splat(depth, context, projection, bins=(1.0,), rounding="trunc").sum() == trunc


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e9, 3e38])
@pytest.mark.parametrize("entry", [2, 3])
def test_cameras_gone_astray_add_nothing(bad, entry):
    projection = forward_camera(1, 3).repeat(1, 2, 1, 1)
    projection[0, 1, :, entry] = bad
    generator = torch.Generator().manual_seed(0)
    depth, context = (
        torch.rand(1, 2, 3, 1, 3, generator=generator),
        torch.rand(1, 2, 2, 1, 3, generator=generator),
    )
    alone = splat(depth[:, :1], context[:, :1], projection[:, :1])
    torch.testing.assert_close(splat(depth, context, projection), alone)


@pytest.mark.parametrize("empty", ["batch", "cameras", "bins", "channels", "height", "width"])
def test_empty_input_gives_an_empty_map(empty):
    sizes = dict.fromkeys(("batch", "cameras", "bins", "channels", "height", "width"), 2) | {empty: 0}
    b, n, d, c, h, w = sizes.values()
    depth = torch.rand(b, n, d, h, w, requires_grad=True)
    context = torch.rand(b, n, c, h, w, requires_grad=True)
    bev = lift_splat(depth, context, torch.zeros(b, n, 3, 4), torch.arange(float(d)), GRID)
    assert bev.shape == (b, c, 16, 16)
    bev.sum().backward()
    assert depth.grad.shape == depth.shape
    assert context.grad.shape == context.shape


def random_case(dtype=torch.float32, seed=0):
    """Two cameras whose points fall on and around a small grid with three layers."""
    generator = torch.Generator().manual_seed(seed)
    depth = torch.rand(2, 2, 5, 3, 4, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 2, 6, 3, 4, generator=generator, dtype=torch.float64)
    projection = torch.randn(2, 2, 3, 4, generator=generator, dtype=torch.float64)
    projection *= torch.tensor([0.3, 0.3, 0.5, 1])
    projection[..., 3] += torch.tensor([3, 3, 1.5])
    bins = torch.linspace(1, 4, 5, dtype=torch.float64)
    return [x.to(dtype) for x in (depth, context, projection, bins)]


def materialised(depth, context, projection, bins):
    """The frustum written out: BEV position and lifted feature of every point."""
    d, h, w = depth.shape[2:]
    j, i = torch.arange(w).to(depth), torch.arange(h).to(depth)[:, None]
    z = bins[:, None, None].expand(d, h, w)
    points = torch.stack([j * z, i * z, z, torch.ones_like(z)], dim=-1)
    coords = torch.einsum("bnrk,dhwk->bndhwr", projection, points)
    volume = depth[..., None] * context.permute(0, 1, 3, 4, 2)[:, :, None]
    return coords.flatten(1, 4), volume.flatten(1, 4)


@pytest.mark.parametrize("rounding", ["floor", "trunc"])
def test_equals_voxel_pooling_of_the_written_out_volume(rounding):
    case = random_case(torch.float64)
    coords, volume = materialised(*case)
    expected = voxel_pooling(coords, volume, (3, 6, 7), rounding)
    assert (expected != 0).any(1).double().mean() > 0.2
    torch.testing.assert_close(lift_splat(*case, (3, 6, 7), rounding), expected)


@pytest.mark.parametrize("rounding", ["floor", "trunc"])
def test_gradient(rounding):
    depth, context, projection, bins = random_case(torch.float64)
    depth, context = depth.requires_grad_(), context.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d, c: lift_splat(d, c, projection, bins, (3, 6, 7), rounding), (depth, context)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    depth = torch.ones(1, 1, 64, 64, 1, dtype=dtype)
    projection = torch.zeros(1, 1, 3, 4)
    context = torch.ones(1, 1, 1, 64, 1, dtype=dtype)
    bev = lift_splat(depth, context, projection, torch.ones(64), (1, 1, 1))
    assert bev.dtype == dtype
    assert bev.item() == 4096  # one by one, half stops growing at 2048 and bfloat16 at 256


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_depth_and_context_may_differ_in_precision(dtype):
    depth, context, projection, bins = random_case()
    exact = lift_splat(depth.to(dtype).float(), context, projection, bins, (3, 6, 7))
    torch.testing.assert_close(lift_splat(depth.to(dtype), context, projection, bins, (3, 6, 7)), exact)


def test_any_strides():
    depth, context, projection, bins = random_case()
    expected = lift_splat(depth, context, projection, bins, (3, 6, 7))
    last = context.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    turned = depth.transpose(-1, -2).contiguous().transpose(-1, -2)
    spread = torch.stack([projection, projection], dim=-1)[..., 0]
    torch.testing.assert_close(lift_splat(turned, last, spread, bins, (3, 6, 7)), expected)
