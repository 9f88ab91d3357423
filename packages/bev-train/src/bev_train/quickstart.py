"""Render a small world, train the quickstart config on it and evaluate."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bev-train quickstart`."""
    parser.add_argument("--output", type=Path, default=Path("outputs/quickstart"))


def run(options: argparse.Namespace) -> None:
    raise NotImplementedError(options)
