import functools
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture(scope="session")
def units() -> dict[str, NDArray[Any]]:
    """Reference values of single functions; goldens/README.md tells where they come from."""
    with np.load(GOLDENS / "units.npz") as values:
        return dict(values)


@functools.cache
def read_golden_json(name: str) -> Any:
    """Reference values in JSON by file name."""
    return json.loads(gzip.decompress((GOLDENS / f"{name}.json.gz").read_bytes()))


@pytest.fixture(scope="session")
def golden_json() -> Callable[[str], Any]:
    """Reference values in JSON by file name."""
    return read_golden_json
