"""Poolings by other projects' names: their sums, shapes and gradients, written out point by point."""

import pytest
import torch
from torch import Tensor

from bev_ops.compat import bev_pool, bev_pool_v2


def v2_case() -> tuple[Tensor, Tensor, list[Tensor], tuple[int, ...]]:
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(2, 1, 3, 2, 4, generator=generator, dtype=torch.float64)
    feat = torch.rand(2, 1, 2, 4, 5, generator=generator, dtype=torch.float64)
    limits = depth.numel(), feat.numel() // 5, 2 * 2 * 3 * 4
    ranks = [torch.randint(0, limit, (40,), generator=generator, dtype=torch.int32) for limit in limits]
    return depth, feat, ranks, (2, 2, 3, 4, 5)


def test_bev_pool_v2_point_by_point() -> None:
    depth, feat, ranks, shape = v2_case()
    wanted = torch.zeros(2 * 2 * 3 * 4, 5, dtype=torch.float64)
    for d, f, cell in zip(*(rank.tolist() for rank in ranks), strict=True):
        wanted[cell] += depth.flatten()[d] * feat.flatten(0, 3)[f]
    got = bev_pool_v2(depth, feat, *ranks, shape, ranks[0][:1], ranks[0][:1])
    assert got.shape == (2, 5, 2, 3, 4)
    torch.testing.assert_close(got, wanted.view(shape).permute(0, 4, 1, 2, 3), check_stride=False)


def test_bev_pool_point_by_point() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(30, 5, generator=generator, dtype=torch.float64)
    coords = torch.stack([torch.randint(-1, n + 1, (30,), generator=generator) for n in (3, 4, 2, 2)], 1)
    wanted = torch.zeros(2, 2, 3, 4, 5, dtype=torch.float64)
    for point, (h, w, d, b) in zip(x, coords.tolist(), strict=True):
        if 0 <= h < 3 and 0 <= w < 4 and 0 <= d < 2 and 0 <= b < 2:
            wanted[b, d, h, w] += point
    got = bev_pool(x, coords, 2, 2, 3, 4)
    torch.testing.assert_close(got, wanted.permute(0, 4, 1, 2, 3), check_stride=False)
    assert got.count_nonzero() > 0


def test_gradients() -> None:
    depth, feat, ranks, shape = v2_case()
    leaves = depth.requires_grad_(), feat.requires_grad_()
    assert torch.autograd.gradcheck(lambda d, f: bev_pool_v2(d, f, *ranks, shape), leaves)


@pytest.mark.usefixtures("unchecked_shapes")
def test_wrong_arguments() -> None:
    depth, feat, ranks, shape = v2_case()
    with pytest.raises(ValueError, match=r"bev_feat_shape must be \(B, Z, Y, X, C\) with B = 2 .* C = 5"):
        bev_pool_v2(depth, feat, *ranks, (*shape[:4], 6))
    with pytest.raises(ValueError, match=r"ranks_feat must be of whole numbers, got torch\.float32"):
        bev_pool_v2(depth, feat, ranks[0], ranks[1].float(), ranks[2], shape)
    with pytest.raises(ValueError, match="B, D, H and W must be positive"):
        bev_pool(torch.zeros(1, 2), torch.zeros(1, 4, dtype=torch.int64), 1, 1, 0, 1)
