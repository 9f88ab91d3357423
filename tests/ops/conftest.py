from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def goldens() -> Callable[[str], Tensor]:
    """Reference values by name; goldens/README.md tells where they come from."""
    values = np.load(Path(__file__).parent / "goldens" / "units.npz")
    return lambda name: torch.from_numpy(values[name])
