"""A store without kept pixels beside the scored one, and what an outsider does to either."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import wsikit as wk
from wsikit.run import Run
from wsikit.testing.phantom import Spec, write_phantom


@pytest.fixture(scope="session")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small phantom scored by two models, its pixels not kept."""
    folder = tmp_path_factory.mktemp("lean")
    write_phantom(folder / "small.tif", Spec(12, "UPS", 1536, 1280, mitoses_per_mm2=25))
    return wk.score([folder / "small.tif"], folder / "run", ["mitosis", "sts-subtype"], block_px=768)


@pytest.fixture
def lean_store(lean: Run, tmp_path: Path) -> Path:
    """A copy of its store, with all that lies beside it, that a test may change."""
    shutil.copytree(lean.folder / "slides", tmp_path / "slides")
    return tmp_path / "slides/small.zarr"


@pytest.fixture
def flip() -> Callable[[Path, int], None]:
    """Flips one bit of a file, at a byte counted from the start, or from the end when negative."""

    def flip_bit(path: Path, at: int) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 0x10
        path.write_bytes(data)

    return flip_bit
