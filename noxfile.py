"""Checks of the repository, each in an environment of its own: `nox -l` lists them, `nox -s test` tests all.

One cell of the test matrix: `nox -s "test(bev-ops, 3.12)"`; one Python: `nox -s test -p 3.12`; the cells that
continuous integration runs, those of the main Python: `nox -s test -t ci`. What follows `--` goes on to the
tool (pytest, ruff, mypy).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent

# package -> itself and what it declares of this repository; installed together from their sources
PACKAGES = {
    "bev-ops": ("bev-ops",),
    "bev-data": ("bev-data",),
    "bev-models": ("bev-ops", "bev-models"),
    "bev-train": ("bev-ops", "bev-data", "bev-models", "bev-train"),
}
PYTHONS = ("3.10", "3.11", "3.12")
# bev-data and bev-train end at 3.12 (see bev-data's pyproject.toml); bev-ops is tried on what comes next.
OPS_PYTHONS = (*PYTHONS, "3.13")

# beartype lets the tests check shape annotations.
TEST_TOOLS = ("numpy", "pytest", "pytest-xdist", "hypothesis", "beartype")

# Tools and sessions of all packages run on the interpreter that runs nox where the packages support it.
RUNNING_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
MAIN_PYTHON = RUNNING_PYTHON if RUNNING_PYTHON in PYTHONS else PYTHONS[-1]

# uv makes environments of hard links into its cache: without it every cell would hold its own copy of torch.
nox.options.default_venv_backend = "uv|virtualenv"
# Where a network has its own certificate, pip finds it in the system's store; uv looks there when told.
os.environ.setdefault("UV_SYSTEM_CERTS", "1")
# Kernels for GPUs compile for minutes: without a GPU they are left to the sessions `cuda` and `sanitize`.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("SKBUILD_CMAKE_DEFINE", "BEV_OPS_CUDA=OFF")
# Interpreters are the machine's own; one that is missing is skipped with a word.
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "test"]


def _expose_pyenv_interpreters() -> None:
    """Put pyenv's interpreters of the matrix on PATH: by itself pyenv answers with the selected one only."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [str(path) for minor in OPS_PYTHONS for path in sorted(versions.glob(f"{minor}.*/bin"))]
    # `python3` must stay what it was: what is found goes behind the folder of the interpreter that runs nox.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), *found, os.environ["PATH"]])


_expose_pyenv_interpreters()


def _cells() -> list[object]:
    """Package x Python, and once what crosses packages."""
    cells = [("bev-ops", python) for python in OPS_PYTHONS]
    cells += [(package, python) for package in list(PACKAGES)[1:] for python in PYTHONS]
    return [
        nox.param(python, package, id=f"{package}, {python}", tags=["ci"] if python == MAIN_PYTHON else [])
        for package, python in [*cells, ("together", MAIN_PYTHON)]
    ]


def _install(session: nox.Session, packages: tuple[str, ...], *tools: str) -> None:
    """Install packages of this repository with what they declare, and tools beside them."""
    folders = [str(ROOT / "packages" / package) for package in packages]
    session.install("-c", str(ROOT / "constraints.txt"), *folders, *tools)


# Tests run beside each other, a process per core with one thread each: threads that wait hold up the others.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PARALLEL = ("-n", str(CORES), "--dist", "loadfile")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# What takes long and says nothing about a Python runs on the main one.
THIN = ("-m", "not slow")
THIN_CASES = {"BEV_OPS_CASES": "200"}


@nox.session
@nox.parametrize(("python", "package"), _cells())
def test(session: nox.Session, package: str) -> None:
    """Test one package beside nothing but what it declares; 'together' tests what crosses packages."""
    whole = session.python == MAIN_PYTHON
    arguments = [*PARALLEL, *(() if whole else THIN), *session.posargs]
    environment = ONE_THREAD if whole else ONE_THREAD | THIN_CASES
    if package == "together":
        _install(session, tuple(PACKAGES), *TEST_TOOLS)
        folder = "contracts"
    else:
        _install(session, PACKAGES[package], *TEST_TOOLS)
        folder = package.removeprefix("bev-")
    session.run("pytest", f"tests/{folder}", *arguments, env=environment)
    if package == "bev-ops":
        # torch.compile cannot trace the shape checks of tests/conftest.py.
        unchecked = environment | {"BEV_TYPECHECK": "0"}
        session.run("pytest", "tests/ops/test_operators.py", *arguments, env=unchecked)


