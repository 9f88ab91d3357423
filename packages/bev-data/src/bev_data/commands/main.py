"""The command line of bev-data: one module per command, and what all of them do with errors."""

import argparse
import sys
from collections.abc import Sequence

from bev_data.commands.argoverse import add_import_av2
from bev_data.commands.check import add_check
from bev_data.commands.eval import add_eval
from bev_data.commands.pickles import add_export, add_import
from bev_data.commands.prepare import add_depth_gt, add_infos, add_prepare
from bev_data.commands.show import add_show
from bev_data.commands.synth import add_synth
from bev_data.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 1 where a check found problems; 2 where the input cannot be used, after one sentence on stderr;
        130 where the user stopped it.
    """
    args = _parser().parse_args(arguments)
    try:
        code: int | None = args.run(args)
    except (InputError, OSError) as error:
        print(f"bev-data {args.command}: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"bev-data {args.command}: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return code or 0


def _sentence(error: InputError | OSError) -> str:
    """What is wrong; errors of the system itself, which name a file and a reason only, in the same form."""
    if isinstance(error, OSError) and error.errno is not None:
        place = error.filename if error.filename is not None else "a file"
        return f"{place} cannot be used: {error.strerror}; check the path, the disk and your rights"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bev-data",
        description="nuScenes-format data for camera-only 3D detection.",
        epilog="A first look, without a download:\n"
        "  bev-data synth data/world\n"
        "  bev-data show data/world 0 --out sample.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_prepare(commands)
    add_check(commands)
    add_show(commands)
    add_infos(commands)
    add_depth_gt(commands)
    add_import(commands)
    add_import_av2(commands)
    add_export(commands)
    add_synth(commands)
    add_eval(commands)
    return parser
