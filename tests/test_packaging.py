"""What is handed out: the wheel and the sdist hold all that the package reads."""

import runpy
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import ufm

ROOT = Path(__file__).parents[1]


def test_one_version_everywhere():
    """The package, its metadata and the citation name one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    read = runpy.run_path(str(ROOT / project["tool"]["hatch"]["version"]["path"]))
    assert read["__version__"] == ufm.__version__
    assert f"version: {ufm.__version__}" in (ROOT / "CITATION.cff").read_text().splitlines()


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_package(tmp_path):
    """Needs the package index: hatchling is installed in a build environment of its own."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", tmp_path, ROOT], check=True, capture_output=True)
    wheel = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        source = {name.split("/", 1)[-1] for name in archive.getnames()}
    package = [p for p in (ROOT / "ufm").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    needed = {str(p.relative_to(ROOT)) for p in package}
    assert "ufm/py.typed" in needed
    assert needed <= wheel
    assert needed | {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"} <= source
