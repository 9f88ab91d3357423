"""What the packages' READMEs show runs as it stands there."""

import re
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[2] / "packages"


def python_blocks(package: str) -> list[str]:
    return re.findall(
        r"^```python\n(.*?)^```$", (PACKAGES / package / "README.md").read_text(), re.DOTALL | re.M
    )


# bev-data's example needs a world on disk.
@pytest.mark.parametrize("package", ["bev-ops", "bev-models", "bev-train"])
def test_example_runs(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(package)
    assert blocks
    for block in blocks:
        exec(compile(block, f"{package}/README.md", "exec"), {})
