"""The published experiments: detectors by name, and their checkpoints' parameter names and values as ours.

A published name is that of the state dict without the leading "model."; a file may have either.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from bev_models.config import DepthNetConfig, DetectorConfig, HeadConfig
from bev_models.detector import Detector, build_detector
from bev_models.grid import DepthBins
from bev_models.stereo import candidate_offsets

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

# Buffers of the published model that follow from its configuration; ours are not saved.
DERIVED = tuple(
    f"backbone.{name}"
    for name in ("voxel_size", "voxel_coord", "voxel_num", "frustum", "k_list", "depth_values")
)

_ASPP = "backbone.depth_net.depth_feat_conv.2.", "depth_net.depth_features.2."
_MAPS = {
    "reg": "offset",
    "height": "height",
    "dim": "size",
    "rot": "rotation",
    "vel": "velocity",
    "heatmap": "heatmap",
}

# Published name and ours; a star stands for whatever it is on both sides. First match wins.
_NAMES: tuple[tuple[str, str], ...] = (
    ("backbone.img_backbone.*", "image_backbone.*"),
    ("backbone.img_neck.deblocks.*", "image_neck.branches.*"),
    ("backbone.depth_net.reduce_conv.*", "depth_net.reduce.*"),
    ("backbone.depth_net.bn.*", "depth_net.camera_norm.*"),
    ("backbone.depth_net.context_conv.*", "depth_net.context.*"),
    *((f"backbone.depth_net.{x}_mlp.fc*", f"depth_net.{x}_gate.fc*") for x in ("context", "depth")),
    *((f"backbone.depth_net.{x}_se.conv_*", f"depth_net.{x}_gate.*") for x in ("context", "depth")),
    *((f"{_ASPP[0]}aspp{i + 1}.atrous_conv.*", f"{_ASPP[1]}branches.{i}.0.*") for i in range(4)),
    *((f"{_ASPP[0]}aspp{i + 1}.bn.*", f"{_ASPP[1]}branches.{i}.1.*") for i in range(4)),
    *((f"{_ASPP[0]}global_avg_pool.{i + 1}.*", f"{_ASPP[1]}pooled.1.{i}.*") for i in range(2)),
    (f"{_ASPP[0]}conv1.*", f"{_ASPP[1]}project.0.*"),
    (f"{_ASPP[0]}bn1.*", f"{_ASPP[1]}project.1.*"),
    ("backbone.depth_net.depth_feat_conv.3.conv_offset.*", "depth_net.depth_features.3.offset.*"),
    ("backbone.depth_net.depth_feat_conv.*", "depth_net.depth_features.*"),
    ("backbone.depth_net.mono_depth_net.*", "depth_net.mono_head.*"),
    ("backbone.depth_net.mu_sigma_range_net.*", "depth_net.range_head.*"),
    *((f"backbone.similarity_net.{i}.conv.*", f"stereo.similarity_net.{i}.0.*") for i in range(2)),
    *((f"backbone.similarity_net.{i}.bn.*", f"stereo.similarity_net.{i}.1.*") for i in range(2)),
    ("backbone.similarity_net.2.*", "stereo.similarity_net.2.*"),
    ("backbone.mask_net.*", "stereo.mask_net.*"),
    ("backbone.depth_downsample_net.*", "stereo.downsample.*"),
    ("backbone.depth_aggregation_net.reduce_conv.*", "view_transform.aggregation.reduce.*"),
    ("backbone.depth_aggregation_net.conv.*", "view_transform.aggregation.conv.*"),
    ("backbone.depth_aggregation_net.out_conv.0.*", "view_transform.aggregation.out.*"),
    ("head.trunk.*", "bev_encoder.trunk.*"),
    ("head.neck.deblocks.*", "bev_encoder.neck.branches.*"),
    ("head.shared_conv.conv.*", "head.shared.0.*"),
    ("head.shared_conv.bn.*", "head.shared.1.*"),
    *((f"head.task_heads.*.{a}.0.conv.*", f"head.tasks.*.{b}.0.0.*") for a, b in _MAPS.items()),
    *((f"head.task_heads.*.{a}.0.bn.*", f"head.tasks.*.{b}.0.1.*") for a, b in _MAPS.items()),
    *((f"head.task_heads.*.{a}.1.*", f"head.tasks.*.{b}.1.*") for a, b in _MAPS.items()),
)


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


def published_to_ours(key: str) -> str | None:
    """Our name of a published parameter, or None for a buffer that follows from the configuration.

    Args:
        key: as in the file, with or without the leading "model.".

    Raises:
        ValueError: if the key is not one of a published BEVStereo checkpoint.
    """
    key = key.removeprefix("model.")
    return None if key in DERIVED else _rename(key, _TO_OURS)


def ours_to_published(key: str) -> str:
    """Published name of one of our parameters, without the leading "model.".

    Raises:
        ValueError: if a published checkpoint has no such parameter.
    """
    return _rename(key, _TO_PUBLISHED)


def is_published(keys: Iterable[str]) -> bool:
    """Whether the names of a state dict are published ones."""
    return any(key.removeprefix("model.").startswith("backbone.") for key in keys)


def from_published(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename a published state dict.

    Returns:
        Our state dict, and the keys that no published BEVStereo checkpoint has.
    """
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        try:
            name = published_to_ours(key)
        except ValueError:
            unknown.append(key)
            continue
        if name is not None:
            # Pointwise over candidates: published as 1x1x1 convolutions, ours are 1x1.
            ours[name] = value.squeeze(-1) if value.dim() == 5 else value
    return ours, unknown


