"""Augmentation of images, depth maps and boxes, against the published implementation and by hand."""

import numpy as np
import pytest
from PIL import Image

from bev_data.infos.info import CameraFrame
from bev_data.samples.augment import (
    BevAugmentation,
    ImageAugmentation,
    ImageTransform,
    Placing,
    augment_boxes,
    bev_matrix,
    draw_bev_matrix,
    draw_image_transform,
    evaluation_transform,
    place_depth,
)

CASES = "abcdef"


def depth_map(points, transform, **rule):
    out = np.zeros(transform.size[::-1], dtype=np.float32)
    place_depth(points, transform, out, **rule)
    return out


def golden_transform(goldens, case):
    scale, width, height, left, top, right, bottom, flip, rotate = goldens.arrays[
        f"img.{case}.params"
    ].tolist()
    return ImageTransform(
        (scale, scale),
        (int(width), int(height)),
        (int(left), int(top)),
        (int(right - left), int(bottom - top)),
        bool(flip),
        rotate,
        "published",
    )


@pytest.mark.parametrize("case", CASES)
def test_images_are_the_published_ones_bit_by_bit(goldens, case):
    image = golden_transform(goldens, case).apply(Image.fromarray(goldens.arrays["img.src"]))
    np.testing.assert_array_equal(np.asarray(image), goldens.arrays[f"img.{case}.out"])


@pytest.mark.parametrize("case", CASES)
def test_matrices_are_the_published_ones(goldens, case):
    matrix, expected = golden_transform(goldens, case).matrix(), goldens.arrays[f"img.{case}.ida"]
    # The published matrices are products in float32 of numbers up to 100.
    np.testing.assert_allclose(matrix[:2, :2], expected[:2, :2], atol=1e-6)
    np.testing.assert_allclose(matrix[:2, 2], expected[:2, 3], atol=1e-5)
    np.testing.assert_array_equal(matrix[2], [0, 0, 1])


@pytest.mark.parametrize("case", CASES)
def test_depth_maps_are_the_published_ones_bit_by_bit(goldens, case):
    points = goldens.arrays["depth.src_points"]
    depth = depth_map(points, golden_transform(goldens, case), rule="published")
    np.testing.assert_array_equal(depth, goldens.arrays[f"depth.{case}.map"])


def test_the_nearest_point_of_a_pixel_counts_and_none_folds_in_from_outside():
    transform = ImageTransform((1.0, 1.0), (8, 8), (2, 0), (4, 8), pixels="published")
    points = np.array([[3.2, 1.5, 9], [3.7, 1.1, 4], [3.1, 1.9, 6], [1.5, 3, 5]], dtype=np.float32)
    half = np.array([0.5, 0.5, 0], dtype=np.float32)
    depth = depth_map(points - half, transform._replace(pixels="centers"))
    assert depth[1, 1] == 4
    assert np.count_nonzero(depth) == 1
    published = depth_map(points, transform, rule="published")
    assert published[1, 1] == 6
    assert published[3, 0] == 5


def dot_error(transform, source, dot):
    """Distance in pixels between where a soft dot is found and where the matrix puts its middle."""
    rows, columns = np.indices(source[::-1])
    blob = 255 * np.exp(-((columns - dot[0]) ** 2 + (rows - dot[1]) ** 2) / (2 * 3.0**2))
    picture = Image.fromarray(np.repeat(blob.astype(np.uint8)[..., None], 3, axis=2))
    image = np.asarray(transform.apply(picture), dtype=np.float64)[..., 0]
    v, u = (image[..., None] * np.stack(np.indices(image.shape), axis=-1)).sum((0, 1)) / image.sum()
    return np.abs([u, v] - (transform.matrix() @ [*dot, 1])[:2]).max()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scale", [0.4123, 0.5, 1.0, 1.37])
def test_pixels_move_as_the_matrix_says(scale, flip):
    """A soft dot is found where the matrix puts its middle, counted from the middle of the first pixel."""
    source, size = (301, 203), (96, 64)
    config = ImageAugmentation(resize=(scale, scale), resize_unit="absolute", flip=False, rotate_deg=0)
    drawn = draw_image_transform(config, source, size, np.random.default_rng(0))._replace(flip=flip)
    middle = np.linalg.inv(drawn.matrix()) @ [48.0, 32.0, 1.0]
    dot = np.clip(np.round(middle[:2]) + 0.25, 20, np.array(source) - 20)
    assert dot_error(drawn, source, dot) < 0.03
    # The published matrix is off by up to this much, which is why it is no default.
    assert dot_error(drawn._replace(pixels="published"), source, dot) > (0.7 if flip and scale < 1 else -1)


