"""What stands at the top of the package."""

import subprocess
import sys

import pytest

import bev_models


def test_every_public_name_is_there():
    assert "Detector" in bev_models.__all__
    for name in bev_models.__all__:
        assert getattr(bev_models, name).__name__ == name if name[0].islower() else getattr(bev_models, name)
    assert set(bev_models.__all__) <= set(dir(bev_models))


def test_other_names_are_refused():
    with pytest.raises(ImportError, match="cannot import name 'Detektor'"):
        from bev_models import Detektor  # noqa: F401


def test_nothing_is_imported_before_it_is_asked_for():
    script = "import sys, bev_models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
