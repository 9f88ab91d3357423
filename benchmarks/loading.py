"""How fast training samples are made, against the straightforward way: `python benchmarks/loading.py`.

Renders a few key frames of 1600x900 pixels (once, into `--data`, in files as large as those of nuScenes), and
measures the steps from a JPEG to the network's input; whole samples of six cameras and two frames, in this
process and from one worker; what lidar depth adds, and whether it equals the depth files; how far the pixels
of the fast way are from the exact ones.

The straightforward way: infos from a pickle, Pillow decodes the whole image, resizes all of it (bicubic),
crops, flips and rotates; NumPy normalises in float32; depth comes from files.
"""

import argparse
import pickle
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bev_data.infos.info import CameraFrame, Info
from bev_data.infos.infos import Infos, open_infos
from bev_data.samples.augment import (
    BevAugmentation,
    ImageAugmentation,
    ImageTransform,
    augment_boxes,
    draw_bev_matrix,
    draw_image_transform,
    place_depth,
)
from bev_data.samples.batch import collate
from bev_data.samples.dataset import KeyFrameDataset, SampleOptions
from bev_data.samples.depth_files import write_depth_files
from bev_data.samples.images import read_image, read_pixels
from bev_data.samples.lidar_depth import depth_points, read_depth_file
from bev_data.samples.resample import place_image
from bev_data.world import write_world
from harness import interleave, processor

SIZE = (256, 704)
MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)
Item = tuple[Tensor, Tensor, Tensor]


class Straightforward(Dataset[Item]):
    """Images, depth and boxes of a key frame and the one before it, as most code bases make them."""

    def __init__(self, dataset: KeyFrameDataset) -> None:
        self.dataset = dataset
        self.infos: list[Info] = pickle.loads(pickle.dumps(list(dataset.infos)))

    def __len__(self) -> int:
        return len(self.infos)

    def __getitem__(self, index: int) -> Item:
        info = self.infos[index]
        before = info if info.prev is None else self.infos[info.prev]
        rng = np.random.default_rng(index)
        root, names = self.dataset.root, self.dataset.cameras
        transforms = [draw(info.cameras[name], rng) for name in names]
        frames = [
            torch.stack([normalised(root, f.cameras[n], t) for n, t in zip(names, transforms, strict=True)])
            for f in (info, before)
        ]
        depth = np.zeros((len(names), *SIZE), dtype=np.float32)
        for out, name, transform in zip(depth, names, transforms, strict=True):
            place_depth(read_depth_file(root, info.cameras[name]), transform, out)
        boxes = augment_boxes(self.dataset.boxes(info)[0], draw_bev_matrix(BevAugmentation(), rng))
        return torch.stack(frames), torch.from_numpy(depth), torch.from_numpy(boxes)


def draw(camera: CameraFrame, rng: np.random.Generator) -> ImageTransform:
    """What happens to an image in training."""
    return draw_image_transform(ImageAugmentation(), (camera.width, camera.height), SIZE[::-1], rng)


def normalise(image: Image.Image) -> Tensor:
    """Pixels as the network takes them."""
    return torch.from_numpy((np.asarray(image).astype(np.float32) - MEAN) / STD).permute(2, 0, 1)


def normalised(root: Path, frame: CameraFrame, transform: ImageTransform) -> Tensor:
    """An image the straightforward way."""
    return normalise(transform.apply(read_image(root, frame)))