@nox.session(python=MAIN_PYTHON)
def processors(session: nox.Session) -> None:
    """Test ops and models as other processors run them: with two threads, and held to AVX2 and to less."""
    _install(session, PACKAGES["bev-models"], *TEST_TOOLS)
    tests = ("tests/ops", "tests/models", *THIN, *session.posargs)
    held = {
        "two threads": {"OMP_NUM_THREADS": "2"},
        "AVX2": ONE_THREAD | {"ATEN_CPU_CAPABILITY": "avx2", "BEV_OPS_ISA": "avx2"},
        "baseline": ONE_THREAD | {"ATEN_CPU_CAPABILITY": "default", "BEV_OPS_ISA": "baseline"},
    }
    for name, environment in held.items():
        session.log(f"held to: {name}")
        beside = () if name == "two threads" else PARALLEL
        session.run("pytest", *tests, *beside, env=environment | THIN_CASES)


@nox.session(python="3.11")
def compat(session: nox.Session) -> None:
    """Test one wheel of bev-ops with the oldest torch it supports, then with the newest (downloads both)."""
    wheels = session.create_tmp()
    session.install("pip")
    session.run("python", "-m", "pip", "wheel", "--no-deps", "-w", wheels, str(ROOT / "packages/bev-ops"))
    wheel = max(Path(wheels).glob("bev_ops-*.whl"), key=lambda path: path.stat().st_mtime)
    for versions in (("torch==2.4.1", "numpy<2"), ("--upgrade", "torch", "numpy")):
        session.install(*versions, *TEST_TOOLS, str(wheel))
        session.run("pytest", "tests/ops", *session.posargs, env={"BEV_TYPECHECK": "0"})


@nox.session(python=MAIN_PYTHON)
def sanitize(session: nox.Session) -> None:
    """Test bev-ops and its CUDA kernels, emulated, under address and undefined-behaviour sanitizers."""
    compiler = os.environ.get("CXX", "c++")
    libraries = []
    for name in ("libasan.so", "libubsan.so"):
        found = subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False
        )
        libraries.append(found.stdout.strip())
    if not all(Path(library).is_file() for library in libraries):
        session.skip(f"{compiler} comes without the sanitizers of GCC")
    defines = ("BEV_OPS_SANITIZE=ON", "BEV_OPS_EMULATE_CUDA=ON", "BEV_OPS_CUDA=OFF")
    settings = ("cmake.build-type=RelWithDebInfo", *(f"cmake.define.{define}" for define in defines))
    arguments = [word for setting in settings for word in ("-C", setting)]
    session.install(
        "-c", str(ROOT / "constraints.txt"), *arguments, str(ROOT / "packages/bev-ops"), *TEST_TOOLS
    )
    tests = ("tests/ops/test_cuda_emulated.py", "tests/ops/test_kernels.py")
    session.run(
        "pytest",
        *(tests if not session.posargs else session.posargs),
        # Python itself frees little at its end.
        env={"LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"},
    )


@nox.session(venv_backend="none")
def cuda(session: nox.Session) -> None:
    """Compile the CUDA kernels for two architectures; none may spill registers. Needs nvcc, no GPU."""
    if shutil.which("nvcc") is None:
        session.skip("there is no nvcc on PATH")
    session.run(sys.executable, "packages/bev-ops/tools/check_spills.py")


@nox.session(python=MAIN_PYTHON)
def fuzz(session: nox.Session) -> None:
    """Damage files by chance and read them, each in a process of its own (`-- --cases 2000 --seed 1`)."""
    _install(session, ("bev-data",))
    session.run("python", "-m", "tests.fuzz.run", *session.posargs)


@nox.session(python=MAIN_PYTHON)
def lint(session: nox.Session) -> None:
    """Check style, layout and the direction of imports."""
    session.install("-c", str(ROOT / "constraints.txt"), "ruff", "import-linter")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    # import-linter reads sources; it needs to find the packages, not what they import.
    sources = os.pathsep.join(str(ROOT / "packages" / name / "src") for name in PACKAGES)
    session.run("lint-imports", env={"PYTHONPATH": sources})


@nox.session(python=MAIN_PYTHON)
def types(session: nox.Session) -> None:
    """Check the types of the four packages, strictly."""
    _install(session, tuple(PACKAGES), "mypy")
    session.run("mypy", *(f"packages/{name}/src" for name in PACKAGES), *session.posargs)


@nox.session(python=MAIN_PYTHON, reuse_venv=True)
def quickstart(session: nox.Session) -> None:
    """Render a world, train on it, score held-out scenes and draw them (15 to 30 minutes on two cores)."""
    _install(session, tuple(PACKAGES))
    session.run("bev-train", "quickstart", *session.posargs)


@nox.session(python=MAIN_PYTHON, reuse_venv=True)
def dev(session: nox.Session) -> None:
    """Make an environment for work on the sources: the packages editable, and every tool."""
    editable = [word for name in PACKAGES for word in ("-e", str(ROOT / "packages" / name))]
    tools = (*TEST_TOOLS, "ruff", "import-linter", "mypy")
    session.install("-c", str(ROOT / "constraints.txt"), *editable, *tools)
    session.log(f"Activate it: source {session.bin}/activate")
