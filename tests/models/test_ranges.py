"""Numbers out of their range are refused where a configuration is built, from YAML, options or Python."""

import math

import pytest

from bev_models.config import (
    BEVEncoderConfig,
    DepthNetConfig,
    DetectorConfig,
    HeadConfig,
    ImageEncoderConfig,
    LossConfig,
    StereoConfig,
)
from bev_models.grid import BEVGrid, DepthBins


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (
            LossConfig,
            {"box_weight": -1.0},
            r"loss box_weight must be at least 0 and at most 1e\+06, got -1.0",
        ),
        (LossConfig, {"depth_weight": math.nan}, "loss depth_weight must be .*, got nan"),
        (LossConfig, {"stereo_weight": math.inf}, "loss stereo_weight must be .*, got inf"),
        (StereoConfig, {"min_sigma": -1.0}, r"stereo min_sigma must be above 0, got -1\.0"),
        (StereoConfig, {"groups": 0}, "stereo groups must be at least 1, got 0"),
        (StereoConfig, {"sampling_range": 0.0}, "stereo sampling_range must be above 0"),
        (StereoConfig, {"mask_channels": 0}, "stereo mask_channels must be at least 1, got 0"),
        (HeadConfig, {"channels": 0}, "head channels must be at least 1, got 0"),
        (HeadConfig, {"max_boxes": 0}, "head max_boxes must be at least 1, got 0"),
        (HeadConfig, {"score_threshold": 2.0}, "head score_threshold must be at least 0 and at most 1"),
        (HeadConfig, {"center_range": (61.2, -1.0, 10.0)}, "head center_range must be above 0"),
        (DepthNetConfig, {"mid_channels": 0}, "depth_net mid_channels must be at least 1, got 0"),
        (ImageEncoderConfig, {"width": -64}, "image width must be at least 1, got -64"),
        (BEVEncoderConfig, {"channels": 0}, "bev channels must be at least 1, got 0"),
        (DepthBins, {"start": 2.0, "stop": 2.00001}, "depth bins must span a whole number of steps"),
        (BEVGrid, {"x": (0.0, 1e-6, 0.8)}, "BEV grid axis x must span a whole number of steps"),
    ],
)
def test_a_number_out_of_its_range(config: type, values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**values)


def test_the_published_numbers_are_within_theirs() -> None:
    assert DetectorConfig().head.max_boxes == 83
    assert LossConfig(box_weight=0, depth_weight=0) == LossConfig(0.0, 0.0)
