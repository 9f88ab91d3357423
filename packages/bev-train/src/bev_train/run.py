"""Lightning's command line around this project's model, data and callbacks."""

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from bev_data.atomic import remove_leftovers
from bev_data.errors import InputError
from bev_models import load_weights
from bev_models.published import is_published
from bev_models.weights import read_file
from bev_train.callbacks.config import RunConfig
from bev_train.callbacks.depth import DepthMetrics
from bev_train.callbacks.ema import MovingAverage
from bev_train.callbacks.keep import LastCheckpoint
from bev_train.callbacks.pictures import PictureWriter
from bev_train.callbacks.predictions import PredictionWriter
from bev_train.callbacks.scores import NuScenesEvaluation
from bev_train.callbacks.seed import StepSeed
from bev_train.callbacks.speed import Speed
from bev_train.callbacks.stop import StopAndSave, StopOnSignal
from bev_train.callbacks.table import ScoreTable
from bev_train.data_module import DetectionDataModule
from bev_train.earlier import settle_folder
from bev_train.errors import wrong_value
from bev_train.folder import check_room, only_run
from bev_train.module import DetectionModule
from bev_train.saving import WholeCheckpoints, checkpoint_bytes
from bev_train.settings.agree import check_device, check_precision, check_statistics
from bev_train.settings.bases import layers
from bev_train.settings.find import COMMANDS, split_configs
from bev_train.settings.keys import ArgumentParser, check_keys

