"""What training starts from: weights of an earlier one, and the parts of them that stay as they are."""

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from bev_data.errors import InputError
from bev_models.detector import Detector
from bev_models.weights import by_our_names, check_fit, read_file
from bev_train.same_detector import check_same_detector


def start_from(detector: Detector, path: str | Path, partial: bool) -> None:
    """Fill a detector with the weights of a file: a checkpoint, published or ours, or safetensors.

    Args:
        detector: to fill.
        path: of the file; of a moving average, the average is taken.
        partial: take what fits by name and shape, and list what was left out, instead of refusing.

    Raises:
        InputError: if the file holds no weights, or others and not `partial`, or nothing of it fits.
    """
    try:
        content = read_file(path)
        state = by_our_names(content["state_dict"])
        if not partial:
            for note in check_same_detector(detector.config, content.get("detector", {})):
                rank_zero_info(f"note: {note}")
            check_fit(detector, state)
    except (ValueError, FileNotFoundError) as error:
        hint = "" if partial else "; --model.weights_partial true takes what fits"
        raise InputError(f"model.weights: {error} (in {path}){hint}") from error
    own = detector.state_dict()
    fits = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if not fits:
        raise InputError(f"model.weights: nothing in {path} fits the detector by name and shape")
    detector.load_state_dict(fits, strict=False)
    if partial:
        left = sorted(name for name in own if name not in fits and not name.endswith("num_batches_tracked"))
        unused = sorted(name for name in state if name not in fits)
        rank_zero_info(
            f"model.weights: {len(fits)} of {len(own)} taken from {path}; fresh: {_listed(left)}; "
            f"left out: {_listed(unused)}"
        )


def freeze(detector: Detector, parts: Sequence[str]) -> list[nn.Module]:
    """Take parts of a detector out of training.

    Args:
        detector: whose parts.
        parts: names of modules, such as image_backbone or depth_net.context.

    Returns:
        The parts; their batch norms must stay in evaluation, too.

    Raises:
        InputError: if there is no such part, or nothing is left to train.
    """
    frozen = []
    for name in parts:
        try:
            part = detector.get_submodule(name)
        except AttributeError:
            part = None
        if not name or part is None:
            there = ", ".join(
                child for child, module in detector.named_children() if list(module.parameters())
            )
            raise InputError(f"model.freeze must name parts of the detector ({there}), got {name!r}")
        part.requires_grad_(False)
        frozen.append(part)
    if not any(parameter.requires_grad for parameter in detector.parameters()):
        raise InputError(f"model.freeze must leave something to train, got {', '.join(parts)}")
    return frozen


def _listed(names: Sequence[str], shown: int = 8) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more if names else "nothing"
