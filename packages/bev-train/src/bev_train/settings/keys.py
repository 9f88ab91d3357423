"""From what a user types to what the argument parser takes, and from its complaints to full keys."""

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from bev_data.errors import InputError
from bev_train.errors import one_line
from bev_train.settings.bases import Layer
from bev_train.settings.find import did_you_mean

# A tree of known keys; None where a key takes any value, or a class whose own parser checks it.
KeyTree = dict[str, "KeyTree | None"]

# Where a setting is found that users look for elsewhere: under a former key, one of another program, or one
# that follows from another.
MOVED = {
    "data.classes": "model.detector.head.tasks",
    "data.history.frames": "model.detector.frames",
    "data.seed": "seed_everything",
    "trainer.gpus": "trainer.devices",
    "data.train_split": "data.splits.train",
    "data.val_split": "data.splits.val",
    "data.test_split": "data.splits.test",
    "data.predict_split": "data.splits.predict",
    "data.cbgs_count": "data.quirks.cbgs_count",
    "model.box_weight": "model.loss.box_weight",
    "model.depth_weight": "model.loss.depth_weight",
    "model.stereo_weight": "model.loss.stereo_weight",
}


def check_keys(parser: LightningArgumentParser, configs: Sequence[Layer], options: Sequence[str]) -> None:
    """Refuse keys that no setting has, in files and options, by their full name.

    Args:
        parser: of the command that runs.
        configs: files that were read.
        options: `--key value` and `--key=value`.

    Raises:
        InputError: if a key is unknown.
    """
    tree = known_keys(parser)
    for layer in configs:
        for key in _flatten(tree, layer.content, ()):
            _check_key(tree, key, f" in {layer.path}")
    for option in options:
        name = option.partition("=")[0]
        _check_moved(name.removeprefix("--"), "")
        # Values come between options; --config, --help and --print_config are no keys.
        if name.startswith("--") and name not in parser._option_string_actions:
            _check_key(tree, name.removeprefix("--").removesuffix("+").split("."), "")


def known_keys(parser: LightningArgumentParser) -> KeyTree:
    """Collect the keys a parser knows, config dataclasses included."""
    tree: KeyTree = {}
    for action in parser._actions:
        *parents, leaf = action.dest.split(".")
        # `--model.detector.stereo.help` is an option, but no key.
        if action.dest == argparse.SUPPRESS or (parents and leaf == "help"):
            continue
        branch = tree
        for parent in parents:
            child = branch.get(parent) or {}
            branch[parent] = child
            branch = child
        branch.setdefault(leaf, _dataclass_keys(getattr(action, "_typehint", None)))
    return tree


def _dataclass_keys(hint: Any) -> KeyTree | None:
    """Collect the keys of a dataclass, also where it is one member of a union."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        trees = [tree for tree in map(_dataclass_keys, typing.get_args(hint)) if tree is not None]
        return trees[0] if trees else None
    if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
        return None
    hints = typing.get_type_hints(hint)
    return {field.name: _dataclass_keys(hints[field.name]) for field in dataclasses.fields(hint)}


def _flatten(tree: KeyTree, content: Mapping[str, Any], prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """List the keys of a nested mapping down to where the tree ends."""
    for name, value in content.items():
        parts = tuple(str(name).split("."))
        branch: KeyTree | None = tree
        for part in parts:
            branch = branch.get(part.removesuffix("+")) if branch else None
        if isinstance(value, Mapping) and branch:
            yield from _flatten(branch, value, prefix + parts)
        else:
            yield prefix + parts


def _check_moved(key: str, where: str) -> None:
    if moved := MOVED.get(key):
        raise InputError(f"unknown key '{key}'{where}: it is '{moved}'")


def _check_key(tree: KeyTree, key: Sequence[str], where: str) -> None:
    _check_moved(".".join(key), where)
    branch: KeyTree | None = tree
    for depth, part in enumerate(key):
        if branch is None or part in ("class_path", "init_args", "dict_kwargs"):
            return
        if part.removesuffix("+") not in branch:
            parent = ".".join(key[:depth])
            full = [f"{parent}.{name}" if parent else name for name in branch]
            elsewhere = [name for name in _all_keys(tree) if name.rpartition(".")[2] == key[-1]]
            hint = did_you_mean(".".join(key[: depth + 1]), full, elsewhere)
            raise InputError(f"unknown key '{'.'.join(key)}'{where}{hint}")
        branch = branch[part.removesuffix("+")]


def _all_keys(tree: KeyTree, prefix: str = "") -> Iterator[str]:
    for name, branch in tree.items():
        yield prefix + name
        yield from _all_keys(branch or {}, f"{prefix}{name}.")


class ArgumentParser(LightningArgumentParser):
    """The parser of Lightning's command line, whose complaints become an `InputError`."""

    def error(self, message: str, ex: Exception | None = None) -> typing.NoReturn:
        """Raise what is wrong with the arguments.

        Raises:
            InputError: always, from the outermost parser.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        raise InputError(_reword(message)) from ex


def _reword(message: str) -> str:
    text = one_line(message)
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text).replace("Expected a ", "expected ")
    text = text.replace("typing.", "").replace(". Got value:", ", got")
    text = re.sub(r"Parser key \"([^\"]+)\": ?", r"\1: ", text)
    text = re.sub(r"Subcommand '\w+' does not accept option '([^']+)'", r"unknown key '\1'", text)
    if found := re.fullmatch(
        r"(.*expected (?:List|Tuple|tuple|list)\b.*), got (\d[\d.]*(?:,[\d.]+)+)\b.*", text
    ):
        return f"{found[1]}, got {found[2]}: write [{found[2]}]"
    if found := re.fullmatch(r"unrecognized arguments: (--)?(.*)", text):
        name = re.split("[ =]", found[2])[0]
        return f"unknown key '{name}'" if found[1] else f"unexpected argument '{name}'"
    if found := re.fullmatch(r"the following arguments are required: \w+\.(.*)", text):
        return f"{found[1]} must be set: put it into the config, or add --{found[1]} VALUE"
    return text
