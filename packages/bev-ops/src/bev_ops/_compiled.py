"""The compiled module, where the package was installed with one."""

import importlib
from typing import Any


def load(name: str) -> Any:
    """A compiled module of this package, or None where it was not built."""
    try:
        return importlib.import_module(f"bev_ops.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"bev_ops.{name}":
            raise
        return None


native = load("_native")