# What Lightning warns of though it is meant so.
_EXPECTED_WARNINGS = (
    # `--ckpt_path last` goes on in the folder of the run.
    r"Checkpoint directory .* exists and is not empty",
    # `model.freeze` leaves parts in evaluation.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # Only `fit` keeps checkpoints.
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need to be provided",
    # Lightning 2.6 with jsonargparse 4.49 and later.
    r"\s*By default only one JsonargparseDeprecationWarning per type is shown",
    r"\s*``instantiate_classes`` was deprecated",
    r"\s*skip_none parameter was deprecated",
    # Lightning 2.6 with torch 2.14.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


class BevCLI(LightningCLI):
    """Lightning's command line with this project's model, data and callbacks.

    Everything that a run writes goes into one folder, `output`.
    """

    def __init__(self, command: str, configs: Sequence[Path], options: Sequence[str]) -> None:
        """Parse, build and run.

        Args:
            command: one of `COMMANDS`.
            configs: YAML files, later ones over earlier ones.
            options: `--key value`, over all files.

        Raises:
            InputError: if keys or values are wrong.
        """
        self.command = command
        self.config_files = configs
        self.options = options
        self.layers = layers(configs, options)
        # As text, so that no file is read twice.
        files = [f"--config={layer.text}" for layer in self.layers]
        super().__init__(
            DetectionModule,
            DetectionDataModule,
            parser_class=ArgumentParser,
            parser_kwargs={command: {"description": COMMANDS[command].capitalize() + "."}},
            seed_everything_default=0,
            save_config_callback=RunConfig,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            # Bases are among the files; what is printed or saved stands without them.
            args=[command, *files, "--base=null", *options],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command that runs, and the trainer's arguments to it that are none of the user's.

        The parser of each command takes a second to build, so there is only this one.
        """
        skipped = {
            "fit": {"train_dataloaders", "val_dataloaders"},
            "validate": {"dataloaders", "verbose"},
            "test": {"dataloaders", "verbose"},
            "predict": {"dataloaders", "return_predictions"},
        }
        return {self.command: {"model", "datamodule", "weights_only", *skipped[self.command]}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the output folder, the moving average and the settings of the callbacks."""
        parser.add_argument(
            "--output",
            type=str | None,
            default=None,
            help="Folder for logs, checkpoints and pictures (outputs/<name of the first config> if null).",
        )
        parser.add_argument(
            "--base",
            type=str | None,
            default=None,
            help="Config that this one changes: a shipped name, or a path from here or from this file.",
        )
        parser.add_argument(
            "--published",
            type=bool,
            default=False,
            help="Do as the published weights were trained and scored, right or not (docs/fidelity.md).",
        )
        parser.add_argument(
            "--ema",
            type=float | None,
            default=None,
            help="Decay of a moving average of the weights, which is validated and saved (published: 0.999).",
        )
        parser.add_argument(
            "--ema_warmup",
            type=int,
            default=2000,
            help="Steps over which that decay rises from 0; 0 for the full decay from the first step.",
        )
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="Let `fit` replace the run that `output` holds.",
        )
        parser.add_lightning_class_args(NuScenesEvaluation, "evaluation")
        parser.add_lightning_class_args(DepthMetrics, "depth_metrics")
        parser.add_lightning_class_args(PictureWriter, "pictures")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        # The detector's configuration is the one place where frames and classes are stated.
        parser.link_arguments("model.detector.frames", "data.history.frames", compute_fn=_frames_before)
        parser.link_arguments("model.detector.head.tasks", "data.classes", compute_fn=_flatten_tasks)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Refuse unknown keys by their full name, then parse."""
        check_keys(self._parser(args[0]), self.layers, self.options)
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Take no settings out of checkpoints: ours hold none, and those of published ones are not ours."""

    def before_instantiate_classes(self) -> None:
        """Settle what depends on the command.

        Raises:
            InputError: if CUDA is asked for and absent, or the checkpoint is.
        """
        config = self.config[self.subcommand]
        if config.output is None:
            stem = self.config_files[0].stem if self.config_files else "default"
            config.output = str(Path("outputs") / stem)
        check_device(config.trainer)
        check_precision(config.trainer)
        if self.subcommand == "fit":
            config.ckpt_path = settle_folder(
                Path(config.output), config.ckpt_path, config.overwrite, first=_rank() == 0
            )
        else:
            self.save_config_callback = None
        # Published checkpoints and bare weights, which Lightning does not know how to load, are loaded here.
        self.weights: str | None = None
        weights = {name: config.model[name] for name in ("imagenet_weights", "weights")}
        self.save_config_kwargs["began_with"] = weights
        config.ckpt_path = self._find_checkpoint(config.ckpt_path)
        if config.ckpt_path is config.model.weights is None and self.subcommand in ("test", "predict"):
            raise InputError(
                f"--ckpt_path must say which weights {self.subcommand} takes, got none: best, last or a path"
            )
        if config.ckpt_path:
            # The checkpoint brings its weights; the files it began with need not be here any more.
            config.model.imagenet_weights = config.model.weights = None
            content = _read_checkpoint(config.ckpt_path)
            published = is_published(content["state_dict"])
            if published or "pytorch-lightning_version" not in content:
                self.weights, config.ckpt_path = config.ckpt_path, None
            if self.weights and self.subcommand == "fit":
                raise InputError(
                    f"training goes on from a checkpoint of `bev-train fit` alone, got {self.weights}: "
                    "it starts from such weights with --model.weights"
                )
            if published and not config.published:
                rank_zero_info(
                    f"note: the weights in {self.weights} have published names, and `published` is false: "
                    "published weights reach their scores with --published true alone (docs/fidelity.md)"
                )

    def instantiate_classes(self) -> None:
        """Build module, data module and trainer.

        Raises:
            InputError: if a value is out of its range.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            wrong = wrong_value(error)
            if wrong is None:
                raise
            raise wrong from error
        if self.weights:
            try:
                load_weights(self.model.detector, self.weights)
            except ValueError as error:
                raise InputError(f"ckpt_path: {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with loggers and callbacks around `output`."""
        output = Path(self._get(self.config, "output"))
        settings = self._get(self.config_init, "trainer")
        kwargs.setdefault("default_root_dir", str(output))
        if settings.get("logger") in (None, True) and not settings.get("fast_dev_run"):
            kwargs["logger"] = self._loggers(output)
        if self.subcommand != "fit":
            kwargs["enable_checkpointing"] = False
        kwargs["plugins"] = [*_listed(settings.get("plugins")), WholeCheckpoints()]
        kwargs["callbacks"] = [*(settings.get("callbacks") or []), *self._callbacks(output, settings)]
        trainer: Trainer = super().instantiate_trainer(**kwargs)
        return trainer

    def fit(self, **kwargs: Any) -> None:
        """Train.

        Raises:
            InputError: if a step's statistics would come from one augmented sample, or the output folder does
                not take the checkpoints of the run.
        """
        together = self.trainer.world_size if self._get(self.config, "trainer.sync_batchnorm") else 1
        check_statistics(self.datamodule.loader.batch_size, self.datamodule.bev_aug, together)
        self._check_room()
        self.trainer.fit(**kwargs, weights_only=True)

    def predict(self, **kwargs: Any) -> None:
        """Predict; callbacks keep what is needed, so nothing piles up in memory."""
        self.trainer.predict(**kwargs, return_predictions=False, weights_only=True)

    def validate(self, **kwargs: Any) -> None:
        """Validate; the score table replaces Lightning's list of all metrics."""
        self.trainer.validate(**kwargs, verbose=False, weights_only=True)

    def test(self, **kwargs: Any) -> None:
        """Test; the score table replaces Lightning's list of all metrics."""
        self.trainer.test(**kwargs, verbose=False, weights_only=True)

    def _loggers(self, output: Path) -> list[Logger] | bool:
        scores = CSVLogger(str(output), name="csv")
        if self.subcommand == "fit":
            return [TensorBoardLogger(str(output), name="", version=""), scores]
        return [scores] if self.subcommand in ("validate", "test") else False

    def _callbacks(self, output: Path, settings: Any) -> list[Callback]:
        callbacks: list[Callback] = [ScoreTable()]
        if self.subcommand != "fit":
            return [*callbacks, StopOnSignal()]
        callbacks += [StepSeed(), Speed()]
        ema = self._get(self.config, "ema")
        if ema is not None:
            callbacks.append(MovingAverage(ema, self._get(self.config, "ema_warmup")))
        if settings.get("logger") is not False and not settings.get("fast_dev_run"):
            callbacks.append(LearningRateMonitor("step"))
        keeps = settings.get("enable_checkpointing") is not False
        folder = output.resolve() / "checkpoints"
        if keeps:
            # Without validation there is no best.
            if settings.get("limit_val_batches") != 0:
                callbacks.append(
                    ModelCheckpoint(
                        folder, "best", monitor="val/mAP", mode="max", enable_version_counter=False
                    )
                )
            callbacks.append(LastCheckpoint(folder))
        keeps = keeps and not settings.get("fast_dev_run")
        # After those, so that an epoch that ends is saved as ever.
        callbacks.append(StopAndSave(folder / "last.ckpt") if keeps else StopOnSignal())
        return callbacks

    def _run_subcommand(self, subcommand: str) -> None:
        """Run in a folder of its own; other processes of the same run share it.

        Raises:
            InputError: if another run writes there.
        """
        output = Path(self._get(self.config, "output"))
        if _rank() != 0:
            super()._run_subcommand(subcommand)
            return
        with only_run(output):
            remove_leftovers(output)
            remove_leftovers(output / "checkpoints")
            super()._run_subcommand(subcommand)

    def _check_room(self) -> None:
        """Hold what the run will write against its folder, in the first process.

        Raises:
            InputError: if it does not fit, or nothing can be written there.
        """
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        kept = [callback.filename for callback in callbacks if isinstance(callback, ModelCheckpoint)]
        if kept and _rank() == 0 and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            average = any(isinstance(callback, MovingAverage) for callback in callbacks)
            folder = Path(self._get(self.config, "output")) / "checkpoints"
            check_room(folder, checkpoint_bytes(self.model, average), [f"{name}.ckpt" for name in kept])

    def _find_checkpoint(self, name: str | None) -> str | None:
        """Path of a checkpoint; `best` and `last` are those of the output folder."""
        if name is None:
            return None
        folder = Path(self._get(self.config, "output")) / "checkpoints"
        path = folder / f"{name}.ckpt" if name in ("best", "last") else Path(name)
        if not path.is_file():
            raise InputError(f"no such checkpoint: {path}")
        return str(path)


def _listed(value: Any) -> list[Any]:
    """Lightning takes one plugin as well as several."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _rank() -> int:
    """Of this process among all of the run, known before the others are started."""
    return int(rank_zero_only.rank)  # type: ignore[attr-defined]


def _frames_before(frames: int) -> int:
    return frames - 1


def _flatten_tasks(tasks: Sequence[Sequence[str]]) -> list[str]:
    return [name for task in tasks for name in task]


def _read_checkpoint(path: str) -> Mapping[str, Any]:
    """What a file of weights holds.

    Raises:
        InputError: if it holds no weights.
    """
    began = time.perf_counter()
    try:
        content = read_file(path)
    except ValueError as error:
        raise InputError(f"ckpt_path: {error}") from error
    rank_zero_info(f"read {path} and compared its checksums in {time.perf_counter() - began:.2f} s")
    return content


def run(arguments: Sequence[str]) -> BevCLI:
    """Run one of `COMMANDS`, as `run(["fit", "quickstart", "--trainer.max_epochs", "2"])`.

    Returns:
        The command line object, with `trainer`, `model` and `datamodule`.

    Raises:
        InputError: if the input is wrong.
    """
    command, *rest = arguments
    configs, options = split_configs(rest)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisements)
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        return BevCLI(command, configs, options)


def _no_advertisements(record: logging.LogRecord) -> bool:
    """Drop Lightning's tips to install its cloud services."""
    return "litlogger" not in record.getMessage() and "litmodels" not in record.getMessage()
