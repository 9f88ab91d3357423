"""Class-balanced sampling: rare classes are shown as often as frequent ones.

Source: Zhu et al., "Class-balanced grouping and sampling for point cloud 3D object detection" (2019), section
3.2.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray
from torch.utils.data import Dataset

from bev_data.errors import InputError
from bev_data.nuscenes.taxonomy import CATEGORY_TO_CLASS
from bev_data.samples.batch import Sample
from bev_data.samples.dataset import KeyFrameDataset

I64 = NDArray[np.int64]


def class_balanced_indices(
    samples_of_class: Sequence[I64], rng: np.random.Generator | np.random.RandomState
) -> Int64[I64, "k"]:
    """Draw samples so that each class has the same share; together about as many as there are entries.

    Args:
        samples_of_class: for each class the indices of the samples that contain it. Classes without a sample
            are left out.
        rng: source of chance.

    Raises:
        ValueError: if no class has a sample.
    """
    present = [np.asarray(samples, dtype=np.int64) for samples in samples_of_class if len(samples)]
    if not present:
        raise InputError("class-balanced sampling needs boxes of at least one class, got none in the split")
    entries = sum(len(samples) for samples in present)
    # The nested fractions keep the rounding, and so the number of draws, of the published sampler.
    counts = [int(len(samples) * ((1 / len(present)) / (len(samples) / entries))) for samples in present]
    drawn = [np.asarray(rng.choice(samples, count)) for samples, count in zip(present, counts, strict=True)]
    indices: I64 = np.concatenate(drawn).astype(np.int64)
    return indices


def samples_of_class(
    dataset: KeyFrameDataset, *, count: Literal["classes", "categories"] = "classes"
) -> list[I64]:
    """For each class of a dataset the indices of its samples that contain it.

    Args:
        dataset: with annotations.
        count: "classes": a sample counts once for a class, if a box of it is used in training. "categories":
            it counts once per raw category (a sample with an adult and a child counts twice for pedestrians),
            boxes without points included, as published.
    """
    rows, categories, names, used_in_training = dataset.infos.boxes_per_category(dataset.options.min_points)
    class_ids = {name: i for i, name in enumerate(dataset.classes)}
    labels = np.array([class_ids.get(CATEGORY_TO_CLASS.get(name, ""), -1) for name in names], dtype=np.int64)
    position = np.full(len(dataset.infos), -1, dtype=np.int64)
    position[dataset.indices] = np.arange(len(dataset))
    used = (labels[categories] >= 0) & (position[rows] >= 0)
    if count == "classes":
        used &= used_in_training
    kinds = labels[categories] if count == "classes" else categories
    pairs = np.unique(np.stack([position[rows][used], kinds[used]], axis=-1), axis=0)
    label_of_pair = pairs[:, 1] if count == "classes" else labels[pairs[:, 1]]
    return [pairs[label_of_pair == label, 0] for label in range(len(dataset.classes))]


class ClassBalanced(Dataset[Sample]):
    """A dataset whose samples are drawn anew in every epoch, so that each class has the same share.

    It has the same length in every epoch and hands out the same samples to all processes, so that any
    distributed sampler can share it out. A key frame that is drawn twice in an epoch is augmented differently
    each time.

    Args:
        dataset: the samples to draw from.
        count: what a sample counts for; see `samples_of_class`.

    Raises:
        ValueError: if the split has no boxes of the dataset's classes.
    """

    def __init__(
        self, dataset: KeyFrameDataset, *, count: Literal["classes", "categories"] = "classes"
    ) -> None:
        self.dataset = dataset
        self._samples_of_class = samples_of_class(dataset, count=count)
        self._drawn_for = -1
        self._drawn = np.zeros(0, dtype=np.int64)
        self._repetition = np.zeros(0, dtype=np.int64)
        self._length = len(self.indices)

    @property
    def indices(self) -> Int64[I64, "k"]:
        """Indices of the dataset that this epoch shows."""
        if self._drawn_for != self.dataset.epoch:
            epoch = self.dataset.epoch
            rng = np.random.default_rng(np.random.SeedSequence([self.dataset.seed, epoch]))
            self._drawn = class_balanced_indices(self._samples_of_class, rng)
            self._repetition = _occurrence(self._drawn)
            self._drawn_for = epoch
        return self._drawn

    def set_epoch(self, epoch: int) -> None:
        """Draw anew from here on, in the workers that are running too."""
        self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        drawn = int(self.indices[index])
        return self.dataset.draw(drawn, repetition=int(self._repetition[index]))


def _occurrence(values: I64) -> I64:
    """For each value how many times it occurred before."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[first, len(values)])
    occurrence = np.empty_like(values)
    occurrence[order] = np.arange(len(values)) - np.repeat(first, lengths)
    return occurrence
