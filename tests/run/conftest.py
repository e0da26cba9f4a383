"""A small slide, an undisturbed run of it, and how two run folders differ."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import wsikit as wk
from wsikit.run import Progress, Run
from wsikit.testing.phantom import Spec, write_phantom

OPTIONS: dict[str, Any] = {"pipelines": ["mitosis", "sts-subtype"], "block_px": 512}


class Killed(BaseException):
    """What a test raises where a process would have died."""


@pytest.fixture(scope="session")
def killed() -> type[BaseException]:
    return Killed


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of 960 × 960 px: four blocks of 512 px."""
    path = tmp_path_factory.mktemp("slide") / "small.tif"
    write_phantom(path, Spec(12, "UPS", 960, 960, mitoses_per_mm2=60))
    return path


def whole(run: Run) -> Run:
    """The run, when no slide of it failed: two failures have the same bytes too."""
    assert not run.failed
    return run


class Score(NamedTuple):
    """Scores the small slide into a folder, and counts the blocks that were planned and done."""

    slide: Path
    planned: list[int]
    done: list[int]

    def __call__(self, out: Path, on_progress: Callable[[Progress], None] = lambda _: None, **options: Any) -> Run:
        self.planned.append(0)
        self.done.append(0)

        def count(event: Progress) -> None:
            if event.kind == "planned":
                self.planned[-1] += event.blocks
            self.done[-1] += event.kind == "block"
            on_progress(event)

        return whole(wk.score([self.slide], out, **OPTIONS | options, on_progress=count))


@pytest.fixture
def score(slide: Path) -> Score:
    return Score(slide, [], [])


@pytest.fixture(scope="session")
def undisturbed(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed, pixels kept."""
    return whole(wk.score([slide], tmp_path_factory.mktemp("undisturbed") / "run", **OPTIONS, keep_tiles=True)).folder


@pytest.fixture(scope="session")
def undisturbed_lean(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without pixels."""
    return whole(wk.score([slide], tmp_path_factory.mktemp("undisturbed-lean") / "run", **OPTIONS)).folder


@pytest.fixture
def run_copy(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the undisturbed run that a test may damage."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


def _digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="session")
def differences() -> Callable[[Path, Path], set[str]]:
    """Files of two run folders, hidden ones too, that are not there in both or not the same byte by byte."""

    def differ(a: Path, b: Path) -> set[str]:
        return {name for name, _ in _digests(a).items() ^ _digests(b).items()}

    return differ
