"""Layers that several modules share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock

__all__ = [
    "BasicBlock",
    "ConvBlock",
    "LoneBatchNorm1d",
    "LoneBatchNorm2d",
    "apply_checkpointed",
    "at_least_float32",
]


class _LoneValues(nn.modules.batchnorm._BatchNorm):
    """Normalises a single value per channel, which has no variance, by the running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class LoneBatchNorm1d(_LoneValues, nn.BatchNorm1d):
    """Batch norm of vectors that may come one at a time."""


class LoneBatchNorm2d(_LoneValues, nn.BatchNorm2d):
    """Batch norm of maps that may come one at a time, of one cell."""


class ConvBlock(nn.Sequential):
    """Convolution, batch norm, ReLU.

    The convolution is without bias unless asked for; it keeps the map's size at stride 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
        norm: type[nn.BatchNorm2d] = nn.BatchNorm2d,
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, bias=bias),
            norm(out_channels),
            nn.ReLU(inplace=True),
        )


def apply_checkpointed(module: nn.Module, x: Tensor, enabled: bool = True) -> Tensor:
    """Apply a module; with gradient, keep only its input and compute the rest again in the backward pass.

    Batch norms count a batch once, so a training step gives the same numbers and statistics either way.

    Args:
        module: of one input and one output.
        x: its input.
        enabled: false to keep everything, as usual. Under torch.compile, which chooses by itself what to
            compute again, nothing is added either.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost (2016).
    """
    if not enabled or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return module(x)  # type: ignore[no-any-return]
    seen = False

    def run(x: Tensor) -> Tensor:
        nonlocal seen
        again, seen = seen, True
        if not again:
            return module(x)  # type: ignore[no-any-return]
        with _frozen_statistics(module):
            return module(x)  # type: ignore[no-any-return]

    return checkpoint(run, x, use_reentrant=False)


def at_least_float32(x: Tensor) -> Tensor:
    """Float32 where autocast made numbers narrower; a detector in float64 stays in float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms that train normalise by their batch without counting it."""
    norms = [
        part
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training and part.track_running_stats
    ]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # A counter that nobody reads: synchronised batch norms insist on one.
        counter = torch.zeros_like(norm.num_batches_tracked)  # type: ignore[arg-type]
        norm.momentum, norm.num_batches_tracked = 0.0, counter
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
