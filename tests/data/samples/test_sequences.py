"""Key frames in the order of time."""

import numpy as np
import pytest
from torch.utils.data import DataLoader

from bev_data.infos.info import Annotations, Info
from bev_data.infos.infos import Infos
from bev_data.samples.batch import collate
from bev_data.samples.dataset import History, KeyFrameDataset
from bev_data.samples.sequences import SequenceSampler

# Key frames of five scenes.
SCENES = {"a": 4, "b": 9, "c": 8, "d": 3, "e": 12}


@pytest.fixture
def dataset(mini_val, tmp_path):
    frame = mini_val[0]
    infos = []
    for scene, count in SCENES.items():
        for step in range(count):
            infos.append(
                Info(
                    token=f"{scene}{step}",
                    scene=scene,
                    timestamp=step,
                    prev=len(infos) - 1 if step else None,
                    cameras=frame.cameras,
                    sweeps=(),
                    lidar=None,
                    annotations=Annotations.empty(),
                )
            )
    made = Infos.from_list(infos, version="own", split="train")
    return KeyFrameDataset(
        made, tmp_path, image_size=(32, 64), training=True, history=History(frames=0), lidar_depth=False
    )


def names(dataset, indices):
    return [dataset.infos.tokens[dataset.indices[i]] for i in indices]


def test_each_entry_of_a_batch_goes_on_where_it_was(dataset):
    sampler = SequenceSampler(dataset, 4, 2, shuffle=False)
    batches = np.array(names(dataset, sampler)).reshape(-1, 2)
    assert batches.tolist() == [
        *(["a0", "b0"], ["a1", "b1"], ["a2", "b2"], ["a3", "b3"]),
        *(["b4", "c0"], ["b5", "c1"], ["b6", "c2"], ["b7", "c3"]),
        *(["c4", "e0"], ["c5", "e1"], ["c6", "e2"], ["c7", "e3"]),
        *(["e4", "e8"], ["e5", "e9"], ["e6", "e10"], ["e7", "e11"]),
    ]
    assert len(sampler) == batches.size


def test_epochs_are_shuffled_cut_anew_and_reproducible(dataset):
    sampler = SequenceSampler(dataset, 4, 1, seed=3)
    epochs = []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        assert dataset.epoch == epoch
        found = names(dataset, sampler)
        for i in range(0, len(found), 4):
            scene, first = found[i][0], int(found[i][1:])
            assert found[i : i + 4] == [f"{scene}{first + step}" for step in range(4)]
        assert len(found) == len(set(found)) == 32
        epochs.append(found)
    assert len({tuple(found) for found in epochs}) == 8
    assert {"b0", "b8"} <= {token for found in epochs for token in found}
    sampler.set_epoch(0)
    assert names(dataset, sampler) == epochs[0]


def test_processes_share_the_sequences(dataset):
    shares = [
        np.array(names(dataset, SequenceSampler(dataset, 4, 1, num_replicas=3, rank=rank))).reshape(-1, 4)
        for rank in range(3)
    ]
    assert {share.shape for share in shares} == {(3, 4)}  # 8 sequences for 9 places: one comes twice
    together = [tuple(sequence) for share in shares for sequence in share]
    assert len(together) == 9
    assert len(set(together)) == 8
    assert len({token for sequence in together for token in sequence}) == 32


def test_a_loader_takes_it(database, mini_val):
    dataset = KeyFrameDataset(
        mini_val, database, image_size=(32, 64), training=True, history=History(frames=0), lidar_depth=False
    )
    sampler = SequenceSampler(dataset, 2, 2, shuffle=False)
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, collate_fn=collate)
    seen = [[meta.token for meta in batch.meta] for batch in loader]
    tokens = dataset.infos.tokens
    assert len(seen) == 2
    for lane in range(2):
        rows = [tokens.index(batch[lane]) for batch in seen]
        assert dataset.infos.prev[rows[1]] == rows[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 13, "batch_size": 1}, "length of sequences must be at most 12, .* got 13"),
        ({"length": 0, "batch_size": 1}, "at least 1, got 0 and 1"),
        (
            {"length": 1, "batch_size": 1, "rank": 2, "num_replicas": 2},
            "from 0 to num_replicas - 1, got 2 of 2",
        ),
    ],
)
def test_wrong_numbers(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        SequenceSampler(dataset, **options)
