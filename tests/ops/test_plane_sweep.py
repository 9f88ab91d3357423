import math

import pytest
import torch

from bev_ops import homography_warp, plane_sweep_correlation

IDENTITY = torch.eye(3, 4)[None]


def ramp(height=4, width=6, channels=1):
    """A map whose value is 10 * row + column, plus 100 per channel."""
    i, j = torch.arange(float(height))[:, None], torch.arange(float(width))
    return torch.stack([100 * c + 10 * i + j for c in range(channels)])[None]


def sideways(metres, focal=1.0):
    """A source camera `metres` to the right of the reference: cells shift left by focal * metres / depth."""
    matrix = IDENTITY.clone()
    matrix[0, 0, 3] = -focal * metres
    return matrix


@pytest.mark.parametrize("depth", [0.5, 1.0, 37.0])
def test_an_unmoved_camera_sees_every_cell_where_it_was(depth):
    source = ramp(channels=2)
    warped = homography_warp(source, IDENTITY, torch.full((1, 3, 4, 6), depth))
    torch.testing.assert_close(warped, source[:, :, None].expand(1, 2, 3, 4, 6))


def test_parallax_is_baseline_times_focal_over_depth():
    depth = torch.full((1, 2, 4, 6), 2.0)
    depth[:, 1] = 8.0
    warped = homography_warp(ramp(), sideways(4.0), depth)[0, 0]
    assert warped[0, 1, 4] == 12  # two cells to the left
    assert warped[1, 1, 4] == 13.5  # half a cell: the mean of two cells
    assert warped[0, 1, 1].abs() < 1e-5  # one cell outside the image


def test_every_cell_has_its_own_depth():
    depth = torch.full((1, 1, 4, 6), 4.0)
    depth[0, 0, 2, 5] = 1.0
    warped = homography_warp(ramp(), sideways(4.0), depth)[0, 0, 0]
    assert warped[2, 5] == 21
    assert warped[2, 4] == 23


def test_borders_fade_to_zero_within_one_cell():
    source = torch.ones(1, 1, 1, 4)
    depth = torch.ones(1, 1, 1, 4)
    for shift, expected in (
        (0.5, [0.5, 1, 1, 1]),
        (-0.25, [1, 1, 1, 0.75]),
        (1.0, [0, 1, 1, 1]),
        (5, [0] * 4),
    ):
        assert homography_warp(source, sideways(shift), depth)[0, 0, 0, 0].tolist() == expected


def test_source_may_have_another_size_than_reference():
    matrix = IDENTITY.clone()
    matrix[0, 0, 0] = matrix[0, 1, 1] = 2
    warped = homography_warp(ramp(8, 12), matrix, torch.ones(1, 1, 4, 6))
    torch.testing.assert_close(warped[0, 0, 0], ramp(8, 12)[0, 0, ::2, ::2])


@pytest.mark.parametrize("depth", [-5.0, 0.0, -0.0, 9e-4, math.nan, math.inf, -math.inf])
def test_what_is_behind_or_nowhere_is_zero(depth):
    warped = homography_warp(ramp() + 1, sideways(1.0), torch.full((1, 1, 4, 6), depth))
    assert warped.abs().sum() == 0


def test_exactly_on_the_plane_of_the_source_camera():
    backwards = IDENTITY.clone()
    backwards[0, 2, 3] = -3.0  # the source camera stands 3 m ahead
    depth = torch.full((1, 2, 4, 6), 3.0)
    depth[:, 1] = 5.0
    warped = homography_warp(ramp() + 1, backwards, depth)
    assert warped[:, :, 0].abs().sum() == 0
    assert warped[:, :, 1].abs().sum() > 0


def test_behind_may_read_the_corner_as_published_weights_expect():
    source = torch.zeros(1, 1, 4, 6)
    source[..., -1, -1] = 16
    warped = homography_warp(source, IDENTITY, torch.full((1, 1, 4, 6), -1.0), behind="corner")
    # pixel (4w, 4h) of a stride-4 map: a little more than a quarter of a cell inside per axis
    across = [0.5 - n / (4 * n - 1) for n in (6, 4)]
    torch.testing.assert_close(warped, torch.full_like(warped, 16 * across[0] * across[1]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30, 3e38])
