"""BEVStereo as plain torch modules: images and camera matrices in, boxes in bird's-eye view out."""

from bev_models.backbones import ResNet, load_imagenet_weights
from bev_models.box_coder import BoxCoder, Detections, size_aware_circle_nms
from bev_models.cameras import Cameras, camera_vector, lift_projection, sweep_projection
from bev_models.center_head import CenterHead, TaskMaps
from bev_models.config import (
    PUBLISHED_QUIRKS,
    BEVEncoderConfig,
    DepthNetConfig,
    DetectorConfig,
    HeadConfig,
    ImageEncoderConfig,
    Quirks,
    StereoConfig,
)
from bev_models.depth_net import DepthNet, DepthNetOutput
from bev_models.detector import Detector, Predictions, build_detector
from bev_models.export import TensorDetector, export_detector, predictions_of
from bev_models.grid import BEVGrid, DepthBins
from bev_models.losses import DetectionLoss
from bev_models.necks import MultiScaleNeck
from bev_models.published import PUBLISHED, build_published, load_weights
from bev_models.stereo import DynamicStereo, StereoDepth, StereoSource
from bev_models.view_transform import LiftSplat

__all__ = [
    "BEVEncoderConfig",
    "BEVGrid",
    "BoxCoder",
    "Cameras",
    "CenterHead",
    "DepthBins",
    "DepthNet",
    "DepthNetConfig",
    "DepthNetOutput",
    "DetectionLoss",
    "Detections",
    "Detector",
    "DetectorConfig",
    "DynamicStereo",
    "HeadConfig",
    "ImageEncoderConfig",
    "LiftSplat",
    "MultiScaleNeck",
    "PUBLISHED",
    "PUBLISHED_QUIRKS",
    "Predictions",
    "Quirks",
    "ResNet",
    "StereoConfig",
    "StereoDepth",
    "StereoSource",
    "TaskMaps",
    "TensorDetector",
    "build_detector",
    "build_published",
    "camera_vector",
    "export_detector",
    "lift_projection",
    "load_imagenet_weights",
    "load_weights",
    "predictions_of",
    "size_aware_circle_nms",
    "sweep_projection",
]
__version__ = "0.1.0"
