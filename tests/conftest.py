"""Shared slides: phantoms made once per session, and the public sample slide where it can be reached; a screen for napari."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import wsikit as wk
from wsikit.errors import SlideNotFoundError
from wsikit.run import Run
from wsikit.testing.phantom import Spec, Truth, write_phantom


@dataclass(frozen=True)
class Phantom:
    """A phantom slide on disk with its truth."""

    path: Path
    truth: Truth


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    """One LMS phantom of 2560 × 2048 px at 0.5 µm/px with mitoses."""
    path = tmp_path_factory.mktemp("phantom") / "lms.tif"
    return Phantom(path, write_phantom(path, Spec(11, "LMS", 2560, 2048, mitoses_per_mm2=25)))


@pytest.fixture(scope="session")
def scored(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """That phantom scored by every bundled model, in process."""
    return wk.score([phantom.path], tmp_path_factory.mktemp("scored") / "run", keep_tiles=True)


@pytest.fixture(scope="session")
def cmu() -> Path:
    """CMU-1-Small-Region.svs, the public CC0 slide."""
    from wsikit.sample import sample_slide

    try:
        return sample_slide()
    except SlideNotFoundError as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def data() -> Path:
    """A folder of more real slides and labels, when the environment variable WSIKIT_DATA names one."""
    folder = os.environ.get("WSIKIT_DATA")
    if not folder:
        pytest.skip("WSIKIT_DATA names no folder with more real slides")
    return Path(folder)


@pytest.fixture(scope="session")
def screen() -> Iterator[str]:
    """A display; skips where there is neither one nor Xvfb to make one."""
    if sys.platform != "linux" or os.environ.get("DISPLAY"):
        yield os.environ.get("DISPLAY", "")
        return
    xvfb = shutil.which("Xvfb")
    if xvfb is None:
        pytest.skip("no screen, and no Xvfb to make a virtual one")
    read, write = os.pipe()
    server = subprocess.Popen([xvfb, "-displayfd", str(write), "-screen", "0", "1920x1200x24", "-nolisten", "tcp"], pass_fds=[write])
    os.close(write)
    display = ":" + os.read(read, 16).decode().strip()
    os.environ["DISPLAY"] = display
    yield display
    del os.environ["DISPLAY"]
    server.terminate()
    server.wait()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite; a file that is named runs in this one, which starts at once."""
    return 0 if config.args_source is pytest.Config.ArgsSource.ARGS else 2
