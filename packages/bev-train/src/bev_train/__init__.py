"""Training and evaluation of the detectors of bev-models, on Lightning: `bev-train --help`.

The names below are imported when they are asked for, so that the command line answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bev_data.errors import InputError
    from bev_train.callbacks.ema import MovingAverage
    from bev_train.callbacks.stage import StageCallback
    from bev_train.data_module import DetectionDataModule, Loader, Sampling, Splits, Subset
    from bev_train.errors import NonFiniteError
    from bev_train.module import DetectionModule, DetectionOutput
    from bev_train.optimization import OptimizerConfig, ScheduleConfig
    from bev_train.predictor import Calibration, Moment, Predictor, Scene

_HOMES = {
    "Calibration": "bev_train.predictor",
    "DetectionDataModule": "bev_train.data_module",
    "DetectionModule": "bev_train.module",
    "DetectionOutput": "bev_train.module",
    "InputError": "bev_data.errors",
    "Loader": "bev_train.data_module",
    "Moment": "bev_train.predictor",
    "MovingAverage": "bev_train.callbacks.ema",
    "NonFiniteError": "bev_train.errors",
    "OptimizerConfig": "bev_train.optimization",
    "Predictor": "bev_train.predictor",
    "Sampling": "bev_train.data_module",
    "Scene": "bev_train.predictor",
    "ScheduleConfig": "bev_train.optimization",
    "Splits": "bev_train.data_module",
    "StageCallback": "bev_train.callbacks.stage",
    "Subset": "bev_train.data_module",
}

__all__ = [
    "Calibration",
    "DetectionDataModule",
    "DetectionModule",
    "DetectionOutput",
    "InputError",
    "Loader",
    "Moment",
    "MovingAverage",
    "NonFiniteError",
    "OptimizerConfig",
    "Predictor",
    "Sampling",
    "Scene",
    "ScheduleConfig",
    "Splits",
    "StageCallback",
    "Subset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