def to_published(
    state: Mapping[str, Tensor], config: DetectorConfig, image_size: tuple[int, int] = (256, 704)
) -> dict[str, Tensor]:
    """Name our state dict as published, with the leading "model." and the buffers that follow from settings.

    Args:
        state: of a detector.
        config: of that detector.
        image_size: (H, W) of its input, pixels.

    Raises:
        ValueError: if a published checkpoint has no such parameter.
    """
    values = derived_buffers(config, image_size)
    for key, value in state.items():
        pointwise = key.startswith("stereo.similarity_net.") and value.dim() == 4
        values[ours_to_published(key)] = value[..., None] if pointwise else value
    return {f"model.{key}": value for key, value in values.items()}


def derived_buffers(config: DetectorConfig, image_size: tuple[int, int]) -> dict[str, Tensor]:
    """The buffers of a published checkpoint that hold settings, by published name.

    Args:
        config: of a detector.
        image_size: (H, W) of its input, pixels.
    """
    grid, bins = config.bev.grid, config.depth_net.bins
    size, low = torch.tensor(grid.cell), torch.tensor(grid.low)
    values = {
        "voxel_size": size,
        "voxel_coord": low + size / 2,
        "voxel_num": torch.tensor(grid.shape[::-1]),
        "frustum": _frustum(image_size, config.image.stride, bins),
    }
    if config.stereo:
        values["k_list"] = candidate_offsets(config.stereo.samples, config.stereo.sampling_range)
        values["depth_values"] = bins.edges()
    return {f"backbone.{name}": value for name, value in values.items()}


def _frustum(image_size: tuple[int, int], stride: int, bins: DepthBins) -> Float[Tensor, "d h w 4"]:
    """(u, v, depth, 1) of every bin of every feature cell; first and last cell lie on the corner pixels."""
    height, width = image_size
    v = torch.linspace(0, height - 1, height // stride)
    u = torch.linspace(0, width - 1, width // stride)
    d, v, u = torch.meshgrid(bins.edges(), v, u, indexing="ij")
    return torch.stack([u, v, d, torch.ones_like(d)], dim=-1)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", "(.+?)") + "$")


def _template(name: str) -> str:
    return name.replace("*", "{}")


_TO_OURS = tuple((_pattern(theirs), _template(ours)) for theirs, ours in _NAMES)
_TO_PUBLISHED = tuple((_pattern(ours), _template(theirs)) for theirs, ours in _NAMES)


def _rename(key: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, template in rules:
        if found := pattern.match(key):
            return template.format(*found.groups())
    raise ValueError(f"a parameter must be one of a BEVStereo checkpoint, got {key}")
