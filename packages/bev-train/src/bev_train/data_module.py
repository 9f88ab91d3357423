"""nuScenes-format data for Lightning: infos, datasets, loaders."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.accelerators import CUDAAccelerator
from torch.utils.data import DataLoader, DistributedSampler

from bev_data.infos.infos import Infos, find_version, open_infos
from bev_data.nuscenes.splits import EVALUATION_SPLIT
from bev_data.nuscenes.taxonomy import CLASSES
from bev_data.samples.balanced import ClassBalanced
from bev_data.samples.batch import Sample, collate
from bev_data.samples.dataset import (
    BevAugmentation,
    History,
    ImageAugmentation,
    KeyFrameDataset,
    SampleOptions,
)
from bev_data.samples.sequences import SequenceSampler
from bev_train.errors import InputError

Stage = Literal["train", "val", "test", "predict"]

_STAGES: dict[str, tuple[Stage, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}
# Splits that a version is trained and evaluated on, where none are named.
_TRAIN_SPLIT = {"v1.0-mini": "mini_train", "v1.0-trainval": "train"}


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


class DetectionDataModule(LightningDataModule):
    """Key frames of a nuScenes-format database with their history."""

    def __init__(
        self,
        root: str,
        version: str = "auto",
        train_split: str | None = None,
        val_split: str | None = None,
        test_split: str | None = None,
        predict_split: str | None = None,
        image_size: tuple[int, int] = (256, 704),
        cameras: list[str] | None = None,
        classes: Sequence[str] = CLASSES,
        history: History = History(),  # noqa: B008 (frozen; jsonargparse reads the default)
        image_aug: ImageAugmentation | None = ImageAugmentation(),  # noqa: B008
        bev_aug: BevAugmentation | None = BevAugmentation(),  # noqa: B008
        options: SampleOptions = SampleOptions(),  # noqa: B008
        lidar_depth: bool = True,
        cbgs: bool = False,
        cbgs_count: Literal["classes", "categories"] = "classes",
        sequence_length: int | None = None,
        tokens: list[str] | None = None,
        max_samples: int | None = None,
        batch_size: int = 8,
        num_workers: int = 4,
        seed: int = 0,
    ) -> None:
        """Say what to load; nothing is read before a run starts.

        Args:
            root: folder of the database, which holds v1.0-*/, samples/ and sweeps/.
            version: of the tables, such as v1.0-mini; auto takes the one that is there, trainval before mini.
            train_split: split to train on; null takes train, or mini_train for v1.0-mini.
            val_split: split to validate on; null takes val, or mini_val for v1.0-mini.
            test_split: split that `test` evaluates; null takes that of val_split.
            predict_split: split that `predict` writes results for; null takes val, mini_val or test.
            image_size: height and width the images are brought to, multiples of 32.
            cameras: names of the cameras to use; null for all of the database.
            classes: classes to detect; labels index them.
            history: which earlier images go with a key frame.
            image_aug: ranges of the image augmentation in training; null for none.
            bev_aug: ranges of the augmentation of the ego frame in training; null for none.
            options: how samples are made where there is a choice.
            lidar_depth: load lidar depth for loss and metrics; false for data without lidar.
            cbgs: in training, repeat key frames until each class has the same share.
            cbgs_count: what a key frame counts for there, once each: the classes of its boxes, or the raw
                categories of all its annotations, as published.
            sequence_length: in training, each entry of a batch goes on for so many key frames of a scene
                where it was in the batch before, and then all begin anew, for models that carry state; null
                for key frames in any order.
            tokens: use these key frames only (sample tokens), in every split; null for all.
            max_samples: use only so many key frames of each split, the first ones; null for all.
            batch_size: samples per device and step.
            num_workers: processes that load samples, per device.
            seed: of order and augmentation.
        """
        super().__init__()
        if cbgs and (tokens is not None or max_samples is not None):
            raise ValueError(
                "data.cbgs must be false where data.tokens or data.max_samples choose key frames"
            )
        if sequence_length is not None and (cbgs or tokens is not None or max_samples is not None):
            raise ValueError(
                "data.sequence_length must be null where data.cbgs, data.tokens or data.max_samples choose "
                "key frames"
            )
        if sequence_length is not None and sequence_length < 1:
            raise ValueError(f"data.sequence_length must be at least 1, got {sequence_length}")
        if batch_size < 1 or num_workers < 0 or (max_samples is not None and max_samples < 1):
            raise ValueError(
                "data.batch_size and data.max_samples must be at least 1 and data.num_workers at least 0, "
                f"got {batch_size}, {max_samples} and {num_workers}"
            )
        self.root = Path(root)
        self.version = version
        self.splits: dict[Stage, str | None] = {
            "train": train_split,
            "val": val_split,
            "test": test_split or val_split,
            "predict": predict_split,
        }
        self.image_size = image_size
        self.cameras = cameras
        self.classes = classes
        self.history = history
        self.image_aug = image_aug
        self.bev_aug = bev_aug
        self.options = options
        self.lidar_depth = lidar_depth
        self.cbgs = cbgs
        self.cbgs_count = cbgs_count
        self.sequence_length = sequence_length
        self.tokens = tokens
        self.max_samples = max_samples
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.datasets: dict[Stage, KeyFrameDataset] = {}
        self._first_epoch = self._first_batch = 0

    def state_dict(self) -> dict[str, Any]:
        """The epoch that a run resumed from here begins with, and how many of its batches are done."""
        loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]
        epoch, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress
        # An epoch is over with its last batch, before Lightning counts it.
        if batches.is_last_batch:
            return {"epoch": epoch.ready, "batches": 0}
        return {"epoch": epoch.processed, "batches": batches.current.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin where a checkpoint was written."""
        self._first_epoch, self._first_batch = state_dict["epoch"], state_dict.get("batches", 0)

    def prepare_data(self) -> None:
        """Build the infos that are not there yet; one process per machine does so.

        Raises:
            InputError: if the database lacks a table or a split.
        """
        for stage in self._stages():
            self._open_infos(stage)

    def setup(self, stage: str) -> None:
        """Open the datasets of a run.

        Raises:
            InputError: if settings and data do not fit each other.
        """
        for name in self._stages():
            self.datasets[name] = self._dataset(name)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled, augmented samples, or sequences of them."""
        loader = self._loader("train")
        sampler: Any = loader.sampler
        # Lightning starts the workers before it tells the sampler its epoch.
        sampler.set_epoch(max(self._first_epoch, self.trainer.current_epoch if self.trainer else 0))
        # What was shown before is left out once.
        sampler.skip, self._first_batch = self._first_batch * self.batch_size, 0
        return loader

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """The validation split in order, or nothing where validation is switched off."""
        return self._loader("val") if "val" in self.datasets else []

    def test_dataloader(self) -> DataLoader[Sample]:
        """The test split in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """The prediction split in order."""
        return self._loader("predict")

    def positions(self, stage: Stage) -> list[int]:
        """Indices into the dataset that a stage uses, in order, after `tokens` and `max_samples`.

        Raises:
            InputError: if none of `tokens` is there.
        """
        dataset = self.datasets[stage]
        positions = list(range(len(dataset)))
        if self.tokens is not None:
            wanted, names = set(self.tokens), dataset.infos.tokens
            positions = [i for i in positions if names[dataset.indices[i]] in wanted]
            if not positions:
                raise InputError(
                    f"data.tokens must name key frames of split {dataset.infos.split}, "
                    f"got {', '.join(self.tokens)}"
                )
        return positions[: self.max_samples]

    def _stages(self) -> tuple[Stage, ...]:
        if self.trainer is None or self.trainer.state.fn is None:
            return "train", "val"
        stages = _STAGES[self.trainer.state.fn]
        if self.trainer.limit_val_batches == 0:
            stages = tuple(stage for stage in stages if stage != "val")
        return stages

    def _open_infos(self, stage: Stage) -> Infos:
        version = find_version(self.root) if self.version == "auto" else self.version
        usual = _TRAIN_SPLIT if stage == "train" else EVALUATION_SPLIT
        split = self.splits[stage] or usual.get(version)
        if split is None:
            raise InputError(
                f"data.{stage}_split must be set: version {version} of {self.root} has no usual one"
            )
        return open_infos(self.root, version, split)

    def _dataset(self, stage: Stage) -> KeyFrameDataset:
        return KeyFrameDataset(
            self._open_infos(stage),
            self.root,
            image_size=self.image_size,
            history=self.history,
            classes=self.classes,
            training=stage == "train",
            image_aug=self.image_aug,
            bev_aug=self.bev_aug,
            lidar_depth=self.lidar_depth and stage != "predict",
            cameras=self.cameras,
            seed=self.seed,
            options=self.options,
        )

    def _loader(self, stage: Stage) -> DataLoader[Sample]:
        dataset: KeyFrameDataset | ClassBalanced = self.datasets[stage]
        if self.cbgs and stage == "train":
            dataset = ClassBalanced(self.datasets[stage], count=self.cbgs_count)
        trainer = self.trainer
        return ResumableLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=self._sampler(stage, dataset),
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=trainer is not None and isinstance(trainer.accelerator, CUDAAccelerator),
            # Its own, so that starting a loader leaves the chance of dropout alone.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _sampler(
        self, stage: Stage, dataset: KeyFrameDataset | ClassBalanced
    ) -> EpochSampler | SequenceSampler:
        trainer = self.trainer
        num_replicas, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        if self.sequence_length is not None and stage == "train":
            return SequenceSampler(
                self.datasets[stage],
                self.sequence_length,
                self.batch_size,
                seed=self.seed,
                num_replicas=num_replicas,
                rank=rank,
            )
        chosen = isinstance(dataset, KeyFrameDataset)
        return EpochSampler(
            dataset,
            self.positions(stage) if chosen else range(len(dataset)),
            num_replicas=num_replicas,
            rank=rank,
            shuffle=stage == "train",
            seed=self.seed,
        )
