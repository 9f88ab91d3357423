"""Which samples a process is handed in an epoch, also in one that a stopped run goes on with."""

import itertools
from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader, DistributedSampler

from bev_data.samples.balanced import ClassBalanced
from bev_data.samples.batch import Sample
from bev_data.samples.dataset import KeyFrameDataset

# Seconds after which a batch that workers do not deliver ends the run, which would wait for ever.
WAIT_S = 900


class EpochSampler(DistributedSampler[int]):
    """Hands each process its share of a dataset; order and augmentation depend on seed and epoch alone.

    So a run that was stopped goes on with the samples it would have seen. Shares are padded to equal length
    by samples that another process has too.
    """

    def __init__(
        self,
        dataset: KeyFrameDataset | ClassBalanced,
        positions: Sequence[int],
        *,
        num_replicas: int,
        rank: int,
        shuffle: bool,
        seed: int,
    ) -> None:
        """Sample from a dataset.

        Args:
            dataset: whose epoch follows the sampler's.
            positions: indices to draw from.
            num_replicas: number of processes.
            rank: of this process.
            shuffle: in another order each epoch.
            seed: of the order.
        """
        # The base class only asks for the length.
        super().__init__(positions, num_replicas, rank, shuffle, seed)  # type: ignore[arg-type]
        self.positions = positions
        self.samples = dataset
        self.skip = 0

    def __iter__(self) -> Iterator[int]:
        """Indices of this process in order, once without the first `skip` of them."""
        first, self.skip = self.skip, 0
        return (self.positions[i] for i in itertools.islice(super().__iter__(), first, None))

    def set_epoch(self, epoch: int) -> None:
        """Move on to an epoch; Lightning calls this before a loader starts its workers on it."""
        super().set_epoch(epoch)
        self.samples.set_epoch(epoch)


class ResumableLoader(DataLoader[Sample]):
    """A loader whose run may go on within an epoch.

    Lightning asks loaders for a state before it lets a run do so. It gives that back too late, though, where
    an optimiser asked for the length of the run: the data module keeps it instead.
    """

    def state_dict(self) -> dict[str, int]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Do nothing."""
