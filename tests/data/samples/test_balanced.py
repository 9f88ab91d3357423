"""Class-balanced sampling."""

import numpy as np
import pytest
import torch

from bev_data.nuscenes.taxonomy import CATEGORY_TO_CLASS, CLASSES
from bev_data.samples.balanced import ClassBalanced, class_balanced_indices, samples_of_class
from bev_data.samples.dataset import History, KeyFrameDataset


@pytest.fixture
def dataset(database, mini_val):
    return KeyFrameDataset(
        mini_val, database, image_size=(32, 64), training=True, history=History(frames=0), lidar_depth=False
    )


def test_draws_are_the_published_ones(goldens):
    lists = {name: [] for name in CLASSES}
    for index, categories in enumerate(goldens.json("cbgs_categories")):
        for category in sorted(set(categories) & set(CATEGORY_TO_CLASS)):
            lists[CATEGORY_TO_CLASS[category]].append(index)
    # The published sampler uses NumPy's global generator; the golden draw was made with seed 5.
    drawn = class_balanced_indices([np.array(v) for v in lists.values()], np.random.RandomState(5))
    np.testing.assert_array_equal(drawn, goldens.arrays["cbgs.sample_indices"])


def test_each_class_has_the_same_share():
    lists = [np.arange(0, 90), np.arange(90, 99), np.array([99]), np.zeros(0, int)]
    drawn = class_balanced_indices(lists, np.random.default_rng(0))
    shares = [np.isin(drawn, samples).sum() for samples in lists]
    assert shares[0] == shares[1] == shares[2] == 33
    with pytest.raises(ValueError, match="at least one class, got none"):
        class_balanced_indices([np.zeros(0, int)], np.random.default_rng(0))


def test_samples_are_listed_by_class(write_database, dataset, tmp_path):
    by_class = dict(zip(CLASSES, samples_of_class(dataset), strict=True))
    assert by_class["car"].tolist() == [0, 1, 2, 3]
    assert by_class["bicycle"].tolist() == []  # it has no points
    by_category = dict(zip(CLASSES, samples_of_class(dataset, count="categories"), strict=True))
    assert by_category["bicycle"].tolist() == [0, 1, 2, 3]
    later = KeyFrameDataset(
        dataset.infos, dataset.root, image_size=(32, 64), history=History(frames=1, missing="drop")
    )
    assert samples_of_class(later)[0].tolist() == [0, 1]


def test_epochs_draw_anew_and_repetitions_look_different(dataset):
    balanced = ClassBalanced(dataset)
    assert len(balanced) == 12  # three classes, each in four samples
    first = balanced.indices.copy()
    twice = np.flatnonzero(first == np.bincount(first).argmax())[:2]
    a, b = balanced[int(twice[0])], balanced[int(twice[1])]
    assert a.meta.token == b.meta.token
    assert not torch.equal(a.bev_aug, b.bev_aug)
    balanced.set_epoch(1)
    assert not np.array_equal(balanced.indices, first)
    assert dataset.epoch == 1
    balanced.set_epoch(0)
    np.testing.assert_array_equal(balanced.indices, first)
    assert torch.equal(balanced[int(twice[0])].bev_aug, a.bev_aug)
