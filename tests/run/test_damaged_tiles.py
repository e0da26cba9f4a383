"""Tiles of a slide that cannot be decoded: the slide fails, or, where a share is allowed, they are left out, counted and placed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

import wsikit as wk
from wsikit.errors import UsageError
from wsikit.geometry import Region
from wsikit.salvage import SQUARE_PX
from wsikit.store import open_store

PIPELINES = ["mitosis", "sts-subtype"]


@pytest.fixture(scope="module")
def harmed(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Region]:
    """A copy of the small slide with one JPEG tile of level 0 in ruins, and where that is."""
    path = tmp_path_factory.mktemp("harmed") / "small.tif"
    shutil.copyfile(slide, path)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        index = int(np.argmax(page.databytecounts))  # the fullest is tissue
        across = -(-page.imagewidth // page.tilewidth)
        at, size, t = page.dataoffsets[index], page.databytecounts[index], page.tilewidth
    data = bytearray(path.read_bytes())
    data[at + size // 3 : at + size] = bytes(size - size // 3)
    path.write_bytes(data)
    return path, Region(index % across * t, index // across * t, t, t).clip(wk.geometry.Size(960, 960))


def touches(origin: np.ndarray, size: np.ndarray, box: Region) -> np.ndarray:
    return ((origin < (box.x1, box.y1)) & (origin + size > (box.x, box.y))).all(1)


def test_without_leave_the_slide_fails_and_says_how(harmed: tuple[Path, Region], tmp_path: Path) -> None:
    run = wk.score([harmed[0]], tmp_path / "run", PIPELINES, block_px=512)
    assert "stops early" in run.failed["small"] or "cannot be decoded" in run.failed["small"]
    assert "--max-damaged" in run.failed["small"]
    with pytest.raises(UsageError, match="a damaged share of 1: give one from 0 to below 1"):
        wk.score([harmed[0]], tmp_path / "other", max_damaged=1.0)


def test_it_is_left_out_counted_and_placed(harmed: tuple[Path, Region], undisturbed: Path, tmp_path: Path) -> None:
    path, ruin = harmed
    run = wk.score([path], tmp_path / "run", PIPELINES, block_px=512, keep_tiles=True, max_damaged=0.3)
    assert not run.failed
    (found, before) = (open_store(folder / "slides/small.zarr") for folder in (run.folder, undisturbed))
    said = found.result["damaged"]
    boxes = [Region(*b) for b in said["boxes"]]
    assert said["squares"] == len(boxes) > 0
    assert all(not b.intersect(ruin).is_empty for b in boxes), "nothing else is given up"
    covered = np.zeros((960, 960), bool)
    for b in boxes:
        covered[b.y : b.y1, b.x : b.x1] = True
    assert covered[ruin.y : ruin.y1, ruin.x : ruin.x1].all(), "all of it is named"
    assert 0 < said["tissue_share"] < 0.3
    now, then = (s.tables()["sts-subtype"] for s in (found, before))
    gone = np.any([touches(then["origin"], then["size"], b) for b in boxes], axis=0)
    assert 0 < gone.sum() == len(now.attributes["dropped"])
    assert np.array_equal(now["origin"], then["origin"][~gone])
    assert not np.any([touches(now["origin"], now["size"], ruin)])
    here, there = (s.result["pipelines"]["mitosis"] for s in (found, before))
    assert 0 < here["area_mm2"] < there["area_mm2"]
    shapes = json.loads((run.folder / "slides/small.geojson").read_bytes())["features"]
    assert sum(f["properties"]["classification"]["name"] == "Damaged" for f in shapes) == 1
    assert f",{said['tissue_share']}," in (run.folder / "slides.csv").read_text()
    again = wk.score([path], run.folder, PIPELINES, block_px=512, keep_tiles=True, max_damaged=0.3)
    assert again.results == run.results
    strict = wk.score([path], run.folder, PIPELINES, block_px=512, max_damaged=0.01)
    assert "of the tissue, cannot be decoded, more than the 1.000% of --max-damaged; the first at x" in strict.failed["small"]


def test_the_rest_of_the_slide_is_as_it_was(harmed: tuple[Path, Region], slide: Path) -> None:
    window = Region(100, 90, 800, 830)
    with wk.open_slide(harmed[0]) as bad, wk.open_slide(slide) as good:
        lost: list[Region] = []
        pixels = bad.read_level(0, window, lost)
        truth = good.read_level(0, window)
    same = (pixels == truth).all(-1)
    for box in lost:
        assert box.w <= SQUARE_PX
        assert box.h <= SQUARE_PX
        part = (slice(box.y - window.y, box.y1 - window.y), slice(box.x - window.x, box.x1 - window.x))
        assert (pixels[part] == 255).all(), "white, and named"
        same[part] = True
    assert lost
    assert same.all()


def test_an_undamaged_slide_is_not_another_with_leave(slide: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = wk.score([slide], tmp_path / "run", PIPELINES, block_px=512, keep_tiles=True, max_damaged=0.1)
    assert (run.folder / "slides/small.json").read_bytes() == (undisturbed / "slides/small.json").read_bytes()


def test_a_slide_of_one_level_whose_overview_meets_the_damage(harmed: tuple[Path, Region], tmp_path: Path) -> None:
    """Nobody has seen whether there is tissue, so all of it counts as lost tissue."""
    path = tmp_path / "flat.tif"
    with tifffile.TiffFile(harmed[0]) as tif, tifffile.TiffWriter(path) as out:
        page = tif.pages[0]
        data = harmed[0].read_bytes()
        tiles = [data[o : o + c] for o, c in zip(page.dataoffsets, page.databytecounts, strict=True)]
        options = {"tile": (page.tilelength, page.tilewidth), "photometric": "rgb", "compression": "jpeg", "jpegtables": page.jpegtables, "metadata": None}
        out.write(iter(tiles), shape=page.shape, dtype="uint8", resolution=(20_000, 20_000), resolutionunit="CENTIMETER", **options)
    strict = wk.score([path], tmp_path / "strict", ["sts-subtype"], block_px=512)
    assert "--max-damaged" in strict.failed["flat"]
    run = wk.score([path], tmp_path / "run", ["sts-subtype"], block_px=512, max_damaged=0.3)
    assert not run.failed
    store = open_store(run.folder / "slides/flat.zarr")
    said, ruin = store.result["damaged"], harmed[1]
    assert said["tissue_share"] > 0.03
    assert any(not Region(*b).intersect(ruin).is_empty for b in said["boxes"])
    table = store.tables()["sts-subtype"]
    assert not np.any([touches(table["origin"], table["size"], ruin)])
