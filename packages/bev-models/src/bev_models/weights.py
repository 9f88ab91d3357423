"""Weight files: read without running what they may contain, and held against a detector."""

import json
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from bev_models.archive import check_archive
from bev_models.config import DepthNetConfig, DetectorConfig, config_from_dict
from bev_models.detector import Detector, build_detector
from bev_models.published import PUBLISHED, build_published, from_published, is_published

# The weights in a folder that `bev-train export` makes.
EXPORTED_WEIGHTS = "detector.safetensors"
# What training programs put before the names of a detector's parameters.
_PREFIXES = ("detector.", "module.")
# What safetensors files carry as JSON beside the weights.
_SETTINGS = ("detector",)
# What reading a file of something else, or a damaged one, ends in.
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
    safetensors.SafetensorError,
)
# How many names a complaint lists.
_SHOWN = 5


def load_weights(detector: Detector, path: str | Path) -> None:
    """Fill a detector from a file: a published checkpoint as it is, or one of ours.

    Strict: every parameter is filled and every weight used, except the buffers of published files that only
    repeat settings (`bev_models.published.DERIVED`). Nothing that the file contains is run.

    Args:
        detector: of the same shape as the weights.
        path: a checkpoint of Lightning or the published training (moving averages too), a bare state dict, or
            safetensors.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights, or other ones, with a list of what differs.
    """
    state = by_our_names(read_file(path)["state_dict"])
    try:
        check_fit(detector, state)
    except ValueError as error:
        raise ValueError(f"{error} (in {path})") from error
    detector.load_state_dict(state, strict=True)


def read_file(path: str | Path) -> Mapping[str, Any]:
    """Read a checkpoint or a safetensors file; nothing that it contains is run.

    Args:
        path: `*.safetensors`, or a file of `torch.save`.

    Returns:
        A mapping with the entry "state_dict", whatever else the file holds beside it. Objects of classes that
        torch does not know as harmless are read as empty dictionaries.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the weights must be a file, none at {path}")
    content: Any
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except _UNREADABLE as error:
        raise ValueError(f"weights must be a whole file of torch.save or safetensors, got {path}") from error
    if isinstance(content, Mapping) and "state_dict" not in content:
        content = {"state_dict": content}
    if not isinstance(content, Mapping) or not _holds_weights(content["state_dict"]):
        raise ValueError(f"weights must be tensors by name, got something else in {path}")
    return content


def by_our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of a detector, published or ours, by our names; unknown keys stay as they are."""
    if is_published(state):
        ours, unknown = from_published(state)
        return ours | {key: state[key] for key in unknown}
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def check_fit(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Check that weights fill every parameter and buffer of a module and that none is left over.

    Args:
        module: on any device, the meta device too.
        state: by the module's own names.

    Raises:
        ValueError: listing what is missing, unknown, or of another shape.
    """
    own = module.state_dict()
    other_shape = [
        f"{key} {list(state[key].shape)} for {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    complaints = [
        _list("lack", [key for key in own if key not in state]),
        _list("have besides", [key for key in state if key not in own]),
        _list("have in another shape", other_shape),
    ]
    if wrong := "; they ".join(filter(None, complaints)):
        raise ValueError(f"weights must fit the detector parameter by parameter, but they {wrong}")


def load_detector(path: str | Path, experiment: str | None = None) -> Detector:
    """Build a detector from a file that holds its weights, ready to detect.

    Args:
        path: a checkpoint of `bev-train fit` (the moving average where the run kept one), what `bev-train
            convert` writes, or a published checkpoint; also a folder that `bev-train export` made.
        experiment: whose published weights these are, one of `PUBLISHED`; None recognises them.

    Returns:
        The detector in evaluation mode, with channels side by side, in which convolutions are fastest.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no weights, those of no detector, or those of another than the experiment's.
    """
    path = Path(path)
    if path.is_dir():
        path = path / EXPORTED_WEIGHTS
    content = read_file(path)
    state = by_our_names(content["state_dict"])
    try:
        if experiment is not None:
            detector = build_published(experiment)
        elif "detector" in content:
            detector = build_detector(config_from_dict(content["detector"]))
        else:
            detector = build_detector(recognise(state))
        check_fit(detector, state)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{error} (in {path})") from error
    detector.load_state_dict(state, strict=True)
    return detector.eval().to(memory_format=torch.channels_last)


def recognise(state: Mapping[str, Tensor]) -> DetectorConfig:
    """The published detector whose weights these are.

    Args:
        state: by our names.

    Raises:
        ValueError: if they are those of another detector, with a list of what differs.
    """
    base = PUBLISHED["bev_stereo_lss_r50_256x704_128x128_24e_2key"]
    aggregation = any(key.startswith("view_transform.aggregation.") for key in state)
    stereo = any(key.startswith("stereo.") for key in state)
    config = replace(
        base,
        depth_net=DepthNetConfig(aggregation=aggregation),
        stereo=base.stereo if stereo else None,
    )
    with torch.device("meta"):
        check_fit(build_detector(config), state)
    return config


def _read_torch(path: Path) -> Any:
    check_archive(path)
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    with torch.serialization.safe_globals([(_Nothing, name) for name in names]):
        # What has just been checked is still in the system's cache: mapped, it is not copied once more.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata() or {}
    return {"state_dict": state} | {key: json.loads(metadata[key]) for key in _SETTINGS if key in metadata}


def _list(verb: str, names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{verb} {shown}{more}" if names else ""


def _holds_weights(state: Any) -> bool:
    return isinstance(state, Mapping) and bool(state) and all(isinstance(x, Tensor) for x in state.values())


class _Nothing:
    """Stands for an object of any class that a checkpoint holds beside its weights."""

    def __new__(cls, *_: Any) -> Any:
        """Make an empty dictionary of a type that takes whatever the file says of the object."""
        return OrderedDict()
