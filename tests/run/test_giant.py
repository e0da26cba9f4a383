"""A slide of 40 gigapixels takes the memory of a small one, and what lies far out on it is found where it lies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import wsikit as wk
from wsikit.testing.giant import PIECE_PX, write_giant
from wsikit.testing.phantom import Spec, make_phantom

PLACES = [(3, 4), (12, 12), (13, 12), (20, 22)]
RUN = """
import resource, sys
from wsikit.run import tile_slides
from wsikit.run.job import Pixels
run = tile_slides([sys.argv[1]], sys.argv[2], pixels=Pixels(mpp=1.0, tile_px=256, codec="jpeg:90"), workers=0)
assert not run.failed, run.failed
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def piece() -> tuple[np.ndarray, float]:
    """Tissue of 8192 px, made of 16 times the same, and its mm²."""
    side = PIECE_PX // 4
    rgb, truth = make_phantom(Spec(5, "LMS", side, side, mpp=0.25))
    return np.tile(rgb, (4, 4, 1)), truth.tissue_mm2 * 16


def peak_kib(slide: Path, out: Path) -> int:
    done = subprocess.run([sys.executable, "-c", RUN, str(slide), str(out)], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.slow
def test_40_gigapixels_take_the_memory_of_four(tmp_path: Path, piece: tuple[np.ndarray, float]) -> None:
    rgb, mm2 = piece
    sizes = {"small": ((8, 8), [(1, 1), (3, 4), (4, 4), (6, 7)]), "giant": ((25, 25), PLACES)}
    peak, tissue = {}, {}
    for name, (pieces, places) in sizes.items():
        write_giant(tmp_path / f"{name}.tif", rgb, places, (pieces[0] * PIECE_PX, pieces[1] * PIECE_PX))
        peak[name] = peak_kib(tmp_path / f"{name}.tif", tmp_path / name)
        tissue[name] = json.loads((tmp_path / name / "slides" / f"{name}.json").read_text())["tissue_mm2"]
    assert wk.open_slide(tmp_path / "giant.tif").size == (204_800, 204_800)
    assert peak["giant"] < 1.5 * 2**20
    assert peak["giant"] - peak["small"] < 0.5 * 2**20  # the mask and its picture at 8 µm/px, 41 megapixels, are what grows
    assert tissue["giant"] == pytest.approx(tissue["small"], rel=0.02)
    assert tissue["giant"] == pytest.approx(len(PLACES) * mm2, rel=0.1)
    origins = wk.open_store(tmp_path / "giant/slides/giant.zarr").tables()["tiles"]["origin"]
    found = {(int(x), int(y)) for x, y in origins // PIECE_PX}
    assert set(PLACES) <= found
