"""Stop training at the first NaN, and say where it came from."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bev_data.samples.batch import Batch
from bev_models import Predictions
from bev_train.errors import NonFiniteError


def check_predictions(
    predictions: Predictions, detector: nn.Module, batch: Batch, again: Callable[[], object]
) -> None:
    """Stop if a prediction is not finite, before a loss fails over it.

    One look at the sum per step. Where it fails, the batch goes through the detector once more with a look at
    every module's output, to name the first that is not finite.

    Args:
        predictions: of the batch.
        detector: whose predictions they are.
        batch: named in the error.
        again: puts the batch through the detector once more.

    Raises:
        NonFiniteError: naming the samples and the module.
    """
    maps = [predictions.depth_probs, *(value for task in predictions.tasks for value in task)]
    if torch.stack([value.detach().float().sum() for value in maps]).sum().isfinite():
        return
    where = first_nonfinite_module(detector, again)
    origin = (
        f"the first module whose output is not finite is {where}"
        if where
        else "seen again, every module's output is finite"
    )
    raise NonFiniteError(f"a prediction is not finite for samples {_tokens(batch)}: {origin}")


def check_losses(losses: Mapping[str, Tensor], batch: Batch) -> None:
    """Stop if a loss of finite predictions is not finite.

    Raises:
        NonFiniteError: naming the losses and samples.
    """
    if torch.stack([loss.detach() for loss in losses.values()]).sum().isfinite():
        return
    values = ", ".join(f"{name} = {loss.item():g}" for name, loss in losses.items())
    raise NonFiniteError(
        f"a loss is not finite ({values}) for samples {_tokens(batch)}, though all predictions are: "
        "check their boxes and lidar files"
    )


def _tokens(batch: Batch) -> str:
    return ", ".join(meta.token for meta in batch.meta)


def first_nonfinite_module(model: nn.Module, run: Callable[[], object]) -> str | None:
    """Name the module that first puts out a value that is not finite, and whether its weights are to blame.

    Args:
        model: whose modules are watched.
        run: calls the model.

    Returns:
        The name, or None if all is finite.
    """
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if not found and not _finite(output):
                broken = [key for key, value in module.named_parameters() if not value.isfinite().all()]
                found.append(f"{name} (its weights {', '.join(broken)} are not finite)" if broken else name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def check_gradients(model: nn.Module) -> None:
    """Stop if a gradient is not finite, before it reaches the weights.

    Raises:
        NonFiniteError: naming the parameters.
    """
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    if not gradients or torch.stack(torch._foreach_norm(list(gradients.values()))).sum().isfinite():
        return
    broken = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    raise NonFiniteError(
        f"the gradient of {', '.join(broken[:3])}{' and others' if broken[3:] else ''} is not finite, though "
        "the loss is: lower the learning rate, or train with precision 32-true"
    )


def _finite(output: Any) -> bool:
    if isinstance(output, Tensor):
        return not output.is_floating_point() or bool(output.isfinite().all())
    if isinstance(output, Mapping):
        return all(map(_finite, output.values()))
    if isinstance(output, (list, tuple)):
        return all(map(_finite, output))
    return True
