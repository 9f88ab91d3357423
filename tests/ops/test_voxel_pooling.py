import pytest
import torch

from bev_ops import voxel_pooling


def pool(points, features, grid=(1, 4, 5), rounding="floor", dtype=torch.float32):
    """Pool one sample given as lists."""
    return voxel_pooling(
        torch.tensor([points], dtype=dtype), torch.tensor([features], dtype=torch.float32), grid, rounding
    )[0]


def test_a_point_adds_its_features_to_row_y_and_column_x():
    bev = pool([[3.4, 1.6, 0.0]], [[2.0, -1.0]])
    assert bev.shape == (2, 4, 5)
    assert bev[:, 1, 3].tolist() == [2.0, -1.0]
    assert bev.abs().sum() == 3


def test_points_of_one_cell_are_summed_over_height_too():
    bev = pool([[0, 0, 0], [0.9, 0.9, 2.9], [0.5, 0.5, 1.0]], [[1.0], [2.0], [4.0]], grid=(3, 4, 5))
    assert bev[0, 0, 0] == 7
    assert bev.sum() == 7


def test_samples_of_a_batch_stay_apart():
    coords = torch.tensor([[[1.0, 1.0, 0.0]], [[1.0, 1.0, 0.0]]])
    bev = voxel_pooling(coords, torch.tensor([[[1.0]], [[5.0]]]), (1, 4, 5))
    assert bev[:, 0, 1, 1].tolist() == [1.0, 5.0]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("position", "rounding", "kept"),
    [
        (0.0, "floor", True),
        (-0.0, "floor", True),
        (-1e-6, "floor", False),
        (-0.999, "floor", False),
        (-0.999, "trunc", True),
        (-1.0, "trunc", False),
        (2.999, "floor", True),
        (3.0, "floor", False),
        (3.0, "trunc", False),
    ],
)
def test_borders(axis, position, rounding, kept):
    point = [1.5, 1.5, 1.5]
    point[axis] = position
    bev = pool([point], [[1.0]], grid=(3, 3, 3), rounding=rounding)
    assert bev.sum() == float(kept)


def test_truncation_folds_points_below_the_low_edge_into_the_first_cell():
    bev = pool([[-0.5, 2.0, 0.0]], [[1.0]], rounding="trunc")
    assert bev[0, 2, 0] == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e9, -1e9, 3e38])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("rounding", ["floor", "trunc"])
def test_points_nowhere_add_nothing(bad, axis, rounding):
    point = [1.0, 1.0, 0.0]
    point[axis] = bad
    assert pool([point, [1.0, 1.0, 0.0]], [[7.0], [1.0]], rounding=rounding).sum() == 1


def test_the_features_of_points_outside_do_not_matter():
    bev = pool([[9.0, 0.0, 0.0], [1.0, 1.0, 0.0]], [[float("nan")], [1.0]])
    assert bev.sum() == 1


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int16, torch.float64, torch.float16])
def test_coordinates_of_any_number_type(dtype):
    bev = pool([[3, 1, 0], [-1, 0, 0]], [[1.0], [1.0]], dtype=dtype)
    assert bev[0, 1, 3] == 1
    assert bev.sum() == 1


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_empty_input_gives_an_empty_map(shape):
    batch, points, channels = shape
    features = torch.zeros(batch, points, channels, requires_grad=True)
    bev = voxel_pooling(torch.zeros(batch, points, 3), features, (1, 4, 5))
    assert bev.shape == (batch, channels, 4, 5)
    assert bev.abs().sum() == 0
    bev.sum().backward()
    assert features.grad.shape == features.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    features = torch.full((1, 4096, 1), 1.0, dtype=dtype)
    bev = voxel_pooling(torch.zeros(1, 4096, 3), features, (1, 1, 1))
    assert bev.dtype == dtype
    assert bev.item() == 4096  # one by one, half stops growing at 2048 and bfloat16 at 256


def test_double_stays_double():
    features = torch.tensor([[[1.0], [1e-12]]], dtype=torch.float64)
    assert voxel_pooling(torch.zeros(1, 2, 3), features, (1, 1, 1)).item() == 1 + 1e-12


def test_any_strides():
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(2, 3, 50, generator=generator).mul(6).sub(0.5).transpose(1, 2)
    features = torch.randn(2, 8, 100, generator=generator).transpose(1, 2)[:, ::2, ::2]
    expected = voxel_pooling(coords.contiguous(), features.contiguous(), (5, 4, 5))
    torch.testing.assert_close(voxel_pooling(coords, features, (5, 4, 5)), expected)


@pytest.mark.parametrize("rounding", ["floor", "trunc"])
def test_gradient(rounding):
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(2, 30, 3, generator=generator).mul(6).sub(1)
    features = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: voxel_pooling(coords, f, (4, 3, 5), rounding), features)


def test_reference_values(goldens):
    coords, features = goldens("vp.coord_float"), goldens("vp.feat").requires_grad_()
    x_size, y_size, z_size = goldens("vp.voxel_num").tolist()
    bev = voxel_pooling(coords, features, (z_size, y_size, x_size), rounding="trunc")
    torch.testing.assert_close(bev, goldens("vp.out"))
    bev.backward(goldens("vp.grad_out"))
    torch.testing.assert_close(features.grad, goldens("vp.grad_feat"))
    same = voxel_pooling(goldens("vp.coord_int"), features, (z_size, y_size, x_size))
    torch.testing.assert_close(same, bev)
