"""The fast way from a file to the input's pixels, against the published one."""

import re

import cv2
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
        transform = ImageTransform((1.0, 1.0), (120, 80), crop, INPUT, flip, rotate)
        out = np.full((3, INPUT[1], INPUT[0]), 77, dtype=np.uint8)
        place_image(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]), transform, out)
        np.testing.assert_array_equal(out, np.asarray(transform.apply(picture)).transpose(2, 0, 1))


@pytest.mark.parametrize("case", "abcdef")
def test_fast_meets_the_published_images(goldens, case):
    arrays = goldens.arrays
    scale, width, height, left, top, right, bottom, flip, rotate = arrays[f"img.{case}.params"].tolist()
    transform = ImageTransform(
        (scale, scale),
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


def random_pixels(shape, dtype=np.uint8, high=256):
    return np.random.default_rng(3).integers(0, high, shape).astype(dtype)


# What Pillow and OpenCV write, by file ending: lossless formats in every mode, lossy ones in all they have.
PILLOW_MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "I", "F"),
    "bmp": ("1", "L", "P", "RGB", "RGBA"),
    "ppm": ("1", "L", "RGB", "I;16", "F"),
    "webp": ("RGB", "RGBA"),
    "gif": ("L", "P", "RGB"),
    "tga": ("L", "LA", "P", "RGB", "RGBA"),
    "jp2": ("L", "RGB", "RGBA"),
}
TOO_DEEP = {"I;16", "I;16B", "I", "F"}


def picture_of(mode):
    width, height = SIZE
    if mode in ("I;16", "I;16B"):
        return Image.frombytes(mode, SIZE, random_pixels((height, width), np.uint16, 4096).tobytes())
    if mode == "I":
        return Image.fromarray(random_pixels((height, width), np.int32, 65536))
    if mode == "F":
        return Image.fromarray(random_pixels((height, width)).astype(np.float32))
    return (
        Image.fromarray(random_pixels((height, width, 4)), "RGBA")
        .convert({"PA": "P", "1": "1"}.get(mode, mode) if mode != "YCbCr" else "RGB")
        .convert(mode)
    )


def assert_agreeing(root, name, refused=None):
    """Both decoders give the same values, or both refuse the file by name; `refused` None leaves it open."""

    def outcome(read):
        try:
            return np.asarray(read(root, frame(name))).astype(int)
        except ValueError as error:
            return str(error)

    exact, fast = outcome(read_image), outcome(read_pixels)
    if refused is not None:
        assert isinstance(exact, str) == refused
    if isinstance(exact, str):
        assert exact == fast
        assert re.search(rf"8 bits per channel.*{name}|damaged.*{name}", exact)
    else:
        assert np.abs(exact - fast[:, :, ::-1]).max() <= 1, name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("suffix", PILLOW_MODES)
def test_both_decoders_agree_on_every_mode_or_refuse_it(suffix, tmp_path):
    for mode in PILLOW_MODES[suffix]:
        name = f"{mode.replace(';', '_')}.{suffix}"
        try:
            picture_of(mode).save(tmp_path / name)
        except (OSError, KeyError, ValueError):
            continue  # this Pillow does not write it
        assert_agreeing(tmp_path, name, refused=mode in TOO_DEEP)


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "bmp", "webp"])
def test_both_decoders_agree_on_what_opencv_writes(suffix, tmp_path):
    height, width = SIZE[::-1]
    for dtype, high in ((np.uint8, 256), (np.uint16, 65536), (np.uint16, 4096), (np.float32, 256)):
        for shape in ((height, width), (height, width, 3), (height, width, 4)):
            path = tmp_path / f"{np.dtype(dtype).name}_{high}_{len(shape)}_{shape[-1]}.{suffix}"
            try:
                written = cv2.imwrite(str(path), random_pixels(shape, dtype, high))
            except cv2.error:
                continue
            if not written or not path.is_file():
                continue
            assert_agreeing(tmp_path, path.name)


def test_nothing_is_decoded_that_is_not_of_the_size_in_the_infos(tmp_path):
    """A header alone may claim gigabytes of pixels."""
    header = b"P5 65500 65500 255\n"
    (tmp_path / "huge.pgm").write_bytes(header)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    for read in (read_image, read_pixels):
        with pytest.raises(ValueError, match=r"320x180 pixels .* got 65500x65500|damaged file.*pixels"):
            read(tmp_path, frame("huge.pgm"))
        with pytest.raises(ValueError, match="damaged file"):
            read(tmp_path, frame("empty.jpg"))
        with pytest.raises(ValueError, match="damaged file"):
            read(tmp_path, frame("folder.jpg"))