def test_a_turned_image_turns_as_the_matrix_says():
    for seed in range(4):
        config = ImageAugmentation(resize=(0.5, 0.6), resize_unit="absolute", rotate_deg=20)
        drawn = draw_image_transform(config, (301, 203), (96, 64), np.random.default_rng(seed))
        dot = (np.linalg.inv(drawn.matrix()) @ [45.0, 30.0, 1.0])[:2]
        assert dot_error(drawn, (301, 203), dot) < 0.2


# Cameras that look ahead, level, with a field of view of 65 degrees across.
CAMERAS = {"4:3": (1600, 1200), "square": (1224, 1024), "portrait": (1550, 2048), "16:9": (1600, 900)}


@pytest.mark.parametrize("size", [(704, 256), (1408, 512), (1024, 256), (352, 128)])
@pytest.mark.parametrize("source", CAMERAS.values(), ids=CAMERAS)
def test_the_horizon_is_in_the_input(source, size):
    """Of every camera, in evaluation and in every draw of training."""
    horizon = source[1] / 2
    placing = Placing(horizon=horizon)

    def row(transform):
        return (transform.matrix() @ [source[0] / 2, horizon, 1])[1]

    fixed = evaluation_transform(source, size, placing)
    assert 0.16 * size[1] <= row(fixed) < 0.5 * size[1]
    assert 0 <= fixed.crop[1] <= fixed.resized[1] - size[1]
    config = ImageAugmentation(rotate_deg=0)
    drawn = [draw_image_transform(config, source, size, np.random.default_rng(s), placing) for s in range(50)]
    assert all(0 <= row(transform) < 0.5 * size[1] for transform in drawn)
    if source != CAMERAS["16:9"] or size == (1024, 256):
        assert row(evaluation_transform(source, size)) < 0.04 * size[1]


@pytest.mark.parametrize("horizon", [440.0, 450.0, 491.0, float("inf")])
def test_the_crop_of_nuscenes_stays_the_published_one(horizon):
    published, placed = Placing(), Placing(horizon=horizon)
    source, size = (1600, 900), (704, 256)
    assert evaluation_transform(source, size, placed) == evaluation_transform(source, size, published)
    for seed in range(20):
        drawn = [
            draw_image_transform(ImageAugmentation(), source, size, np.random.default_rng(seed), placing)
            for placing in (published, placed)
        ]
        assert drawn[0] == drawn[1]


@pytest.mark.parametrize("horizon", [float("-inf"), -300.0, 20.0])
def test_a_camera_that_looks_down_keeps_its_upper_end(horizon):
    transform = evaluation_transform((1600, 900), (704, 256), Placing(horizon=horizon))
    assert transform.crop == (0, 0)


def test_the_horizon_of_a_camera_follows_its_mounting():
    level = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    intrinsics = np.array([[800.0, 0, 500], [0, 800, 300], [0, 0, 1]])

    def camera(pitch):
        """Nose down is positive."""
        cos, sin = np.cos(pitch), np.sin(pitch)
        turn = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]])
        return CameraFrame("x.jpg", 0, level @ np.linalg.inv(turn), np.eye(4), intrinsics, 1000, 600)

    assert camera(0).horizon == pytest.approx(300)
    assert camera(0.1).horizon == pytest.approx(300 - 800 * np.tan(0.1))
    assert camera(-0.1).horizon == pytest.approx(300 + 800 * np.tan(0.1))
    assert camera(np.pi / 2).horizon == -np.inf
    assert camera(-np.pi / 2).horizon == np.inf


@pytest.mark.parametrize("source", [(1600, 900), (800, 450), (1920, 1080), (64, 48), (500, 900)])
def test_evaluation_covers_the_input_and_keeps_the_bottom(source):
    transform = evaluation_transform(source, (704, 256))
    assert transform.resized[0] >= 704
    assert transform.resized[1] >= 256
    assert transform.crop[1] + 256 == transform.resized[1]
    margins = transform.crop[0], transform.resized[0] - 704 - transform.crop[0]
    assert abs(margins[0] - margins[1]) <= 1
    assert not transform.flip
    assert transform.rotate_deg == 0


def test_published_evaluation():
    transform = evaluation_transform((1600, 900), (704, 256))
    assert transform.scale == pytest.approx((0.44, 0.44))
    assert transform.resized == (704, 396)
    assert transform.crop == (0, 140)


def test_relative_and_absolute_resize_say_the_same_for_nuscenes():
    relative = ImageAugmentation()
    absolute = ImageAugmentation(resize=(0.386, 0.55), resize_unit="absolute")
    for seed in range(5):
        a = draw_image_transform(relative, (1600, 900), (704, 256), np.random.default_rng(seed))
        b = draw_image_transform(absolute, (1600, 900), (704, 256), np.random.default_rng(seed))
        assert a.scale == pytest.approx(b.scale)
        assert a[1:] == b[1:]


