"""Whether the weights of a checkpoint belong to the detector that is to take them."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from bev_data.errors import InputError
from bev_models import PUBLISHED_QUIRKS, DetectorConfig

# What changes how a detector is trained or read out, but not what its weights mean.
_FREE = {
    "activation_checkpointing",
    "image.frozen_stem",
    "stereo.samples",
    "stereo.iterations",
    "stereo.sampling_range",
    "stereo.min_sigma",
    "head.heatmap_prior",
    "head.score_threshold",
    "head.nms_scale",
    "head.nms_per_class",
    "head.peak_size",
    "head.max_candidates",
    "head.max_boxes",
    "head.center_range",
    "quirks.batch_ranges",
}


def check_same_detector(here: DetectorConfig, there: Mapping[str, Any]) -> list[str]:
    """Compare a detector with the one that a checkpoint was trained as.

    Depth bins, stereo ranges, grid, classes and the like may differ without a weight of another shape: such
    weights would load and mean something else.

    Args:
        here: the detector that is to take the weights.
        there: the `detector` of the checkpoint.

    Returns:
        Settings that differ and may.

    Raises:
        InputError: naming the settings that differ and must not.
    """
    ours, theirs = _flat(dataclasses.asdict(here)), _flat(there)
    differ = [key for key in ours if key in theirs and ours[key] != theirs[key]]
    differ += [key for key in ("stereo",) if (key in ours) != (key in theirs)]
    told = {
        key: f"model.detector.{key} is {ours.get(key, 'set')} here and {theirs.get(key, 'set')} there"
        for key in differ
    }
    wrong = [text for key, text in told.items() if key not in _FREE]
    if wrong:
        raise InputError(f"the checkpoint holds another detector: {'; '.join(wrong)}")
    return list(told.values())


def check_shapes(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse weights of other names or shapes.

    Raises:
        InputError: naming the first that differ.
    """
    ours = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in state.items()}
    differ = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    if differ:
        told = [
            f"{name} is {ours.get(name, 'not')} here and {theirs.get(name, 'not')} there" for name in differ
        ]
        raise InputError(f"the checkpoint holds another detector: {'; '.join(told[:4])}")


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by full key; the published quirks by their single names."""
    quirks = settings.get("quirks")
    named = (
        settings if quirks != "published" else {**settings, "quirks": dataclasses.asdict(PUBLISHED_QUIRKS)}
    )
    return dict(_leaves(named, ""))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else key)
    else:
        yield name, _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
