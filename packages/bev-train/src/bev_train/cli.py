"""The command line: `bev-train fit config.yaml [overlay.yaml] [--key value]`.

Imports of torch and Lightning wait until a run needs them, so that help comes at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from bev_data.errors import InputError
from bev_train.errors import NonFiniteError, explain
from bev_train.settings.find import COMMANDS, describe_config, shipped_configs, split_configs
from bev_train.stopping import Stopped, listening


def list_configs() -> None:
    """Print the shipped configs with one line each."""
    shipped = shipped_configs()
    width = max(map(len, shipped))
    for name, path in shipped.items():
        print(f"{name:<{width}}  {describe_config(path)}")


def _help() -> str:
    commands = "\n".join(f"  {name:<11} {text}" for name, text in COMMANDS.items())
    return f"""Train and evaluate camera-only 3D detectors on nuScenes-format data.

usage: bev-train COMMAND [CONFIG ...] [--key value ...]

commands:
{commands}
  configs     list the configs that come with the package
  convert     write weights under published names or ours, as .pth or .safetensors
  quickstart  render a small world, train on it and evaluate, in minutes

A CONFIG is a YAML file or the name of a shipped one; later ones overlay earlier ones, options overlay all.
Every key of a YAML file is an option with dots between its levels: `model: {{optimizer: {{lr: 1e-3}}}}` is
--model.optimizer.lr 1e-3. `bev-train fit --help` lists all keys, `bev-train fit CONFIG --print_config` shows
their values. A run writes logs, checkpoints and pictures into --output (outputs/<config> by default);
`tensorboard --logdir outputs` shows the curves.

examples:
  bev-train fit quickstart --data.root data/world
  bev-train fit bev_stereo_lss_r50_256x704_128x128_24e_2key --data.root /data/nuscenes --trainer.devices 8
  bev-train fit my.yaml --ckpt_path last                  go on where a run was stopped
  bev-train validate my.yaml --ckpt_path best             scores of its best checkpoint
  bev-train predict my.yaml --ckpt_path best              results file and pictures
  bev-train validate bev_stereo_lss_r50_256x704_128x128_24e_2key --data.root /data/nuscenes \\
      --ckpt_path published.pth                           scores of published weights
  bev-train fit my.yaml --data.subset.max_samples 1 --data.splits.train mini_val   overfit one key frame

Wrong input ends with one sentence and exit code 2."""


def _run_quickstart(arguments: Sequence[str]) -> None:
    from bev_train import quickstart

    parser = argparse.ArgumentParser("bev-train quickstart", description=quickstart.__doc__)
    quickstart.add_arguments(parser)
    quickstart.run(parser.parse_args(arguments))


def _run_convert(arguments: Sequence[str]) -> None:
    from bev_train import convert

    parser = argparse.ArgumentParser("bev-train convert", description=convert.__doc__)
    convert.add_arguments(parser)
    print(convert.run(parser.parse_args(arguments)))


def _dispatch(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return
    command, *rest = arguments
    others: dict[str, Callable[[Sequence[str]], None]] = {
        "configs": lambda _: list_configs(),
        "convert": _run_convert,
        "quickstart": _run_quickstart,
    }
    if command in others:
        others[command](rest)
    elif command in COMMANDS:
        # A mistyped config is told before the long import.
        split_configs(rest)
        from bev_train.run import run

        run(arguments)
    else:
        raise InputError(f"no such command: '{command}'; commands are {', '.join([*COMMANDS, *others])}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; those of the process by default.

    Returns:
        Exit code: 0, 1 where training met a value that is not finite, 2 for wrong input, 143 where SIGTERM
        and 130 where Ctrl-C ended it.
    """
    try:
        with listening():
            _dispatch(sys.argv[1:] if arguments is None else arguments)
    except Stopped as stopped:
        if stopped.saved:
            print(f"{stopped}: {stopped.saved}", file=sys.stderr)
        return stopped.code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 1 if isinstance(error, NonFiniteError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
