"""What people install: a wheel that is whole, an environment that asks for what the project asks for, and files that name the same version."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import wsikit as wk

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONDA = {"pytorch": "torch", "pyside6": "pyside6-essentials", "py-opencv": "opencv-python-headless"}  # names that differ


def listed() -> dict[str, Requirement]:
    project = PROJECT["project"]
    texts = [*project["dependencies"], *(t for extra in project["optional-dependencies"].values() for t in extra)]
    return {r.name: r for r in map(Requirement, texts)}


def environment() -> tuple[list[Requirement], list[str]]:
    """What environment.yml asks conda for, and pip."""
    found = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [Requirement(re.sub(r"^(python)=(?=\d)", r"\1==", d)) for d in found if isinstance(d, str)]
    return conda, next(d["pip"] for d in found if isinstance(d, dict))


def lowest(requirement: Requirement) -> str:
    return next((s.version for s in requirement.specifier if s.operator in (">=", "==")), "0")


def test_the_environment_asks_for_versions_that_the_project_takes() -> None:
    conda, pip = environment()
    known = listed()
    assert "-e ." in pip, "pip installs the rest"
    for asked in conda:
        if asked.name == "python":
            assert lowest(asked) + ".0" in Requirement(f"python{PROJECT['project']['requires-python']}").specifier
        elif asked.name != "pip":
            wanted = known[CONDA.get(asked.name, asked.name)]
            assert lowest(asked) in wanted.specifier, f"{asked} in environment.yml, {wanted} in pyproject.toml"


def test_the_citation_the_changelog_and_the_package_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == wk.__version__ == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_before_a_commit_are_those_of_the_project() -> None:
    hooks = {h["id"]: h for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"] for h in repo["hooks"]}
    assert hooks.keys() == {"ruff", "ruff-format", "mypy", "imports", "spelling", "notebooks"}
    checked = (ROOT / ".ci/run").read_text()
    for command in ("ruff check", "ruff format", "mypy", "lint-imports"):
        assert f"uv run {command}" in checked
        assert any(f"uv run {command}" in h["entry"] for h in hooks.values())


def test_the_container_names_extras_that_there_are() -> None:
    text = (ROOT / "containers/Dockerfile").read_text()
    offered = re.search(r"Extras of wsikit, with commas: (.*)", text)
    assert offered is not None
    assert set(offered[1].split(", ")) <= set(PROJECT["project"]["optional-dependencies"])
    assert set(re.findall(r"EXTRAS=(\w+)", text)) <= set(offered[1].split(", "))
    copied = {source for line in re.findall(r"^COPY (.*)$", text, re.M) for source in line.split()[:-1]}
    assert {"!" + source for source in copied} <= set((ROOT / ".dockerignore").read_text().split())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and unpacked as an installer does it, in a folder of its own."""
    made, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", made], cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = made.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target)  # a wheel of Python alone is installed by this
    return target


def test_the_wheel_runs_without_the_clone(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", "wsikit", "--version"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"wsikit {wk.__version__}\n", "")
    where = subprocess.run([sys.executable, "-c", "import wsikit; print(wsikit.__file__)"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert Path(where.stdout.strip()).is_relative_to(installed)


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(installed: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "wsikit"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a clone")
    wanted = {name for name in tracked.stdout.splitlines() if (ROOT / name).is_file()}
    found = {p.relative_to(installed).as_posix() for p in installed.rglob("*") if p.is_file()}
    assert {name for name in found if not name.startswith("wsikit-")} == wanted
    assert {"wsikit/py.typed", "wsikit/view/napari.yaml"} <= found
    metadata = (next(installed.glob("wsikit-*.dist-info")) / "METADATA").read_text()
    assert "License-Expression: Apache-2.0" in metadata
    assert "wsikit = wsikit.cli.main:main" in (next(installed.glob("wsikit-*.dist-info")) / "entry_points.txt").read_text()
