"""Building where tools are missing or broken: what can be, is installed; a warning says what is left out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "packages" / "bev-ops"
TOOLS = ("cmake", "ninja")

if not all(map(shutil.which, TOOLS)) or not (SOURCES / "CMakeLists.txt").is_file():
    pytest.skip("needs cmake, ninja and the sources of bev-ops", allow_module_level=True)


def configure(build: Path, *options: str, env: dict[str, str]) -> str:
    """What cmake says; it must not fail."""
    command = ["cmake", "-G", "Ninja", "-S", str(SOURCES), "-B", str(build), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    return said


def test_without_a_compiler_plain_torch_is_installed(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in (*TOOLS, "uname"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    env = {"PATH": str(tools), "HOME": str(tmp_path)}
    said = configure(tmp_path / "build", env=env)
    assert "installed without compiled kernels, many times slower" in said
    install = ["cmake", "--install", str(tmp_path / "build"), "--prefix", str(tmp_path / "to")]
    assert subprocess.run(install, check=False, env=env).returncode == 0


def test_a_broken_nvcc_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    pybind11 = pytest.importorskip("pybind11")
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\nexit 1\n")
    nvcc.chmod(0o755)
    options = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    env = {name: value for name, value in os.environ.items() if name != "SKBUILD_CMAKE_DEFINE"}
    said = configure(tmp_path / "build", *options, f"-DCMAKE_CUDA_COMPILER={nvcc}", env=env)
    assert "only the kernels for the processor are built: nvcc must be 12.1 or newer" in said