@pytest.mark.parametrize("entry", [(0, 0), (0, 3), (1, 2), (2, 2)])
def test_a_camera_gone_astray_sees_nothing_and_harms_nobody(bad, entry):
    projection = IDENTITY.repeat(2, 1, 1)
    projection[(1, *entry)] = bad
    source = ramp().repeat(2, 1, 1, 1) + 1
    warped = homography_warp(source, projection, torch.full((2, 1, 4, 6), 2.0))
    torch.testing.assert_close(warped[0, :, 0], source[0])
    assert warped.isfinite().all()


@pytest.mark.parametrize("empty", ["batch", "channels", "height", "width", "hypotheses", "rows", "columns"])
def test_empty_input_gives_empty_maps(empty):
    sizes = dict.fromkeys(("batch", "channels", "height", "width", "hypotheses", "rows", "columns"), 2) | {
        empty: 0
    }
    b, c, h, w, d, rows, columns = sizes.values()
    source = torch.rand(b, c, h, w)
    depth = torch.ones(b, d, rows, columns)
    matrix = IDENTITY.expand(b, 3, 4)
    assert homography_warp(source, matrix, depth).shape == (b, c, d, rows, columns)
    ref = torch.rand(b, c, rows, columns)
    if c == 0:  # the mean over no channels is nothing
        with pytest.raises(ValueError, match=r"at least one channel \(C\), got 0"):
            plane_sweep_correlation(ref, source, matrix, depth, groups=1)
        return
    assert plane_sweep_correlation(ref, source, matrix, depth, groups=1).shape == (b, 1, d, rows, columns)


