"""Compile the CUDA kernels for two architectures and fail where a kernel does not fit into registers.

    python packages/bev-ops/tools/check_spills.py

needs nvcc on PATH, no GPU. A kernel that spills keeps some of its variables in memory.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "cpp" / "cuda"
ARCHITECTURES = ("80", "90")
ENTRY = re.compile(r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'")
SPILLS = re.compile(r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads")


def compiled(nvcc: str, source: Path) -> str:
    """What ptxas says of the kernels of one file."""
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES]
    command = [nvcc, "-std=c++17", "-O3", *targets, "-Xptxas=-v", "--threads=2", "-c", "-o", "/dev/null"]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{source.name} must compile for sm_{', sm_'.join(ARCHITECTURES)}:\n{done.stderr}")
    return done.stdout + done.stderr


def main() -> int:
    """Compile all, list what spills; the exit code is 1 where anything does."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        print("check_spills: skipped, there is no nvcc on PATH")
        return 0
    kernels, spilling = 0, []
    for source in sorted(SOURCES.glob("*.cu")):
        kernel = "?"
        for line in compiled(nvcc, source).splitlines():
            if entry := ENTRY.search(line):
                kernel = f"{entry['kernel']} on {entry['architecture']}"
            elif spills := SPILLS.search(line):
                kernels += 1
                if int(spills["stores"]) or int(spills["loads"]):
                    spilling.append(f"{kernel}: {spills[0]}")
    for kernel in spilling:
        print(kernel)
    print(f"{len(spilling)} of {kernels} kernels spill registers")
    return 1 if spilling or not kernels else 0


if __name__ == "__main__":
    sys.exit(main())
