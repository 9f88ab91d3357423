"""Batch norms whose statistics are those of all processes, on CPUs too, where torch's own do not run."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SyncBatchNorm(nn.SyncBatchNorm):
    """Torch's batch norm over all processes; on a CPU by two sums over them, with gradient.

    Source: Ioffe and Szegedy, Batch Normalization (ICML 2015), algorithm 1, over all processes' batches.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by the statistics of what all processes see."""
        alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        if not self.training or (alone and input.numel() == input.shape[1]):
            # A lone value per channel has no variance.
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if alone or input.is_cuda:
            return super().forward(input)
        shape = (1, -1, *[1] * (input.dim() - 2))
        x = input.float().transpose(0, 1).flatten(1)
        sums = all_reduce(torch.cat([x.sum(1), x.new_full((1,), x.shape[1])]))  # type: ignore[no-untyped-call]
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = x - mean[:, None]
        variance = all_reduce(centred.square().sum(1)) / count  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr,arg-type]
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_var.lerp_(unbiased, self.momentum)  # type: ignore[union-attr,arg-type]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = (variance + self.eps).rsqrt() * self.weight
        normalised: Tensor = (input - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)


class SyncNorms(TorchSyncBatchNorm):
    """Puts them in place of a model's batch norms."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Convert a model."""
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        for module in converted.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.__class__ = SyncBatchNorm
        return converted
