"""Errors of the predicted depth at the end of a validation or test."""

from collections.abc import Iterable
from typing import Any, cast

import torch
from lightning import Trainer
from torch import Tensor

from bev_data.samples.batch import Batch
from bev_data.scores.depth import RANGES, depth_error_table, depth_scores, lidar_points, table_rows
from bev_train.callbacks.stage import StageCallback
from bev_train.data_module import Stage
from bev_train.distributed import gather, merge
from bev_train.module import DetectionModule, DetectionOutput


class DepthMetrics(StageCallback):
    """Errors of the predicted depth at lidar points within the depth bins.

    Logs `val/depth_abs_rel`, `val/depth_rmse` (metres), `val/depth_delta1` and so on; the same of the points
    in labelled boxes as `val/depth_objects_abs_rel`, by range of distance as `val/depth_10_20m_abs_rel`, and,
    where there is stereo, all of this for depth from one image alone as `val/depth_mono_abs_rel`.
    """

    def __init__(self, ranges: tuple[float, ...] = RANGES) -> None:
        """Say how to part distance.

        Args:
            ranges: rising borders of distance in which errors are also told apart, metres.
        """
        self.rows = table_rows(ranges)
        self.ranges = ranges
        self.sums: dict[str, dict[str, Tensor]] = {}

    def begin(self, trainer: Trainer, module: DetectionModule, stage: Stage) -> None:
        """Forget all points."""
        self.sums = {}

    def add(
        self, trainer: Trainer, module: DetectionModule, stage: Stage, batch: Batch, output: DetectionOutput
    ) -> None:
        """Add up the errors of each sample."""
        if batch.lidar_depth is None:
            return
        bins = module.detector.config.depth_net.bins
        depths = {"depth": output.expected_depth, "depth_mono": output.mono_depth}
        for i, meta in enumerate(batch.meta):
            one = Batch._make(field[i : i + 1] for field in cast(Iterable[Any], batch))
            self.sums[meta.token] = {}
            for kind, depth in depths.items():
                if depth is not None:
                    # What the detector cannot express does not count.
                    points = lidar_points(one, depth[i : i + 1].float(), (bins.start, bins.stop))
                    # On the host, because not every device has float64.
                    predicted, lidar, on_object = (value.cpu() for value in points)
                    table = depth_error_table(predicted, lidar, on_object, self.ranges)
                    self.sums[meta.token][kind] = table

    def finish(self, trainer: Trainer, module: DetectionModule, stage: Stage) -> None:
        """Log the means over all samples; where no point was seen, nothing."""
        samples = list(merge(gather(trainer, self.sums)).values())
        for kind in samples[0] if samples else ():
            table = torch.stack([sums[kind] for sums in samples]).sum(0)
            for name, row in zip(self.rows, table, strict=True):
                prefix = f"{stage}/{kind}" if name == "all" else f"{stage}/{kind}_{name}"
                scores = {f"{prefix}_{key}": value for key, value in depth_scores(row).items()}
                module.log_dict(scores, sync_dist=True)
