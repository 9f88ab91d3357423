"""nuScenes-format data for Lightning: infos, datasets, loaders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.accelerators import CUDAAccelerator
from torch.utils.data import DataLoader

from bev_data.errors import InputError
from bev_data.infos.infos import Infos, open_infos
from bev_data.nuscenes.splits import EVALUATION_SPLIT, find_version_of
from bev_data.nuscenes.taxonomy import CLASSES
from bev_data.samples.balanced import ClassBalanced
from bev_data.samples.batch import Sample, collate
from bev_data.samples.dataset import (
    BevAugmentation,
    DataQuirks,
    History,
    ImageAugmentation,
    KeyFrameDataset,
    SampleOptions,
)
from bev_data.samples.sequences import SequenceSampler
from bev_train.loading import WAIT_S, EpochSampler, ResumableLoader
from bev_train.shared_memory import check_shared_memory
from bev_train.stopping import outlive_signals

Stage = Literal["train", "val", "test", "predict"]

_STAGES: dict[str, tuple[Stage, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}
# Splits that a version is trained and evaluated on, where none are named.
_TRAIN_SPLIT = {"v1.0-mini": "mini_train", "v1.0-trainval": "train"}


@dataclass(frozen=True)
class Splits:
    """Which split each command uses.

    Attributes:
        train: to train on; null takes train, or mini_train for v1.0-mini.
        val: to validate on; null takes val, or mini_val for v1.0-mini.
        test: that `test` evaluates; null takes that of `val`.
        predict: that `predict` writes results for; null takes val, mini_val or test.
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None
    predict: str | None = None


@dataclass(frozen=True)
class Subset:
    """Which key frames of every split are used.

    Attributes:
        tokens: these alone (sample tokens); null for all.
        max_samples: so many, the first ones; null for all.
    """

    tokens: list[str] | None = None
    max_samples: int | None = None

    def __post_init__(self) -> None:
        if self.max_samples is not None and self.max_samples < 1:
            raise InputError(f"data.subset.max_samples must be at least 1, got {self.max_samples}")

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self.tokens is None and self.max_samples is None


@dataclass(frozen=True)
class Sampling:
    """In which order training sees key frames.

    Attributes:
        cbgs: repeat key frames until each class has the same share.
        sequence_length: each entry of a batch goes on for so many key frames of a scene where it was in the
            batch before, and then all begin anew, for models that carry state; null for key frames in any
            order.
    """

    cbgs: bool = False
    sequence_length: int | None = None

    def __post_init__(self) -> None:
        if self.sequence_length is not None and self.sequence_length < 1:
            raise InputError(f"data.sampling.sequence_length must be at least 1, got {self.sequence_length}")


@dataclass(frozen=True)
class Loader:
    """How samples are loaded.

    Attributes:
        batch_size: samples per device and step.
        num_workers: processes that load samples, per device.
    """

    batch_size: int = 8
    num_workers: int = 4

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_workers < 0:
            raise InputError(
                "data.loader.batch_size must be at least 1 and data.loader.num_workers at least 0, "
                f"got {self.batch_size} and {self.num_workers}"
            )