def test_draws_stay_in_their_ranges_and_reach_them():
    config = ImageAugmentation(resize=(1.0, 1.5), crop_bottom=(0.0, 0.2), rotate_deg=4)
    drawn = [
        draw_image_transform(config, (200, 100), (128, 64), np.random.default_rng(s)) for s in range(300)
    ]
    scales = np.array([t.resized[0] / 128 for t in drawn])
    assert 1 <= scales.min() < 1.02
    assert 1.48 < scales.max() <= 1.5
    turns = np.array([t.rotate_deg for t in drawn])
    assert abs(turns).max() <= 4
    assert turns.min() < -3.9
    assert 0.4 < np.mean([t.flip for t in drawn]) < 0.6
    cut = np.array([(t.resized[1] - t.crop[1] - 64) / t.resized[1] for t in drawn])
    assert cut.min() >= 0
    assert 0.18 < cut.max() <= 0.21
    assert all(0 <= t.crop[0] <= t.resized[0] - 128 for t in drawn)


def test_nothing_is_drawn_where_ranges_are_closed():
    config = ImageAugmentation(resize=(1.0, 1.0), flip=False, rotate_deg=0)
    drawn = draw_image_transform(config, (1600, 900), (704, 256), np.random.default_rng(3))
    assert drawn == evaluation_transform((1600, 900), (704, 256))
    still = BevAugmentation(rotate_deg=0, scale=(1.0, 1.0), flip_x=False, flip_y=False)
    np.testing.assert_array_equal(draw_bev_matrix(still, np.random.default_rng(3)), np.eye(4))


@pytest.mark.parametrize("case", ["id", "a", "b", "c"])
def test_boxes_are_the_published_ones(goldens, case):
    rotate, scale, flip_x, flip_y = goldens.arrays[f"bda.{case}.params"].tolist()
    matrix = bev_matrix(rotate_deg=rotate, scale=scale, flip_x=bool(flip_x), flip_y=bool(flip_y))
    np.testing.assert_allclose(matrix[:3, :3], goldens.arrays[f"bda.{case}.mat"], atol=1e-6)
    difference = augment_boxes(goldens.arrays["bda.src"], matrix) - goldens.arrays[f"bda.{case}.boxes"]
    # Yaw is the same up to full turns.
    difference[:, 6] = (difference[:, 6] + np.pi) % (2 * np.pi) - np.pi
    # The published boxes are float32 with coordinates up to 60 m.
    np.testing.assert_allclose(difference, 0, atol=1e-5)


def test_a_box_keeps_its_corners_under_augmentation():
    """Corners of the augmented box are the augmented corners, and it drives where it heads."""

    def corners(box):
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        local = signs * box[3:6] / 2
        cos, sin = np.cos(box[6]), np.sin(box[6])
        return local @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]).T + box[:3]

    box = np.array([[10.0, -4.0, 1.0, 4.5, 2.0, 1.6, 0.7, 3 * np.cos(0.7), 3 * np.sin(0.7)]])
    for seed in range(8):
        matrix = draw_bev_matrix(
            BevAugmentation(rotate_deg=180, scale=(0.5, 2.0)), np.random.default_rng(seed)
        )
        moved = augment_boxes(box, matrix)[0]
        expected = corners(box[0]) @ matrix[:3, :3].T
        got = corners(moved)
        # A mirrored box has the same corners in another order.
        distances = np.linalg.norm(expected[:, None] - got[None], axis=-1)
        np.testing.assert_allclose(distances.min(axis=1), 0, atol=1e-9)
        assert np.arctan2(moved[8], moved[7]) == pytest.approx(moved[6])


def test_unknown_velocity_stays_unknown():
    box = np.array([[1.0, 2, 0, 4, 2, 1, 0.1, np.nan, np.nan]])
    moved = augment_boxes(box, bev_matrix(rotate_deg=10, scale=1.1, flip_x=True, flip_y=False))
    assert np.isnan(moved[0, 7:]).all()
    assert np.isfinite(moved[0, :7]).all()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        (ImageAugmentation, {"resize": (0.0, 1.0)}, r"0 < low <= high, got \(0.0, 1.0\)"),
        (ImageAugmentation, {"resize": (2.0, 1.0)}, "0 < low <= high"),
        (ImageAugmentation, {"resize_unit": "pixels"}, "'relative' or 'absolute', got 'pixels'"),
        (ImageAugmentation, {"crop_bottom": (0.0, 1.0)}, "0 <= low <= high < 1"),
        (ImageAugmentation, {"rotate_deg": -1.0}, r"rotate_deg must be in \[0, 180\] degrees, got -1"),
        (BevAugmentation, {"rotate_deg": 200.0}, r"in \[0, 180\] degrees, got 200"),
        (BevAugmentation, {"scale": (1.1, 0.9)}, "0 < low <= high"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(config, arguments, message):
    with pytest.raises(ValueError, match=message):
        config(**arguments)
