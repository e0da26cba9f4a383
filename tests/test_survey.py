"""The first look finds the tissue that is there, and refuses what is no H&E slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsikit.errors import MissingResolutionError, UnsupportedFormatError, UsageError
from wsikit.slide import Slide, open_slide
from wsikit.survey import SAMPLE_PIXELS, _spread, overview_raster, sample_tissue, survey

PURPLE = (150, 80, 160)


def in_memory(folder: Path, rgb: np.ndarray, mpp: float | None = 1.0) -> Slide:
    np.save(folder / "a.npy", rgb)
    return open_slide(folder / "a.npy", mpp=mpp)


def glass(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 243, np.uint8)


def disc(height: int, width: int, radius: float, colour: tuple[int, int, int] = PURPLE) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius**2
    rgb = glass(height, width)
    rgb[inside] = colour
    return rgb, inside


def test_the_phantoms_tissue_is_found(phantom: Any) -> None:
    found = survey(open_slide(phantom.path))
    truth = phantom.truth.tissue
    h, w = (min(a, b) for a, b in zip(found.mask.tissue.shape, truth.shape, strict=True))
    assert found.mask.tissue.shape == truth.shape
    ours, theirs = found.mask.tissue[:h, :w], truth[:h, :w]
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.9
    assert found.tissue_mm2 == pytest.approx(phantom.truth.tissue_mm2, rel=0.06)
    assert found.stain.trusted


def test_the_area_of_a_disc_is_in_square_millimetres(tmp_path: Path) -> None:
    rgb, inside = disc(1600, 2000, 500)
    for mpp in (0.5, 1.0, 2.0):
        found = survey(in_memory(tmp_path, rgb, mpp))
        assert found.tissue_mm2 == pytest.approx(inside.sum() * mpp**2 / 1e6, rel=0.05), mpp


@pytest.mark.parametrize("mpp", [0.06, 0.11, 0.2265, 0.25, 0.5, 1.0, 3.0, 7.9])
def test_the_overview_is_near_8_um(mpp: float, tmp_path: Path) -> None:
    raster = overview_raster(in_memory(tmp_path, glass(2000, 1500), mpp))
    assert 8 / 2**0.5 * 0.999 <= raster.mpp[0] <= 8 * 2**0.5 * 1.001
    assert np.log2(raster.downsample[0]) % 1 == 0


def test_a_second_look_sees_the_same(phantom: Any) -> None:
    first, second = (survey(open_slide(phantom.path)) for _ in range(2))
    assert np.array_equal(first.overview, second.overview)
    assert np.array_equal(first.mask.tissue, second.mask.tissue)
    assert first.stain == second.stain


def test_the_sample_is_of_tissue_only(tmp_path: Path) -> None:
    """The disc's rim is half glass at low power, so a few pixels may be glass."""
    rgb, _ = disc(3000, 3000, 1100)
    slide = in_memory(tmp_path, rgb)
    found = survey(slide, "none")
    pixels = sample_tissue(slide, found.raster, found.mask.tissue)
    assert 100_000 < len(pixels) <= SAMPLE_PIXELS
    assert (pixels == PURPLE).all(1).mean() > 0.97
    nothing = sample_tissue(slide, found.raster, np.zeros_like(found.mask.tissue))
    assert nothing.shape == (0, 3)


def test_fields_are_spread_over_all_of_the_tissue() -> None:
    fields = [(i, 0) for i in range(1000)]
    chosen = _spread(fields)
    assert len(set(chosen)) == len(chosen) == 24
    assert (chosen[0], chosen[-1]) == (fields[0], fields[-1])
    assert max(np.diff([c for c, _ in chosen])) <= 1000 / 23 + 1
    assert _spread(fields[:24]) == fields[:24]


@pytest.mark.parametrize("shape", [(20, 30), (1, 1), (3, 3000), (700, 900)])
def test_a_blank_slide_has_no_tissue_and_no_stain(shape: tuple[int, int], tmp_path: Path) -> None:
    found = survey(in_memory(tmp_path, glass(*shape)))
    assert found.tissue_mm2 == 0
    assert not found.stain.trusted


def test_fluorescence_is_refused(tmp_path: Path) -> None:
    rgb = np.zeros((1500, 1500, 3), np.uint8)
    rgb[400:900, 500:800, 2] = 70
    with pytest.raises(UnsupportedFormatError, match=r"a\.npy: \d+% of the slide is dark, so it is fluorescence"):
        survey(in_memory(tmp_path, rgb))


def test_a_scanners_black_margin_is_no_fluorescence(tmp_path: Path) -> None:
    rgb, _ = disc(1500, 1500, 300)
    rgb[:, :400] = 0
    assert survey(in_memory(tmp_path, rgb)).tissue_mm2 > 0.2


def test_no_mpp_and_no_such_stain(tmp_path: Path) -> None:
    with pytest.raises(MissingResolutionError, match="mpp"):
        survey(in_memory(tmp_path, glass(50, 50), None))
    with pytest.raises(UsageError, match="macenko"):
        survey(in_memory(tmp_path, glass(50, 50)), "rainbow")