def stack(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Collate what has one shape."""
    return torch.stack([item[0] for item in items]), torch.stack([item[1] for item in items])


def time_steps(root: Path, infos: Infos, rounds: int) -> None:
    """Steps of one image."""
    frame = infos[0].cameras["CAM_FRONT"]
    transform = draw(frame, np.random.default_rng(1))._replace(flip=True, rotate_deg=3.0)
    exact, pixels = read_image(root, frame), read_pixels(root, frame)
    resized = exact.resize(transform.resized, Image.Resampling.BICUBIC)
    bgr = np.ascontiguousarray(np.asarray(resized)[:, :, ::-1])
    cut = transform._replace(scale=1.0)  # what is left to do after the resize
    placed = cut.apply(resized)
    out = np.empty((3, *SIZE), dtype=np.uint8)
    steps = {
        "decode, Pillow": lambda: read_image(root, frame),
        "resize, Pillow": lambda: exact.resize(transform.resized, Image.Resampling.BICUBIC),
        "crop, flip, rotate, Pillow": lambda: cut.apply(resized),
        "normalise, NumPy float32": lambda: normalise(placed),
        "decode, fast": lambda: read_pixels(root, frame),
        "resize, crop, flip, rotate into planes, fast": lambda: place_image(pixels, transform, out),
        "of that crop, flip, rotate into planes": lambda: place_image(bgr, cut, out),
        "all, straightforward": lambda: normalised(root, frame, transform),
        "all, fast": lambda: place_image(read_pixels(root, frame), transform, out),
    }
    times = interleave(steps, rounds)
    kilobytes = (root / frame.file).stat().st_size // 1000
    width, height = transform.resized
    print(f"one image of {frame.width}x{frame.height}, {kilobytes} kB, resized to {width}x{height}")
    print("| step | median ms | min ms |\n|---|---|---|")
    for name, (median, least) in times.items():
        print(f"| {name} | {median:.2f} | {least:.2f} |")
    ratio = times["all, straightforward"][0] / times["all, fast"][0]
    print(f"straightforward / fast: {ratio:.2f}\n")


def time_samples(makers: dict[str, Callable[[int], object]], length: int, rounds: int) -> None:
    """Whole samples in this process; each round takes another key frame."""
    times: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(rounds + 1):
        for name, make in makers.items():
            began = time.perf_counter()
            # The first key frame of the scene has no frame before it.
            make(1 + turn % (length - 1))
            times[name].append((time.perf_counter() - began) * 1e3)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    print("samples of 6 cameras x 2 frames, one process")
    print("| way | median ms | straightforward / it |\n|---|---|---|")
    depth = medians.pop("lidar depth")
    for name, median in medians.items():
        print(f"| {name} | {median:.1f} | {medians['straightforward'] / median:.2f} |")
    print(f"lidar depth on the fly: {depth:.1f} ms, {depth / medians['fast']:.1%} of a fast sample\n")


def time_worker(datasets: dict[str, tuple[Dataset, object]], epochs: int) -> None:
    """Samples per second that reach this process from one worker, transport included."""
    rates: dict[str, list[float]] = {name: [] for name in datasets}
    for _ in range(epochs):
        for name, (dataset, function) in datasets.items():
            loader = DataLoader(dataset, 2, collate_fn=function, num_workers=1)  # type: ignore[arg-type]
            batches = iter(loader)
            next(batches)  # the worker has started
            began = time.perf_counter()
            rest = sum(1 for _ in batches)
            rates[name].append(2 * rest / (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print("one worker\n| way | samples/s | it / straightforward |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.1f} | {median / medians['straightforward']:.2f} |")
    print()


def depth_alone(root: Path, info: Info) -> None:
    """Lidar depth of a key frame, from the sweep to the maps."""
    rng = np.random.default_rng(0)
    maps = np.zeros((len(info.cameras), *SIZE), dtype=np.float32)
    points = depth_points(root, info, tuple(info.cameras))
    for out, of_camera, camera in zip(maps, points, info.cameras.values(), strict=True):
        place_depth(of_camera, draw(camera, rng), out)


def compare_pixels(fast: KeyFrameDataset, exact: KeyFrameDataset) -> None:
    """Distribution of the differences over some augmented samples."""
    counts = np.zeros(256, dtype=np.int64)
    for index in range(min(4, len(fast))):
        difference = fast[index].images.int() - exact[index].images.int()
        counts += np.bincount(difference.abs().flatten().numpy(), minlength=256)
    share = counts / counts.sum()
    error = (share * np.arange(256.0) ** 2).sum()
    print(f"pixels, fast against exact: {counts.sum()} values, PSNR {10 * np.log10(255**2 / error):.1f} dB")
    for value in np.flatnonzero(counts):
        print(f"| differs by {value} | {share[value]:.6%} |")


def shrink_files(root: Path) -> None:
    """Compress images again until they have the size of nuScenes' files, 150 kB on average."""
    for path in root.glob("samples/CAM*/*.jpg"):
        quality = 90
        while path.stat().st_size > 160_000:
            quality -= 5
            Image.open(path).save(path, quality=quality)


def compare_depth(root: Path, infos: Infos) -> None:
    """Depth in the loader against the files."""
    for info in infos:
        for name, points in zip(infos.cameras, depth_points(root, info, infos.cameras), strict=True):
            if read_depth_file(root, info.cameras[name]).tobytes() != points.tobytes():
                raise SystemExit(f"depth of {info.token} {name} differs from its file")
    print(f"depth equals the depth files bit for bit: {len(infos) * len(infos.cameras)} images\n")


def main() -> None:
    """Make the data and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/loading"))
    parser.add_argument("--rounds", type=int, default=9, help="times each candidate runs, interleaved")
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = write_world(options.data, scenes=2, image_size=(1600, 900), key_frames=8, sweep_hz=0)
    shrink_files(root)
    infos = open_infos(root, "v1.0-mini", "mini_train")
    write_depth_files(root, infos)
    print(f"# Loading\n{processor()}, torch {torch.__version__}, {options.rounds} rounds\n")
    make = {"image_size": SIZE, "training": True}
    fast = KeyFrameDataset(infos, root, **make)
    exact = KeyFrameDataset(infos, root, **make, options=SampleOptions(decoding="exact"))
    straightforward = Straightforward(fast)
    time_steps(root, infos, options.rounds)
    makers = {"straightforward": straightforward, "exact": exact, "fast": fast}
    time_samples(
        {name: dataset.__getitem__ for name, dataset in makers.items()}
        | {"lidar depth": lambda i: depth_alone(root, infos[i])},
        len(infos),
        options.rounds,
    )
    time_worker({"straightforward": (straightforward, stack), "fast": (fast, collate)}, 3)
    compare_depth(root, infos)
    compare_pixels(fast, exact)


if __name__ == "__main__":
    main()
