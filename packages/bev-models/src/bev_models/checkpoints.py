"""Published BEVStereo checkpoints: their parameter names and ours."""

import re
from collections.abc import Callable

# Published prefix (without the leading "model.") -> ours, first match wins.
_MODULES: tuple[tuple[str, str], ...] = (
    (r"^backbone\.img_backbone\.", "image_backbone."),
    (r"^backbone\.img_neck\.deblocks\.", "image_neck.branches."),
    (r"^backbone\.depth_net\.reduce_conv\.", "depth_net.reduce."),
    (r"^backbone\.depth_net\.bn\.", "depth_net.camera_norm."),
    (r"^backbone\.depth_net\.context_conv\.", "depth_net.context."),
    (r"^backbone\.depth_net\.(depth|context)_mlp\.", r"depth_net.\1_gate."),
    (r"^backbone\.depth_net\.(depth|context)_se\.conv_", r"depth_net.\1_gate."),
    (r"^backbone\.depth_net\.depth_feat_conv\.3\.conv_offset\.", "depth_net.depth_features.3.offset."),
    (r"^backbone\.depth_net\.depth_feat_conv\.", "depth_net.depth_features."),
    (r"^backbone\.depth_net\.mono_depth_net\.", "depth_net.mono_head."),
    (r"^backbone\.depth_net\.mu_sigma_range_net\.", "depth_net.range_head."),
    (r"^backbone\.similarity_net\.", "stereo.similarity_net."),
    (r"^backbone\.mask_net\.", "stereo.mask_net."),
    (r"^backbone\.depth_downsample_net\.", "stereo.downsample."),
    (r"^backbone\.depth_aggregation_net\.reduce_conv\.", "view_transform.aggregation.reduce."),
    (r"^backbone\.depth_aggregation_net\.out_conv\.0\.", "view_transform.aggregation.out."),
    (r"^backbone\.depth_aggregation_net\.", "view_transform.aggregation."),
    (r"^head\.trunk\.", "bev_encoder.trunk."),
    (r"^head\.neck\.deblocks\.", "bev_encoder.neck.branches."),
    (r"^head\.shared_conv\.", "head.shared."),
    (r"^head\.task_heads\.", "head.tasks."),
)
# What follows the prefix: layers inside blocks, all that match.
_BLOCKS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"(depth_features\.2)\.global_avg_pool\.([12])\.", lambda m: f"{m[1]}.pooled.1.{int(m[2]) - 1}."),
    (r"(depth_features\.2)\.aspp(\d)\.", lambda m: f"{m[1]}.branches.{int(m[2]) - 1}."),
    (r"(depth_features\.2)\.conv1\.", r"\1.project.0."),
    (r"(depth_features\.2)\.bn1\.", r"\1.project.1."),
    (r"\.atrous_conv\.", ".0."),
    (r"(similarity_net\.\d|shared|tasks\.\d+\.\w+\.0)\.conv\.", r"\1.0."),
    (r"(similarity_net\.\d|shared|tasks\.\d+\.\w+\.0|branches\.\d)\.bn\.", r"\1.1."),
    (r"(tasks\.\d+)\.reg\.", r"\1.offset."),
    (r"(tasks\.\d+)\.dim\.", r"\1.size."),
    (r"(tasks\.\d+)\.rot\.", r"\1.rotation."),
    (r"(tasks\.\d+)\.vel\.", r"\1.velocity."),
)

# Buffers of the published model that follow from its configuration.
_DERIVED = frozenset(
    f"backbone.{name}"
    for name in ("voxel_size", "voxel_coord", "voxel_num", "frustum", "k_list", "depth_values")
)


def published_to_ours(key: str) -> str | None:
    """Our name of a published parameter, or None for a buffer that follows from the configuration.

    Args:
        key: as in the file, with or without the leading "model.".

    Raises:
        ValueError: if the key is not one of a published BEVStereo checkpoint.
    """
    key = key.removeprefix("model.")
    if key in _DERIVED:
        return None
    for pattern, replacement in _MODULES:
        name, count = re.subn(pattern, replacement, key)
        if count:
            break
    else:
        raise ValueError(f"not a parameter of a published BEVStereo checkpoint: {key}")
    for pattern, block in _BLOCKS:
        name = re.sub(pattern, block, name)
    return name
