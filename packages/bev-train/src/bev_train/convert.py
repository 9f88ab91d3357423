"""Convert weights between the published names and ours, as a checkpoint or as safetensors."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch

from bev_data.atomic import atomic_path
from bev_data.errors import InputError
from bev_models import build_detector
from bev_models.config import config_from_dict
from bev_models.published import is_published, to_published
from bev_models.weights import by_our_names, check_fit, read_file, recognise

Layout = Literal["published", "ours"]

_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bev-train convert`."""
    parser.add_argument("source", type=Path, metavar="IN", help="checkpoint or safetensors file")
    parser.add_argument("target", type=Path, metavar="OUT", help=f"file to write: {', '.join(_SUFFIXES)}")
    parser.add_argument(
        "--to", choices=("published", "ours"), help="names to write (those that IN does not have)"
    )
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        default=(256, 704),
        metavar=("H", "W"),
        help="input of the network, which published files repeat (256 704)",
    )


def convert(
    source: Path, target: Path, layout: Layout | None = None, image_size: tuple[int, int] = (256, 704)
) -> Layout:
    """Write the weights of a file under other names; every parameter must be there and no other.

    Args:
        source: checkpoint or safetensors file, published or ours.
        target: file to write, whole or not at all.
        layout: names to write; those that `source` does not have if None.
        image_size: (H, W) of the input, which published files repeat.

    Returns:
        The layout written.

    Raises:
        InputError: if the file cannot be read, the weights are no detector's, or the suffix is unknown.
    """
    if target.suffix not in _SUFFIXES:
        raise InputError(f"the file to write must end in one of {', '.join(_SUFFIXES)}, got {target}")
    try:
        content = read_file(source)
        state = by_our_names(content["state_dict"])
        if "detector" in content:
            config = config_from_dict(content["detector"])
            with torch.device("meta"):
                check_fit(build_detector(config), state)
        else:
            config = recognise(state)
    except ValueError as error:
        raise InputError(str(error)) from error
    layout = layout or ("ours" if is_published(content["state_dict"]) else "published")
    if layout == "published":
        state = to_published(state, config, image_size)
    else:
        state = {f"detector.{name}": value for name, value in state.items()}
    state = {name: value.contiguous() for name, value in state.items()}
    settings = {} if layout == "published" else {"detector": dataclasses.asdict(config)}
    with atomic_path(target) as temporary:
        if target.suffix == ".safetensors":
            metadata = {name: json.dumps(value) for name, value in settings.items()}
            safetensors.torch.save_file(state, temporary, metadata)
        else:
            torch.save({"state_dict": state} | settings, temporary)
    return layout


def run(options: argparse.Namespace) -> str:
    """Convert, and say what was written."""
    height, width = options.image_size
    layout = convert(options.source, options.target, options.to, (height, width))
    return f"{options.target}: weights by {'published' if layout == 'published' else 'our'} names"