class DetectionDataModule(LightningDataModule):
    """Key frames of a nuScenes-format database with their history."""

    def __init__(
        self,
        root: str,
        version: str = "auto",
        image_size: tuple[int, int] = (256, 704),
        cameras: list[str] | None = None,
        classes: Sequence[str] = CLASSES,
        history: History = History(),  # noqa: B008 (frozen; jsonargparse reads the default)
        image_aug: ImageAugmentation | None = ImageAugmentation(),  # noqa: B008
        bev_aug: BevAugmentation | None = BevAugmentation(),  # noqa: B008
        lidar_depth: bool = True,
        options: SampleOptions = SampleOptions(),  # noqa: B008
        quirks: DataQuirks | Literal["published"] = DataQuirks(),  # noqa: B008
        splits: Splits = Splits(),
        subset: Subset = Subset(),
        sampling: Sampling = Sampling(),
        loader: Loader = Loader(),
        seed: int = 0,
    ) -> None:
        """Say what to load; nothing is read before a run starts.

        Args:
            root: folder of the database, which holds v1.0-*/, samples/ and sweeps/.
            version: of the tables, such as v1.0-mini; auto takes the one that is there, trainval before mini.
            image_size: height and width the images are brought to, multiples of 32.
            cameras: names of the cameras to use; null for all of the database.
            classes: classes to detect; labels index them.
            history: which earlier images go with a key frame.
            image_aug: ranges of the image augmentation in training; null for none.
            bev_aug: ranges of the augmentation of the ego frame in training; null for none.
            lidar_depth: load lidar depth for loss and metrics; false for data without lidar.
            options: how samples are made where there is a choice.
            quirks: where the published weights were trained on other samples; "published" for all of it.
            splits: of the database, per command.
            subset: of each split.
            sampling: order in training.
            loader: batches and processes.
            seed: of order and augmentation.

        Raises:
            InputError: if settings do not fit each other.
        """
        super().__init__()
        if sampling.cbgs and not subset.whole:
            raise InputError("data.sampling.cbgs must be false where data.subset chooses key frames")
        if sampling.sequence_length is not None and (sampling.cbgs or not subset.whole):
            raise InputError(
                "data.sampling.sequence_length must be null where data.sampling.cbgs or data.subset choose "
                "key frames"
            )
        self.root = Path(root)
        self.version = version
        self.splits: dict[Stage, str | None] = {
            "train": splits.train,
            "val": splits.val,
            "test": splits.test or splits.val,
            "predict": splits.predict,
        }
        self.image_size = image_size
        self.cameras = cameras
        self.classes = classes
        self.history = history
        self.image_aug = image_aug
        self.bev_aug = bev_aug
        self.lidar_depth = lidar_depth
        self.options = options
        self.quirks = quirks
        self.subset = subset
        self.sampling = sampling
        self.loader = loader
        self.seed = seed
        self.datasets: dict[Stage, KeyFrameDataset] = {}
        self._first_epoch = self._first_batch = 0

    def state_dict(self) -> dict[str, Any]:
        """The epoch that a run resumed from here begins with, and how many of its batches are done."""
        loop: Any = self.trainer.fit_loop  # type: ignore[union-attr]
        epoch, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress
        # An epoch is over with its last batch, before Lightning counts it.
        if batches.is_last_batch:
            place = {"epoch": epoch.ready, "batches": 0}
        else:
            place = {"epoch": epoch.processed, "batches": batches.current.processed}
        return place | {"step": self._step()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin where a checkpoint was written.

        Raises:
            InputError: if a step would see another number of samples than before.
        """
        here, there = self._step(), state_dict["step"]
        if self.trainer.state.fn == "fit" and here != there:  # type: ignore[union-attr]
            raise InputError(
                "training must go on with as many samples in each step as it began with, for epochs and "
                f"learning rate count steps: {_told(there)} in the checkpoint, {_told(here)} now; set "
                "data.loader.batch_size, trainer.devices and trainer.accumulate_grad_batches to match"
            )
        self._first_epoch, self._first_batch = state_dict["epoch"], state_dict["batches"]

    def _step(self) -> dict[str, int]:
        """Samples that all processes take together, and how often before the optimiser steps."""
        trainer: Any = self.trainer
        return {
            "samples": self.loader.batch_size * trainer.world_size,
            "accumulated": trainer.accumulate_grad_batches,
        }

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
        processes = self.trainer.num_devices if self.trainer else 1
        check_shared_memory(
            list(self.datasets.values()), self.loader.batch_size, self.loader.num_workers, processes
        )

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled, augmented samples, or sequences of them."""
        loader = self._loader("train")
        sampler: Any = loader.sampler
        # Lightning starts the workers before it tells the sampler its epoch.
        sampler.set_epoch(max(self._first_epoch, self.trainer.current_epoch if self.trainer else 0))
        # What was shown before is left out once.
        sampler.skip, self._first_batch = self._first_batch * self.loader.batch_size, 0
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
        """Indices into the dataset that a stage uses, in order: those of `subset`.

        Raises:
            InputError: if none of its tokens is there.
        """
        dataset = self.datasets[stage]
        positions = list(range(len(dataset)))
        if self.subset.tokens is not None:
            wanted, names = set(self.subset.tokens), dataset.infos.tokens
            positions = [i for i in positions if names[dataset.indices[i]] in wanted]
            if not positions:
                raise InputError(
                    f"data.subset.tokens must name key frames of split {dataset.infos.split}, "
                    f"got {', '.join(self.subset.tokens)}"
                )
        return positions[: self.subset.max_samples]

    def _stages(self) -> tuple[Stage, ...]:
        if self.trainer is None or self.trainer.state.fn is None:
            return "train", "val"
        stages = _STAGES[self.trainer.state.fn]
        if self.trainer.limit_val_batches == 0:
            stages = tuple(stage for stage in stages if stage != "val")
        return stages

    def _open_infos(self, stage: Stage) -> Infos:
        usual = _TRAIN_SPLIT if stage == "train" else EVALUATION_SPLIT
        split = self.splits[stage]
        version = find_version_of(self.root, split) if self.version == "auto" else self.version
        split = split or usual.get(version)
        if split is None:
            raise InputError(
                f"data.splits.{stage} must be set: version {version} of {self.root} has no usual one"
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
            quirks=self.quirks,
        )

    def _loader(self, stage: Stage) -> DataLoader[Sample]:
        chosen = self.datasets[stage]
        dataset: KeyFrameDataset | ClassBalanced = chosen
        if self.sampling.cbgs and stage == "train":
            dataset = ClassBalanced(chosen, count=chosen.quirks.cbgs_count)
        trainer = self.trainer
        return ResumableLoader(
            dataset,
            batch_size=self.loader.batch_size,
            sampler=self._sampler(stage, dataset),
            collate_fn=collate,
            worker_init_fn=outlive_signals,
            num_workers=self.loader.num_workers,
            persistent_workers=self.loader.num_workers > 0,
            timeout=WAIT_S if self.loader.num_workers > 0 else 0,
            pin_memory=trainer is not None and isinstance(trainer.accelerator, CUDAAccelerator),
            # Its own, so that starting a loader leaves the chance of dropout alone.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _sampler(
        self, stage: Stage, dataset: KeyFrameDataset | ClassBalanced
    ) -> EpochSampler | SequenceSampler:
        trainer = self.trainer
        num_replicas, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        if self.sampling.sequence_length is not None and stage == "train":
            return SequenceSampler(
                self.datasets[stage],
                self.sampling.sequence_length,
                self.loader.batch_size,
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


def _told(step: Mapping[str, int]) -> str:
    return f"{step['samples']} samples over all devices x {step['accumulated']} accumulated"
