"""Tiles that a file has no bytes of: glass is counted, lost tissue refused, whichever level it is lost from."""

from __future__ import annotations

import csv
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

import wsikit as wk
from wsikit.readers._container import missing_tiles
from wsikit.run.missing import AROUND, INSIDE, _in_tissue
from wsikit.testing.dicom import Layout, write_dicom
from wsikit.testing.phantom import Spec, make_phantom, write_pyramid

SIDE = 1536


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return make_phantom(Spec(8, "LMS", SIDE, SIDE))[0]


def without(path: Path, page: int, index: int) -> Path:
    """The file with one tile's size set to 0."""
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[page].tags["TileByteCounts"].valueoffset
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, at + 4 * index, 0)
    path.write_bytes(data)
    return path


def slide(path: Path, rgb: np.ndarray, levels: bool) -> Path:
    if levels:
        write_pyramid(path, rgb, 0.5)
    else:
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None, "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(path, rgb, resolution=(2e4, 2e4), **options)
    return path


MIDDLE, CORNER = 3 * (SIDE // 256) + 3, 0


@pytest.mark.parametrize(("levels", "page", "index"), [(True, 0, MIDDLE), (False, 0, MIDDLE), (True, 1, 4)])
def test_tissue_that_is_missing_is_refused(levels: bool, page: int, index: int, picture: np.ndarray, tmp_path: Path) -> None:
    path = without(slide(tmp_path / "a.tif", picture, levels), page, index)
    assert len(missing_tiles(path)) == 1
    run = wk.score([path], tmp_path / "run", ["sts-subtype"])
    size = 256 * 2**page
    assert f"1 tiles in the tissue are missing from the file, the first of {size} × {size} px at x " in run.failed["a"]


def test_glass_that_is_missing_is_counted(picture: np.ndarray, tmp_path: Path) -> None:
    rgb = picture.copy()
    rgb[:300, :300] = 243
    path = without(slide(tmp_path / "a.tif", rgb, True), 0, CORNER)
    run = wk.score([path], tmp_path / "run", ["sts-subtype"])
    assert run.failed == {}
    assert run.results["a"]["slide"]["missing_tiles"] == 1
    (row,) = csv.DictReader((run.folder / "slides.csv").open())
    assert row["missing_tiles"] == "1"


def test_frames_that_a_sparse_dicom_slide_lacks(picture: np.ndarray, tmp_path: Path) -> None:
    """Its writer leaves out frames that are all white: of glass, which is counted, and here one in the tissue of level 0."""
    rgb = picture.copy()
    rgb[:256, :256] = 255
    layout = Layout(sparse=True, tile_px=128)
    whole = tmp_path / "whole"
    write_dicom(whole, [rgb, rgb[::4, ::4]], 0.5, layout)
    assert len(missing_tiles(whole)) >= 4
    run = wk.score([whole], tmp_path / "run", ["sts-subtype"])
    assert not run.failed
    assert run.results["whole"]["slide"]["missing_tiles"] == len(missing_tiles(whole))
    hole = rgb.copy()
    hole[768:896, 640:768] = 255
    write_dicom(tmp_path / "hole", [hole, rgb[::4, ::4]], 0.5, layout)
    run = wk.score([tmp_path / "hole"], tmp_path / "run2", ["sts-subtype"])
    assert "1 tiles in the tissue are missing from the file, the first of 128 × 128 px at x 640, y 768 of level 0" in run.failed["hole"]


def test_all_gaps_at_once_are_told_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        tissue = rng.random(rng.integers(1, 40, 2)) < rng.random()
        dx, dy = rng.uniform(3, 40, 2)
        corners = rng.integers(0, np.array([tissue.shape[1] * dx, tissue.shape[0] * dy]).astype(int) + 9, (30, 2))
        boxes = np.hstack([corners, rng.integers(1, 200, (30, 2))])
        assert _in_tissue(boxes, tissue, (dx, dy)).tolist() == [_alone(box, tissue, dx, dy) for box in boxes.tolist()]


def _alone(box: list[int], tissue: np.ndarray, dx: float, dy: float) -> bool:
    x, y, w, h = box
    rows, columns = (slice(int(a / d), int(np.ceil(b / d))) for a, b, d in ((y, y + h, dy), (x, x + w, dx)))
    inside = tissue[rows, columns]
    rim = tissue[max(0, rows.start - 2) : rows.stop + 2, max(0, columns.start - 2) : columns.stop + 2]
    around = (rim.sum() - inside.sum()) / max(1, rim.size - inside.size)
    return bool(inside.size) and bool(inside.mean() >= INSIDE or around >= AROUND)
