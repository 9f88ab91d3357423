"""Key frames in the order of time, for models that carry state from one to the next."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

from bev_data.errors import InputError
from bev_data.samples.dataset import KeyFrameDataset

I64 = NDArray[np.int64]


class SequenceSampler(DistributedSampler[int]):
    """Runs through several sequences side by side: each entry of a batch goes on where it was in the last.

    A sequence is `length` key frames of one scene that follow each other. Each process runs through
    `batch_size` sequences at once; after `length` batches all of them end together and the next ones begin,
    which is when a model resets its state. Scenes are cut into sequences anew in every shuffled epoch, so
    that a scene's remainder, which is left out, is another one each time. Where sequences do not fill all
    processes, some are run through twice.

    Use it as the sampler of a loader with the same batch size and `drop_last=False`; call `set_epoch` before
    each epoch. Frameworks that put distributed samplers in place leave this one, which is one already.

    Args:
        dataset: in order of time within scenes, as `KeyFrameDataset` is.
        length: key frames of a sequence.
        batch_size: of the loader, per process.
        shuffle: sequences in another order each epoch.
        seed: of order and cuts; the same for all processes.
        num_replicas: number of processes.
        rank: of this process.

    Attributes:
        skip: key frames that the next epoch leaves out at its beginning, once; for a run that goes on within
            an epoch.

    Raises:
        ValueError: if a number is out of its range, or no scene is long enough.
    """

    def __init__(
        self,
        dataset: KeyFrameDataset,
        length: int,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        if length < 1 or batch_size < 1:
            raise InputError(f"length and batch_size must be at least 1, got {length} and {batch_size}")
        if not 0 <= rank < num_replicas:
            raise InputError(f"rank must lie from 0 to num_replicas - 1, got {rank} of {num_replicas}")
        # The base class only asks for the length.
        super().__init__(dataset, num_replicas, rank, shuffle, seed)
        self.skip = 0
        self._samples = dataset
        self._length, self._batch_size = length, batch_size
        runs = _runs(dataset)
        self._runs = [run for run in runs if len(run) >= length]
        if not self._runs:
            longest = max(map(len, runs), default=0)
            raise InputError(
                f"the length of sequences must be at most {longest}, the most key frames that follow each "
                f"other in a scene of {dataset.infos.split}, got {length}"
            )
        count = sum(len(run) // length for run in self._runs)
        self._rounds = -(-count // (batch_size * num_replicas))

    def __len__(self) -> int:
        return self._rounds * self._length * self._batch_size

    def set_epoch(self, epoch: int) -> None:
        """Order and cut anew, and let the dataset augment anew."""
        super().set_epoch(epoch)
        self._samples.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        sequences = self._sequences()
        lanes = self._batch_size * self.num_replicas
        filled = np.resize(sequences, (self._rounds * lanes, self._length))
        mine = filled.reshape(self._rounds, self.num_replicas, self._batch_size, self._length)[:, self.rank]
        first, self.skip = self.skip, 0
        return itertools.islice(mine.swapaxes(1, 2).ravel().tolist(), first, None)

    def _sequences(self) -> I64:
        """Indices of this epoch's sequences, one per row."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, self.epoch]))
        cut = []
        for run in self._runs:
            count, remainder = divmod(len(run), self._length)
            first = int(rng.integers(remainder + 1)) if self.shuffle else 0
            cut.append(run[first : first + count * self._length].reshape(count, self._length))
        sequences = np.concatenate(cut)
        return rng.permutation(sequences) if self.shuffle else sequences


def _runs(dataset: KeyFrameDataset) -> list[I64]:
    """Indices of a dataset, parted where a key frame does not follow the one before it."""
    rows = np.asarray(dataset.indices)
    follows = dataset.infos.prev[rows[1:]] == rows[:-1]
    return np.split(np.arange(len(rows), dtype=np.int64), np.flatnonzero(~follows) + 1)
