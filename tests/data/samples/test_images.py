"""The fast way from a file to the input's pixels, against the published one."""

import numpy as np
import pytest
from PIL import Image

from bev_data.infos.info import CameraFrame
from bev_data.samples.augment import (
    ImageAugmentation,
    ImageTransform,
    draw_image_transform,
    evaluation_transform,
)
from bev_data.samples.dataset import History, KeyFrameDataset, SampleOptions
from bev_data.samples.images import load_image, place_image, read_image, read_pixels

SIZE = (320, 180)
INPUT = (96, 64)


def photograph(size):
    """Shapes and grain, which a JPEG of a street has too."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)).resize(size, Image.NEAREST)
    return Image.fromarray((np.asarray(coarse) * 0.8 + rng.uniform(0, 50, (*size[::-1], 3))).astype(np.uint8))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    picture = photograph(SIZE)
    for name in ("photo.jpg", "photo.JPEG", "photo.png"):
        picture.save(folder / name)
    picture.convert("L").save(folder / "gray.jpg")
    return folder


def frame(name, size=SIZE):
    return CameraFrame(name, 0, np.eye(4), np.eye(4), np.eye(3), *size)


def transforms():
    rng = np.random.default_rng(1)
    drawn = [
        draw_image_transform(ImageAugmentation(resize=(0.5, 1.6), rotate_deg=20), SIZE, INPUT, rng)
        for _ in range(12)
    ]
    known = drawn[0]._replace(rotate_deg=0.0), drawn[1]._replace(rotate_deg=180.0)
    return [evaluation_transform(SIZE, INPUT), *known, drawn[2]._replace(rotate_deg=-90.0), *drawn]


def pixels(root, name, transform, decoding):
    out = np.full((3, INPUT[1], INPUT[0]), 77, dtype=np.uint8)
    load_image(root, frame(name), transform, decoding, out)
    return out.astype(int)


def test_exact_is_the_published_pipeline(root):
    for transform in transforms():
        expected = np.asarray(transform.apply(read_image(root, frame("photo.jpg")))).transpose(2, 0, 1)
        np.testing.assert_array_equal(pixels(root, "photo.jpg", transform, "exact"), expected)


@pytest.mark.parametrize("name", ["photo.jpg", "photo.JPEG", "photo.png", "gray.jpg"])
def test_fast_differs_by_rounding_only(root, name):
    differences = [
        np.abs(pixels(root, name, transform, "fast") - pixels(root, name, transform, "exact"))
        for transform in transforms()
    ]
    assert np.max(differences) <= 1
    assert np.mean(differences) < 0.02


@pytest.mark.parametrize("rotate", [0.0, 5.4, -5.4, 90.0, 180.0, -180.0, 33.3])
@pytest.mark.parametrize("flip", [False, True])
def test_crop_flip_and_rotation_are_the_published_ones_bit_by_bit(rotate, flip):
    """Beyond the borders of the image, too."""
    picture = photograph((120, 80))
    for crop in ((10, 5), (-7, 30), (40, -11)):
        transform = ImageTransform(1.0, (120, 80), crop, INPUT, flip, rotate)
        out = np.full((3, INPUT[1], INPUT[0]), 77, dtype=np.uint8)
        place_image(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]), transform, out)
        np.testing.assert_array_equal(out, np.asarray(transform.apply(picture)).transpose(2, 0, 1))


@pytest.mark.parametrize("case", "abcdef")
def test_fast_meets_the_published_images(goldens, case):
    arrays = goldens.arrays
    scale, width, height, left, top, right, bottom, flip, rotate = arrays[f"img.{case}.params"].tolist()
    transform = ImageTransform(
        scale,
        (int(width), int(height)),
        (int(left), int(top)),
        (int(right - left), int(bottom - top)),
        bool(flip),
        rotate,
    )
    expected = arrays[f"img.{case}.out"].transpose(2, 0, 1)
    out = np.empty(expected.shape, dtype=np.uint8)
    place_image(np.ascontiguousarray(arrays["img.src"][:, :, ::-1]), transform, out)
    assert np.abs(out.astype(int) - expected).max() <= 1


def test_decoding_is_bit_identical(root):
    """What is fast about decoding is not what it computes."""
    decoded = read_pixels(root, frame("photo.jpg"))[:, :, ::-1]
    np.testing.assert_array_equal(decoded, np.asarray(read_image(root, frame("photo.jpg"))))


def test_an_image_is_not_turned_by_its_tag(root, tmp_path):
    """A calibration belongs to the pixels as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by a quarter
    Image.open(root / "photo.jpg").save(tmp_path / "tagged.jpg", exif=exif)
    assert read_pixels(tmp_path, frame("tagged.jpg")).shape == (180, 320, 3)


def test_what_cannot_be_read_is_named(root, tmp_path):
    whole = (root / "photo.jpg").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not an image"):
        (tmp_path / "bad.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged file: .*bad\.jpg"):
            read_pixels(tmp_path, frame("bad.jpg"))
    with pytest.raises(ValueError, match=r"10x10 pixels .*, got 320x180: .*photo\.jpg"):
        read_pixels(root, frame("photo.jpg", (10, 10)))
    with pytest.raises(FileNotFoundError, match=r"image .*none\.jpg is missing"):
        read_pixels(root, frame("none.jpg"))


def test_training_is_fast_unless_told_otherwise_and_evaluation_exact(database, mini_val):
    def images(**settings):
        dataset = KeyFrameDataset(
            mini_val, database, image_size=(32, 64), history=History(frames=0), lidar_depth=False, **settings
        )
        return dataset[1].images.numpy().astype(int)

    def exact(training):
        return images(training=training, options=SampleOptions(decoding="exact"))

    np.testing.assert_array_equal(images(), exact(training=False))
    difference = np.abs(images(training=True) - exact(training=True))
    assert 0 < difference.max() <= 1