def random_case(dtype=torch.float64, channels=4):
    """Reference, source, projection, depth: points in, beside and behind the source view."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    projection = torch.eye(3, 4, dtype=torch.float64) + 0.1 * random(2, 3, 4)
    depth = 3 + 2 * random(2, 3, 4, 5)
    return [x.to(dtype) for x in (random(2, channels, 4, 5), random(2, channels, 6, 7), projection, depth)]


@pytest.mark.parametrize("behind", ["zero", "corner"])
def test_gradient_of_the_warp(behind):
    _, source, projection, depth = random_case()
    source, projection, depth = source.requires_grad_(), projection.requires_grad_(), depth.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s, p, d: homography_warp(s, p, d, behind), (source, projection, depth)
    )


def test_gradient_of_the_correlation():
    inputs = [x.requires_grad_() for x in random_case()]
    assert torch.autograd.gradcheck(lambda *x: plane_sweep_correlation(*x, groups=2), inputs)


def test_gradients_of_hidden_points_are_zero_not_nan():
    depth = torch.tensor([0.0, -1.0, 1e-4, 2.0]).view(1, 4, 1, 1).expand(1, 4, 4, 6).clone().requires_grad_()
    homography_warp(ramp(), sideways(0.3), depth).square().sum().backward()
    assert depth.grad.isfinite().all()
    assert depth.grad[:, :3].abs().sum() == 0
    assert depth.grad[:, 3].abs().sum() > 0


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("behind", ["zero", "corner"])
def test_correlation_is_the_group_mean_of_reference_times_warp(groups, behind):
    reference, source, projection, depth = random_case(channels=8)
    warped = homography_warp(source, projection, depth, behind)
    expected = (reference[:, :, None] * warped).unflatten(1, (groups, 8 // groups)).mean(2)
    found = plane_sweep_correlation(reference, source, projection, depth, groups, behind)
    assert (expected != 0).double().mean() > 0.2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_and_exact_positions(dtype):
    # Cell 1600 times 41 m is beyond half precision; positions must not suffer.
    width, depth = 1601, torch.full((1, 1, 1, 1601), 41.0)
    source = torch.arange(width).remainder(7).to(dtype).view(1, 1, 1, width)
    warped = homography_warp(source, IDENTITY, depth)
    assert warped.dtype == dtype
    torch.testing.assert_close(warped[0, 0, 0], source[0, 0], atol=0.01, rtol=0)
    correlation = plane_sweep_correlation(source, source, IDENTITY, depth, groups=1)
    assert correlation.dtype == dtype
    torch.testing.assert_close(correlation[0, 0, 0], source[0, 0] ** 2, atol=0.25, rtol=0)


def test_autocast_does_not_touch_positions():
    source, depth = ramp(4, 300), torch.full((1, 1, 4, 300), 45.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        warped = homography_warp(source, sideways(3.0), depth)
    torch.testing.assert_close(warped, homography_warp(source, sideways(3.0), depth))


def test_any_strides():
    reference, source, projection, depth = random_case(torch.float32)
    expected = plane_sweep_correlation(reference, source, projection, depth, groups=2)
    found = plane_sweep_correlation(
        reference.contiguous(memory_format=torch.channels_last),
        source.contiguous(memory_format=torch.channels_last),
        torch.stack([projection, projection], dim=-1)[..., 0],
        depth.transpose(-1, -2).contiguous().transpose(-1, -2),
        groups=2,
    )
    torch.testing.assert_close(found, expected)


def folded(case, goldens, stride):
    """The projection of a reference case, composed in float64 with BEVStereo's conventions."""
    name = f"warp.{case}."
    out = goldens(name + "out")
    h, w = out.shape[-2:]
    intrinsics, source_intrinsics, motion, image_aug, source_image_aug = (
        goldens(name + key).double()
        for key in ("intrinsics", "source_intrinsics", "motion", "image_aug", "source_image_aug")
    )
    cell_to_pixel = torch.eye(4, dtype=torch.float64)  # first and last cell on the first and last pixel
    cell_to_pixel[0, 0], cell_to_pixel[1, 1] = (w * stride - 1) / (w - 1), (h * stride - 1) / (h - 1)
    pixel_to_cell = torch.eye(4, dtype=torch.float64)  # normalised as stride 4 whatever the stride
    for axis, size in enumerate((w, h)):
        pixel_to_cell[axis, axis], pixel_to_cell[axis, 2] = size / (size * 4 - 1), -0.5
    # Affine in (u, v, z, 1): a translation in column 3 multiplies depth once cells are times depth.
    to_ray = torch.linalg.inv(_times_depth(image_aug) @ intrinsics) @ cell_to_pixel
    chain = pixel_to_cell @ _times_depth(source_image_aug) @ source_intrinsics @ motion @ to_ray
    return chain[:, :3].float()


def _times_depth(image_aug):
    """Image augmentation for homogeneous pixels (u*z, v*z, z, 1): its translation moves to column 2."""
    moved = image_aug.clone()
    moved[:, :2, 2], moved[:, :2, 3] = image_aug[:, :2, 3], 0
    return moved


@pytest.mark.parametrize(
    ("case", "stride"),
    [
        ("A_identity", 4),
        ("B_real_ref0", 4),
        ("B_real_ref1", 4),
        ("C_behind", 4),
        ("D_rotated_out_of_image", 4),
        ("F_nonpositive_depth", 4),
        ("E_mask_16", 16),
    ],
)
def test_reference_values(case, stride, goldens):
    warped = homography_warp(
        goldens(f"warp.{case}.source"),
        folded(case, goldens, stride),
        goldens(f"warp.{case}.depth"),
        behind="corner",
    )
    expected = goldens(f"warp.{case}.out")
    assert (warped - expected).norm() <= 1e-4 * expected.norm()
    # The reference chains float32 matrices: single points near a camera's plane wander by a few thousandths.
    assert (warped - expected).abs().quantile(0.999) < 1e-3


def test_where_the_reference_gives_nan_there_is_a_number(goldens):
    expected = goldens("warp.G_exact_zero.out")
    assert expected.isnan().any()
    motion = goldens("warp.G_exact_zero.s2s")[0, :, :3]
    warped = homography_warp(
        goldens("warp.G_exact_zero.feat"), motion, goldens("warp.G_exact_zero.depth"), behind="corner"
    )
    assert warped.isfinite().all()
