"""The settings of a run, in the folder of the run."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback


class RunConfig(SaveConfigCallback):
    """Writes `config.yaml`, from which the run can be repeated whole, also after it was gone on with."""

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Any,
        began_with: Mapping[str, Any],
        **options: Any,
    ) -> None:
        """Say what to write.

        Args:
            parser: of the command.
            config: settings of the run.
            began_with: settings of the model's weights; a run that goes on loads none of these.
            options: of Lightning's callback.
        """
        asked = config.clone()
        for name, value in began_with.items():
            asked.model[name] = value
        asked.ckpt_path, asked.overwrite = None, False
        super().__init__(parser, asked, **options)
