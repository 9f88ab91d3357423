"""What all tests share: shape annotations that hold while they run, and rendered worlds."""

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session")
def rendered_world(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Copies of rendered worlds, by the arguments of `write_world`.

    A world is rendered once for all runs, workers and environments of this checkout: the originals lie in
    pytest's cache under the digest of what they are made of. `pytest --cache-clear` renders anew.
    """
    cache = pytestconfig.cache
    assert cache is not None
    originals = cache.mkdir("worlds")

    def copy(**specification: Any) -> Path:
        from bev_data.world import write_world

        original = originals / _world_digest(specification)
        if not original.exists():
            # Beside its final name, so that another worker never sees half a world.
            with tempfile.TemporaryDirectory(dir=originals) as folder:
                written = write_world(Path(folder) / "world", progress=False, **specification)
                try:
                    written.rename(original)
                except OSError:  # another worker was faster
                    assert original.is_dir()
        root = tmp_path_factory.mktemp("rendered") / "world"
        shutil.copytree(original, root)
        return root

    return copy


def _world_digest(specification: dict[str, Any]) -> str:
    """Digest of a world's arguments and of every source file of the package that renders it."""
    package = importlib.util.find_spec("bev_data")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent
    digest = hashlib.sha256(json.dumps(specification, sort_keys=True).encode())
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:32]
