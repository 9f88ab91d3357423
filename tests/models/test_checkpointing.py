"""Activation checkpointing: less memory, the same numbers."""

import copy

import pytest
import torch
from torch import Tensor

from bev_models import DetectionLoss, LossConfig, Quirks
from bev_models.blocks import ConvBlock, apply_checkpointed

from . import tiny


def training_step(checkpointing: bool, quirks: Quirks | str, dtype: torch.dtype | None):
    """Losses, gradients, state after one step, and bytes that the backward pass needs kept."""
    model = tiny.detector(quirks=quirks, activation_checkpointing=checkpointing).train()
    criterion = DetectionLoss(model.config, LossConfig(stereo_weight=1.0))
    boxes, labels = tiny.boxes()
    lidar = torch.full((1, 2, *tiny.SIZE), 7.0)
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    torch.manual_seed(1)  # dropout
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
        torch.autocast("cpu", dtype=dtype, enabled=dtype is not None),
    ):
        predictions = model(tiny.images(), tiny.rig())
        losses = criterion(predictions, [boxes], [labels], lidar)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return losses, gradients, model.state_dict(), sum(kept.values())


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "autocast"])
@pytest.mark.parametrize("quirks", ["published", Quirks()], ids=["published", "right"])
def test_training_step_gives_the_same_numbers_in_less_memory(quirks, dtype):
    *usual, kept_usually = training_step(False, quirks, dtype)
    *found, kept = training_step(True, quirks, dtype)
    for mine, expected in zip(found, usual, strict=True):
        assert mine.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(mine[name], value), name
    assert usual[2]["image_backbone.layer1.0.bn1.num_batches_tracked"] == 2
    assert kept < kept_usually / 2


def test_weights_fit_detectors_with_and_without():
    state = tiny.detector().state_dict()
    tiny.detector(seed=1, activation_checkpointing=True).load_state_dict(state)


def test_synchronised_batch_norms_take_part():
    """They insist on a counter of batches, also where a pass is done again."""
    torch.manual_seed(0)
    block = ConvBlock(3, 4, 3)
    block = torch.nn.SyncBatchNorm.convert_sync_batchnorm(block).train()
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    usual = torch.autograd.grad(copy.deepcopy(block)(x).square().sum(), x)[0]
    found = torch.autograd.grad(apply_checkpointed(block, x).square().sum(), x)[0]
    assert torch.equal(found, usual)
    assert block[1].num_batches_tracked == 1
