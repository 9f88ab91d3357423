"""What all tests share: the shape annotations of the packages hold while they run."""

import importlib.util
import os
from collections.abc import Iterator

import jaxtyping
import pytest

# Packages whose annotations are checked, where they are installed.
CHECKED = ("bev_ops", "bev_models", "bev_data")
# BEV_TYPECHECK=0 turns the checks off, for a debugger or a timing.
CHECKING = os.environ.get("BEV_TYPECHECK", "1") != "0" and importlib.util.find_spec("beartype") is not None

if CHECKING:
    # Before the first import of the packages: the hook rewrites modules as they are loaded.
    jaxtyping.install_import_hook(
        [package for package in CHECKED if importlib.util.find_spec(package)],
        # An int may stand where a float is asked for, as everywhere in typed Python.
        "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
    )


def pytest_report_header() -> str:
    if CHECKING:
        return f"shape annotations: checked in {', '.join(CHECKED)}"
    return "shape annotations: not checked (needs beartype, and BEV_TYPECHECK unset)"


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Let wrong arguments through to the code's own checks and messages."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
