"""The mosaic is a slide that every reader opens, the same each time, and nowhere the same twice."""

from __future__ import annotations

from pathlib import Path

import mosaic
import numpy as np
import openslide
import pytest
import tifffile

import wsikit as wk
from wsikit.survey import survey

SMALL = mosaic.Mosaic(width=2200, height=2000, cell=500)


@pytest.fixture(scope="module")
def slide(cmu: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mosaic.mosaic_slide(SMALL, tmp_path_factory.mktemp("mosaic"))


def test_it_opens_as_an_aperio_slide_with_its_levels_and_resolution(slide: Path) -> None:
    with openslide.OpenSlide(slide) as opened:
        assert opened.detect_format(slide) == "aperio"
        assert opened.level_dimensions == ((2200, 2000), (550, 500), (137, 125))
        assert float(opened.properties["openslide.mpp-x"]) == 0.499
        assert opened.properties["openslide.level[0].tile-width"] == "256"
    assert wk.open_slide(slide).reader == "native"


def test_no_two_tiles_have_the_same_bytes(slide: Path) -> None:
    with tifffile.TiffFile(slide) as tif:
        page = tif.pages[0]
        data = slide.read_bytes()
        tiles = [data[o : o + n] for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        assert (page.photometric, page.subsampling) == (6, (2, 2))
    assert len(tiles) == 9 * 8
    assert len(set(tiles)) == len(tiles)


def test_most_of_it_is_tissue_and_its_rim_is_glass(slide: Path) -> None:
    opened = wk.open_slide(slide)
    mask = survey(opened).mask.tissue
    rim = mask.copy()
    step = SMALL.glass * mask.shape[1] // SMALL.width
    rim[step:-step, step:-step] = False
    inside = mask[step:-step, step:-step]
    assert inside.mean() > 0.5
    assert rim.mean() < 0.02


def test_coarser_levels_show_the_same_picture(slide: Path) -> None:
    opened = wk.open_slide(slide)
    for level, factor in ((1, 4), (2, 16)):
        size = opened.levels[level].size
        fine = opened.read((0, 0, size.w * factor, size.h * factor)).reshape(size.h, factor, size.w, factor, 3).mean((1, 3))
        stored = opened.read_level(level, wk.Region(0, 0, *size)).astype(float)
        off = [np.abs(np.roll(stored, shift, (0, 1)) - fine)[2:-2, 2:-2].mean() for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))]
        assert off[0] < min(off[1:]) / 2  # JPEG's own loss, less than that of a pixel's shift
        assert np.abs((stored - fine).mean()) < 0.5


def test_the_same_seed_gives_the_same_file_and_another_seed_another(slide: Path, tmp_path: Path) -> None:
    again = mosaic.mosaic_slide(SMALL, tmp_path)
    assert again.name == slide.name
    assert again.read_bytes() == slide.read_bytes()
    other = mosaic.mosaic_slide(mosaic.Mosaic(width=2200, height=2000, cell=500, seed=8), tmp_path)
    assert other.name != slide.name
    assert other.read_bytes() != slide.read_bytes()


def test_a_mosaic_that_is_there_is_not_made_again(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosaic, "write_mosaic", lambda *_: pytest.fail("made again"))
    assert mosaic.mosaic_slide(SMALL, slide.parent) == slide
