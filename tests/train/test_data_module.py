"""What loaders hand out: to whom, in which order, and after a run was stopped."""

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from bev_data.infos.infos import open_infos
from bev_data.samples.balanced import ClassBalanced
from bev_data.samples.dataset import History, KeyFrameDataset
from bev_train.data_module import DetectionDataModule, Loader, Sampling
from bev_train.loading import EpochSampler

# Lightning, about a run this small; that a loader cannot go on within an epoch would still be an error.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{text}")
    for text in (
        "have no `validation_step`",
        "does not have many workers",
        "using `ckpt_path`, callbacks",
        "LeafSpec",
    )
]


@pytest.fixture(scope="module")
def dataset(world):
    return KeyFrameDataset(
        open_infos(world, "v1.0-mini", "mini_train"),
        world,
        image_size=(32, 64),
        history=History(frames=0),
        training=True,
        lidar_depth=False,
    )


class Recorder(LightningModule):
    """Trains nothing, and keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch):
        self.seen.append((batch.meta[0].token, batch.image_aug[0, 0, 0].flatten().tolist()))
        return self.weight * 0

    def configure_optimizers(self):
        # As learning rates do that follow the length of the run; loaders are made for it, before all else.
        assert self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), 0.1)


def run(world, folder, *, epochs=3, checkpoint=None, workers=0, sequence_length=None, **trainer):
    data = DetectionDataModule(
        str(world),
        image_size=(32, 64),
        history=History(frames=0),
        lidar_depth=False,
        sampling=Sampling(sequence_length=sequence_length),
        loader=Loader(batch_size=1, num_workers=workers),
        seed=1,
    )
    recorder = Recorder()
    Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        **trainer,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=checkpoint is None,
        callbacks=[]
        if checkpoint
        else [ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)],
    ).fit(recorder, data, ckpt_path=checkpoint, weights_only=True)
    return recorder.seen


def test_a_run_stopped_anywhere_goes_on_with_the_next_batch(world, tmp_path):
    """Three batches an epoch: checkpoints within an epoch and at its end."""
    whole = run(world, tmp_path / "whole")
    assert len(whole) == 9
    assert len({str(shown) for shown in whole}) == 9
    for step in (1, 2, 3, 4, 5, 6, 8):
        rest = run(world, tmp_path / "rest", checkpoint=tmp_path / "whole" / f"step={step}.ckpt")
        assert rest == whole[step:], f"after {step} batches"


def test_workers_change_nothing(world, tmp_path):
    alone = run(world, tmp_path / "alone", epochs=2)
    assert run(world, tmp_path / "with", epochs=2, workers=1) == alone
    for step in (2, 3):
        checkpoint = tmp_path / "alone" / f"step={step}.ckpt"
        rest = run(world, tmp_path / "with", epochs=2, workers=1, checkpoint=checkpoint)
        assert rest == alone[step:], f"after {step} batches"


@pytest.mark.parametrize("workers", [0, 1])
def test_shortened_epochs_go_on(world, tmp_path, workers):
    options = {"epochs": 2, "workers": workers, "limit_train_batches": 2}
    whole = run(world, tmp_path / "whole", **options)
    assert len(whole) == 4
    for step in (1, 2, 3):
        checkpoint = tmp_path / "whole" / f"step={step}.ckpt"
        rest = run(world, tmp_path / "rest", checkpoint=checkpoint, **options)
        assert rest == whole[step:], f"after {step} batches"


@pytest.mark.parametrize("workers", [0, 1])
def test_sequences_follow_time_and_go_on_where_they_were(world, tmp_path, workers):
    """The scene has three key frames: an epoch is one sequence, of the first two or of the last two."""
    options = {"epochs": 4, "workers": workers, "sequence_length": 2}
    whole = run(world, tmp_path / "whole", **options)
    tokens = open_infos(world, "v1.0-mini", "mini_train").tokens
    rows = [tokens.index(token) for token, _ in whole]
    assert len(rows) == 8
    assert all(rows[i + 1] == rows[i] + 1 for i in range(0, 8, 2))
    assert set(rows[::2]) == {0, 1}
    assert len({str(shown) for shown in whole}) == 8
    for step in (1, 2, 5):
        checkpoint = tmp_path / "whole" / f"step={step}.ckpt"
        rest = run(world, tmp_path / "rest", checkpoint=checkpoint, **options)
        assert rest == whole[step:], f"after {step} batches"


def test_processes_share_the_sequences(world):
    data = DetectionDataModule(
        str(world), image_size=(32, 64), sampling=Sampling(sequence_length=1), loader=Loader(1, 0)
    )
    data.setup("fit")
    assert len(data.train_dataloader()) == 3
    data.trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)
    assert len(data.train_dataloader()) == 2
    assert len(data.val_dataloader()) == 2


@pytest.mark.parametrize("balanced", [False, True])
def test_processes_share_an_epoch(dataset, balanced):
    samples = ClassBalanced(dataset) if balanced else dataset
    positions = list(range(len(samples)))

    def shares(count, epoch):
        samplers = [
            EpochSampler(samples, positions, num_replicas=count, rank=rank, shuffle=True, seed=3)
            for rank in range(count)
        ]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        return [list(sampler) for sampler in samplers]

    (alone,) = shares(1, 0)
    assert sorted(alone) == positions
    parts = shares(2, 0)
    assert len(parts[0]) == len(parts[1])
    assert set(parts[0]) | set(parts[1]) == set(positions)
    # In turns, so that two processes see together what one sees.
    woven = [index for pair in zip(*parts, strict=True) for index in pair]
    assert woven[: len(alone)] == alone
    assert any(shares(1, epoch) != shares(1, 0) for epoch in range(1, 4))
