"""The published experiments: detectors by name, and their weights."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bev_models.config import DepthNetConfig, DetectorConfig, HeadConfig
from bev_models.detector import Detector, build_detector
from bev_models.weights import by_our_names, check_fit, read_file

_BASE = DetectorConfig(head=HeadConfig(heatmap_prior=None), quirks="published")
_AGGREGATION = replace(_BASE, depth_net=DepthNetConfig(aggregation=True))

# Frames and their spacing, the moving average and the sampling of classes leave the detector as it is.
PUBLISHED: dict[str, DetectorConfig] = {
    "bev_stereo_lss_r50_256x704_128x128_24e_key4": _BASE,
    "bev_stereo_lss_r50_256x704_128x128_24e_key4_ema": _BASE,
    "bev_stereo_lss_r50_256x704_128x128_24e_2key": _BASE,
    "bev_stereo_lss_r50_256x704_128x128_24e_2key_ema": _BASE,
    "bev_stereo_lss_r50_256x704_128x128_20e_cbgs_2key_da": _AGGREGATION,
    "bev_stereo_lss_r50_256x704_128x128_20e_cbgs_2key_da_ema": _AGGREGATION,
    "bev_depth_lss_r50_256x704_128x128_24e_2key": replace(_BASE, stereo=None),
}


def build_published(name: str) -> Detector:
    """Build the detector of a published experiment, quirks included, with fresh weights.

    Args:
        name: one of `PUBLISHED`.

    Raises:
        ValueError: if there is no such experiment.
    """
    if name not in PUBLISHED:
        raise ValueError(f"a published experiment must be one of {', '.join(PUBLISHED)}, got {name}")
    return build_detector(PUBLISHED[name])


def load_weights(detector: Detector, path: str | Path) -> None:
    """Fill a detector from a file: a published checkpoint as it is, or one of ours.

    Strict: every parameter is filled and every weight used, except the buffers of published files that only
    repeat settings (`bev_models.checkpoints.DERIVED`). Nothing that the file contains is run.

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


def recognise(state: Mapping[str, Tensor]) -> DetectorConfig:
    """The published detector whose weights these are.

    Args:
        state: by our names.

    Raises:
        ValueError: if they are those of another detector, with a list of what differs.
    """
    aggregation = any(key.startswith("view_transform.aggregation.") for key in state)
    stereo = any(key.startswith("stereo.") for key in state)
    config = replace(
        _BASE,
        depth_net=DepthNetConfig(aggregation=aggregation),
        stereo=_BASE.stereo if stereo else None,
    )
    with torch.device("meta"):
        check_fit(build_detector(config), state)
    return config
