"""The detector as a Lightning module: losses, optimiser, and what a validation step yields."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from lightning import LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from typing_extensions import Self

from bev_data.errors import InputError
from bev_data.samples.batch import Batch
from bev_models import (
    Cameras,
    DetectionLoss,
    Detections,
    DetectorConfig,
    LossConfig,
    Predictions,
    build_detector,
    load_imagenet_weights,
)
from bev_train.nonfinite import check_gradients, check_losses, check_predictions
from bev_train.optimization import OptimizerConfig, ScheduleConfig, build_optimizer, lr_factor
from bev_train.same_detector import check_same_detector, check_shapes
from bev_train.start import freeze as freeze_parts
from bev_train.start import start_from


class DetectionOutput(NamedTuple):
    """What a step outside training yields, for callbacks.

    Attributes:
        detections: per sample, in keyego.
        expected_depth: of the key frame, metres.
        mono_depth: the same before stereo; None where there is no stereo.
    """

    detections: list[Detections]
    expected_depth: Float[Tensor, "b n h w"]
    mono_depth: Float[Tensor, "b n h w"] | None = None


class DetectionModule(LightningModule):
    """Trains a detector and applies it.

    Logs `train/<loss>` per step and `val/<loss>` per epoch; scores come from callbacks, which read the
    `DetectionOutput` of every batch.
    """

    def __init__(
        self,
        detector: DetectorConfig = DetectorConfig(),  # noqa: B008 (frozen; jsonargparse reads the default)
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008
        schedule: ScheduleConfig = ScheduleConfig(),  # noqa: B008
        loss: LossConfig = LossConfig(),  # noqa: B008
        imagenet_weights: str | None = None,
        weights: str | None = None,
        weights_partial: bool = False,
        freeze: Sequence[str] = (),
    ) -> None:
        """Build the detector.

        Args:
            detector: the detector; every part of it is a key.
            optimizer: AdamW and its learning rate.
            schedule: how the learning rate changes.
            loss: weights of the losses.
            imagenet_weights: of the image backbone: "imagenet" for torchvision's (from torch's cache, or
                downloaded), the path of such a file, or null for none. Only fresh runs load them.
            weights: file of weights to start from: published or ours, a checkpoint or safetensors; a run that
                goes on takes those of its checkpoint.
            weights_partial: take what fits the detector by name and shape, and list what was left out.
            freeze: names of the detector's parts that do not train, such as image_backbone.

        Raises:
            ValueError: if parts of the configuration do not fit each other.
            InputError: if weights are not there or do not fit, or a part to freeze is not there.
        """
        super().__init__()
        self.frozen: list[nn.Module] = []
        # Convolutions and plane sweeps are fastest with channels side by side, on CPU and GPU alike.
        self.detector = build_detector(detector).to(memory_format=torch.channels_last)
        self.loss = DetectionLoss(detector, loss)
        if imagenet_weights is not None:
            try:
                load_imagenet_weights(self.detector.image_backbone, imagenet_weights)
            except (ValueError, FileNotFoundError, RuntimeError) as error:
                raise InputError(f"model.imagenet_weights: {error}") from error
        if weights is not None:
            start_from(self.detector, weights, weights_partial)
        self.frozen_names = sorted(freeze)
        self.frozen = freeze_parts(self.detector, freeze)
        self.train()
        self.optimizer_config = optimizer
        self.schedule_config = schedule

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; the statistics of frozen parts stay as they are."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def forward(self, batch: Batch) -> Predictions:
        """Detect in a batch of bytes."""
        cameras = Cameras(
            batch.sensor2keyego, batch.key2sensor, batch.intrinsics, batch.image_aug, batch.bev_aug
        )
        predictions: Predictions = self.detector(self.detector.normalize(batch.images), cameras)
        return predictions

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum of the losses.

        Raises:
            NonFiniteError: if a prediction or loss is not finite.
        """
        losses = self._losses(batch, self(batch))
        self._log_losses("train", losses, batch, on_step=True)
        return torch.stack(list(losses.values())).sum()

    # Lightning hands any output on to callbacks, whatever its annotation says.
    def validation_step(self, batch: Batch, batch_idx: int) -> DetectionOutput:  # type: ignore[override]
        """Detect; log the losses."""
        return self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> DetectionOutput:  # type: ignore[override]
        """Detect; log the losses."""
        return self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> DetectionOutput:
        """Detect."""
        return self._output(self(batch))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop where a gradient is not finite; a loss scaler deals with its own overflows.

        Raises:
            NonFiniteError: if a gradient is not finite.
        """
        if self.trainer.scaler is None:
            check_gradients(self.detector)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a factor per step.

        Raises:
            InputError: if the schedule needs the length of the run and the trainer has none.
        """
        trainer = self.trainer
        # Where steps are counted, Lightning makes the loader, and knows an epoch's length, only later.
        trainer.fit_loop.setup_data()
        total_steps = trainer.estimated_stepping_batches
        if total_steps == float("inf"):
            if self.schedule_config.needs_length:
                raise InputError(
                    "a cosine schedule or warm-up needs the length of the run: set trainer.max_epochs or "
                    "trainer.max_steps, or model.schedule.kind to constant and model.schedule.warmup to 0"
                )
            total_steps = 0
        accumulated = trainer.accumulate_grad_batches
        total_batch = trainer.datamodule.loader.batch_size * trainer.world_size * accumulated  # type: ignore[attr-defined]
        optimizer = build_optimizer(
            self.detector.parameters(),
            self.optimizer_config,
            total_batch,
            # Under mixed precision Lightning clips no gradients of a fused optimiser.
            fused=self.device.type in ("cpu", "cuda")
            and not isinstance(trainer.precision_plugin, MixedPrecision),
        )
        steps_per_epoch = max(1, -(-int(trainer.num_training_batches) // accumulated))
        factor = lr_factor(self.schedule_config, int(total_steps), steps_per_epoch)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the detector's configuration beside its weights."""
        checkpoint["detector"] = dataclasses.asdict(self.detector.config)
        checkpoint["freeze"] = self.frozen_names

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another detector.

        Raises:
            InputError: naming the settings that differ, or if its moving average would be trained on.
        """
        for note in check_same_detector(self.detector.config, checkpoint.get("detector", {})):
            rank_zero_info(f"note: {note}")
        check_shapes(self, checkpoint["state_dict"])
        if self.trainer.state.fn != "fit":
            return
        if checkpoint.get("freeze", []) != self.frozen_names:
            raise InputError(
                f"training must go on with the same parts frozen: model.freeze is {self.frozen_names} here "
                f"and {checkpoint.get('freeze', [])} there"
            )
        averaged = any(isinstance(callback, WeightAveraging) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        if "current_model_state" in checkpoint and not averaged:
            raise InputError(
                "the checkpoint holds a moving average of the weights, which training cannot go on from: "
                "set ema to its decay"
            )

    def _losses(self, batch: Batch, predictions: Predictions) -> dict[str, Tensor]:
        check_predictions(predictions, self.detector, batch, lambda: self(batch))
        losses: dict[str, Tensor] = self.loss(predictions, batch.boxes, batch.labels, batch.lidar_depth)
        check_losses(losses, batch)
        return losses

    def _evaluate(self, batch: Batch, stage: str) -> DetectionOutput:
        predictions = self(batch)
        self._log_losses(stage, self._losses(batch, predictions), batch, on_step=False)
        return self._output(predictions)

    def _output(self, predictions: Predictions) -> DetectionOutput:
        mono = predictions.mono_depth_probs
        return DetectionOutput(
            self.detector.decode(predictions),
            self.detector.expected_depth(predictions.depth_probs),
            None if mono is None else self.detector.expected_depth(mono),
        )

    def _log_losses(self, stage: str, losses: Mapping[str, Tensor], batch: Batch, on_step: bool) -> None:
        total = torch.stack(list(losses.values())).sum()
        for name, loss in {**losses, "loss": total}.items():
            self.log(
                f"{stage}/{name}",
                loss.detach(),
                on_step=on_step,
                on_epoch=not on_step,
                prog_bar=on_step and name == "loss",
                batch_size=len(batch.meta),
                sync_dist=not on_step,
            )
