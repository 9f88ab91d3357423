"""Each package holds what it should, declares what it imports, and can be imported alone."""

import ast
import importlib
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="tomllib, which reads pyproject.toml, comes with Python 3.11")

ROOT = Path(__file__).parents[2]
PACKAGES = ("bev-ops", "bev-data", "bev-models", "bev-train")
# package -> the packages of this repository it may know
KNOWN = {
    "bev-ops": set(),
    "bev-data": set(),
    "bev-models": {"bev-ops"},
    "bev-train": {"bev-ops", "bev-data", "bev-models"},
}
# Declared although no source need import them: torch warns where numpy is missing, and the others are for
# Lightning's command line and logger.
USED_BY_OTHERS = {"numpy", "jsonargparse", "tensorboard"}

every_package = pytest.mark.parametrize("package", PACKAGES)


def module_name(package: str) -> str:
    return package.replace("-", "_")


def source_folder(package: str) -> Path:
    return ROOT / "packages" / package / "src" / module_name(package)


def project_table(package: str) -> dict:
    return tomllib.loads((ROOT / "packages" / package / "pyproject.toml").read_text())["project"]


def normalised(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def declared(package: str) -> set[str]:
    """Distributions that a package declares, extras and versions stripped."""
    requirements = project_table(package)["dependencies"]
    return {normalised(re.match(r"[\w.-]+", requirement).group()) for requirement in requirements}


def imported(package: str) -> set[str]:
    """Distributions that the sources of a package import, wherever in a file the import stands."""
    modules = set()
    for path in source_folder(package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module.split(".")[0])
    modules -= set(sys.stdlib_module_names) | {module_name(package)}
    distributions = metadata.packages_distributions()
    return {normalised(distributions.get(module, [module])[0]) for module in modules}


@every_package
def test_every_import_is_declared(package):
    assert imported(package) - declared(package) == set()


@every_package
def test_every_declared_dependency_is_used(package):
    assert declared(package) - imported(package) - USED_BY_OTHERS == set()


@every_package
def test_no_package_imports_what_lies_above_it(package):
    assert imported(package) & set(PACKAGES) <= KNOWN[package]


@pytest.mark.parametrize("packages", [("bev-ops", "bev-models"), ("bev-data",)], ids="+".join)
def test_imports_alone(packages):
    """A module that loads a package above its own, by whatever way, shows in `sys.modules`."""
    modules = [name for package in packages for name in module_names(package)]
    strangers = [module_name(package) for package in PACKAGES if package not in packages]
    script = f"""
import importlib, sys
for name in {modules}: importlib.import_module(name)
sys.exit(", ".join(name for name in {strangers} if name in sys.modules) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def module_names(package: str) -> list[str]:
    folder = source_folder(package)
    paths = sorted(path.relative_to(folder.parent).with_suffix("") for path in folder.rglob("*.py"))
    return [".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__"]


@every_package
def test_installed_package_holds_every_source_file(package):
    distribution = metadata.distribution(package)
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        pytest.skip(f"{package} is installed editable: nothing was packed")
    folder = source_folder(package)
    sources = {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    installed = {file.as_posix() for file in distribution.files or []}
    assert f"{folder.name}/py.typed" in sources
    assert sources - installed == set()


@every_package
def test_package_tells_what_a_stranger_asks(package):
    project = project_table(package)
    assert project["license"] == "MIT"
    assert project["description"]
    folder = ROOT / "packages" / package
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    readme = (folder / project["readme"]).read_text()
    assert readme.startswith(f"# {package}\n")
    assert "## Install" in readme


def test_versions_agree():
    versions = {package: project_table(package)["version"] for package in PACKAGES}
    assert set(versions.values()) == {metadata.version("bev-ops")}, versions
    for package, version in versions.items():
        assert importlib.import_module(module_name(package)).__version__ == version
    newest = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1].splitlines()[0]
    assert versions["bev-ops"] in newest


@pytest.mark.parametrize("package", ["bev-data", "bev-train"])
def test_commands_lead_to_a_function(package):
    scripts = project_table(package)["scripts"]
    assert set(scripts) == {package}
    for target in scripts.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))
