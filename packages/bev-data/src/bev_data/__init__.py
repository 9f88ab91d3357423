"""nuScenes-format data for camera-only 3D detection: infos, samples, results, pictures, a rendered world.

The names below are the package's public ones; a module is imported when a name of it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bev_data.checks.prepare import prepare
    from bev_data.checks.run import check_version
    from bev_data.errors import InputError, MissingFileError, WriteError
    from bev_data.infos.info import Annotations, CameraFrame, Info, LidarFrame
    from bev_data.infos.infos import Infos, build_infos, open_infos
    from bev_data.nuscenes.taxonomy import CLASSES
    from bev_data.pictures.page import draw_sample
    from bev_data.rig import check_rig, complete_key_frames, save_rig
    from bev_data.samples.augment import BevAugmentation, ImageAugmentation
    from bev_data.samples.balanced import ClassBalanced
    from bev_data.samples.batch import Batch, Sample, collate
    from bev_data.samples.dataset import PUBLISHED_DATA_QUIRKS, DataQuirks, KeyFrameDataset, SampleOptions
    from bev_data.samples.history import History
    from bev_data.samples.sequences import SequenceSampler
    from bev_data.scores.official import DetectionMetrics, evaluate_detections
    from bev_data.scores.results import read_results, to_nuscenes_results, write_results
    from bev_data.world.world import write_world

__version__ = "0.1.0"
__all__ = [
    "Annotations",
    "Batch",
    "BevAugmentation",
    "CLASSES",
    "CameraFrame",
    "ClassBalanced",
    "DataQuirks",
    "DetectionMetrics",
    "History",
    "ImageAugmentation",
    "Info",
    "Infos",
    "InputError",
    "KeyFrameDataset",
    "LidarFrame",
    "MissingFileError",
    "PUBLISHED_DATA_QUIRKS",
    "Sample",
    "SampleOptions",
    "SequenceSampler",
    "WriteError",
    "build_infos",
    "check_rig",
    "check_version",
    "collate",
    "complete_key_frames",
    "draw_sample",
    "evaluate_detections",
    "open_infos",
    "prepare",
    "read_results",
    "save_rig",
    "to_nuscenes_results",
    "write_results",
    "write_world",
]

_NAMES_OF_MODULE = {
    "checks.prepare": ("prepare",),
    "checks.run": ("check_version",),
    "errors": ("InputError", "MissingFileError", "WriteError"),
    "infos.info": ("Annotations", "CameraFrame", "Info", "LidarFrame"),
    "infos.infos": ("Infos", "build_infos", "open_infos"),
    "nuscenes.taxonomy": ("CLASSES",),
    "pictures.page": ("draw_sample",),
    "rig": ("check_rig", "complete_key_frames", "save_rig"),
    "samples.augment": ("BevAugmentation", "ImageAugmentation"),
    "samples.balanced": ("ClassBalanced",),
    "samples.batch": ("Batch", "Sample", "collate"),
    "samples.dataset": ("PUBLISHED_DATA_QUIRKS", "DataQuirks", "KeyFrameDataset", "SampleOptions"),
    "samples.history": ("History",),
    "samples.sequences": ("SequenceSampler",),
    "scores.official": ("DetectionMetrics", "evaluate_detections"),
    "scores.results": ("read_results", "to_nuscenes_results", "write_results"),
    "world.world": ("write_world",),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
