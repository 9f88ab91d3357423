"""BEVStereo as plain torch modules: images and camera matrices in, boxes in bird's-eye view out."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bev_models.backbones import ResNet as ResNet
    from bev_models.backbones import load_imagenet_weights as load_imagenet_weights
    from bev_models.box_coder import BoxCoder as BoxCoder
    from bev_models.box_coder import Detections as Detections
    from bev_models.box_coder import size_aware_circle_nms as size_aware_circle_nms
    from bev_models.cameras import Cameras as Cameras
    from bev_models.cameras import camera_vector as camera_vector
    from bev_models.center_head import CenterHead as CenterHead
    from bev_models.center_head import TaskMaps as TaskMaps
    from bev_models.config import PUBLISHED_QUIRKS as PUBLISHED_QUIRKS
    from bev_models.config import BEVEncoderConfig as BEVEncoderConfig
    from bev_models.config import DepthNetConfig as DepthNetConfig
    from bev_models.config import DetectorConfig as DetectorConfig
    from bev_models.config import HeadConfig as HeadConfig
    from bev_models.config import ImageEncoderConfig as ImageEncoderConfig
    from bev_models.config import LossConfig as LossConfig
    from bev_models.config import Quirks as Quirks
    from bev_models.config import StereoConfig as StereoConfig
    from bev_models.config import VolumeConfig as VolumeConfig
    from bev_models.config import config_from_dict as config_from_dict
    from bev_models.depth_net import DepthNet as DepthNet
    from bev_models.depth_net import DepthNetOutput as DepthNetOutput
    from bev_models.detector import Detector as Detector
    from bev_models.detector import Frame as Frame
    from bev_models.detector import Predictions as Predictions
    from bev_models.detector import build_detector as build_detector
    from bev_models.export import TensorDetector as TensorDetector
    from bev_models.export import export_detector as export_detector
    from bev_models.export import predictions_of as predictions_of
    from bev_models.grid import BEVGrid as BEVGrid
    from bev_models.grid import DepthBins as DepthBins
    from bev_models.losses import DetectionLoss as DetectionLoss
    from bev_models.necks import MultiScaleNeck as MultiScaleNeck
    from bev_models.published import PUBLISHED as PUBLISHED
    from bev_models.published import build_published as build_published
    from bev_models.stereo import DynamicStereo as DynamicStereo
    from bev_models.stereo import StereoDepth as StereoDepth
    from bev_models.stereo import StereoSource as StereoSource
    from bev_models.view_transform import LiftSplat as LiftSplat
    from bev_models.volume import VolumeDepth as VolumeDepth
    from bev_models.volume import VolumeStereo as VolumeStereo
    from bev_models.weights import load_detector as load_detector
    from bev_models.weights import load_weights as load_weights

__version__ = "0.1.0"

# The public names by the module they live in, which is imported when one of them is asked for.
_NAMES = {
    "backbones": ("ResNet", "load_imagenet_weights"),
    "box_coder": ("BoxCoder", "Detections", "size_aware_circle_nms"),
    "cameras": ("Cameras", "camera_vector"),
    "center_head": ("CenterHead", "TaskMaps"),
    "config": (
        "BEVEncoderConfig",
        "DepthNetConfig",
        "DetectorConfig",
        "HeadConfig",
        "ImageEncoderConfig",
        "LossConfig",
        "PUBLISHED_QUIRKS",
        "Quirks",
        "StereoConfig",
        "VolumeConfig",
        "config_from_dict",
    ),
    "depth_net": ("DepthNet", "DepthNetOutput"),
    "detector": ("Detector", "Frame", "Predictions", "build_detector"),
    "export": ("TensorDetector", "export_detector", "predictions_of"),
    "grid": ("BEVGrid", "DepthBins"),
    "losses": ("DetectionLoss",),
    "necks": ("MultiScaleNeck",),
    "published": ("PUBLISHED", "build_published"),
    "stereo": ("DynamicStereo", "StereoDepth", "StereoSource"),
    "view_transform": ("LiftSplat",),
    "volume": ("VolumeDepth", "VolumeStereo"),
    "weights": ("load_detector", "load_weights"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
