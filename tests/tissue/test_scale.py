"""Tissue of large pictures: the same in whatever strips, thresholds as the libraries have them, a few bytes a pixel."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.filters import threshold_otsu

from wsikit.testing.flaws import fold, pen
from wsikit.tissue import _look, _parts, find_tissue, mask
from wsikit.tissue._look import CHROMA, GREY, look
from wsikit.tissue.mask import CHROMA_CAP, CHROMA_FLOOR, _levels, _quantile, _threshold, find_foreign

MPP = (8.0, 8.0)
At8 = Callable[[np.ndarray], np.ndarray]


@pytest.mark.parametrize("strip", [1, 7, 40])
def test_strips_do_not_show(strip: int, section: Callable, overview: At8, monkeypatch: pytest.MonkeyPatch) -> None:
    folded, _ = fold(section("LMS")[0], [(520, 420), (980, 660), (1560, 640)], 120)
    picture = overview(pen(folded, [(300, 900), (1700, 1000)], 100, "blue")[0])
    picture = np.pad(picture, ((9, 0), (0, 13), (0, 0)))
    whole = find_tissue(picture, MPP)
    assert len(np.unique(whole.kind)) >= 6
    monkeypatch.setattr(_look, "_STRIP", strip)
    monkeypatch.setattr(_parts, "_STRIP_PX", strip * picture.shape[1])
    cut = find_tissue(picture, MPP)
    assert np.array_equal(cut.kind, whole.kind)
    assert cut.white_point == whole.white_point


def test_large_pictures_need_few_bytes_a_pixel(section: Callable, overview: At8) -> None:
    """40 megapixels, of a slide of 40 gigapixels at 0.25 µm/px, must fit in 0.7 GB with the picture's own 3 bytes a pixel."""
    small = overview(pen(section("LMS")[0], [(300, 900), (1700, 1000)], 100, "blue")[0])
    picture = np.tile(small, (16, 16, 1))
    find_tissue(small, MPP)
    tracemalloc.start()
    try:
        find_tissue(picture, MPP)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    pixels = picture.shape[0] * picture.shape[1]
    assert pixels > 3e6
    assert (peak - 15e6) / pixels < 0.7e9 / 40e6 - 3, "beside the strips that are worked on"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_are_numpys(values: list[int], q: float) -> None:
    assert _quantile(np.bincount(values, minlength=50), q) == pytest.approx(np.quantile(values, q))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=2, max_size=200).filter(lambda v: len(set(v)) > 1))
def test_thresholds_are_otsus_between_floor_and_cap(values: list[int]) -> None:
    counts = np.bincount(values, minlength=256)
    otsu = threshold_otsu(np.array(values, np.uint8))
    found = _threshold(np.arange(256.0), counts, 0.0, 255.0)
    # of equal cuts between two values either library may name any
    assert {v <= otsu for v in values} == {True, False} or otsu in (min(values), max(values))
    assert sorted(v > found for v in values) == sorted(v > otsu for v in values)
    assert _threshold(np.arange(256.0), counts, 10.0, 16.0) == np.clip(found, 10.0, 16.0)


def test_no_values_and_one_value_take_the_cap() -> None:
    assert _threshold(np.arange(5.0), np.zeros(5, int), 1.0, 3.0) == 3.0
    assert _threshold(np.arange(5.0), np.array([0, 0, 9, 0, 0]), 1.0, 3.0) == 3.0


def test_levels_are_what_they_were_as_floats(section: Callable, overview: At8) -> None:
    """White point, colour of the glass and thresholds, computed once more from all pixels as floats."""
    seen = look(overview(section("MFS")[0]), (0.64, 0.64))
    levels = _levels(seen, find_foreign(seen.colour))
    grey, chroma = seen.grey / GREY, seen.chroma / CHROMA
    white = np.percentile(grey, 98)
    density = -np.log10(grey / white)
    cast = np.median(chroma[density < mask.DENSITY_FLOOR / 2])
    assert levels.white == pytest.approx(white, abs=0.01)
    assert levels.coloured / CHROMA == pytest.approx(cast + _look.FAINT, abs=0.02)
    assert levels.chroma / CHROMA == pytest.approx(cast + np.clip(threshold_otsu(chroma - cast), CHROMA_FLOOR, CHROMA_CAP), abs=0.5)
    below = white * 10 ** -np.clip(threshold_otsu(density), mask.DENSITY_FLOOR, mask.DENSITY_CAP)
    assert levels.grey / GREY == pytest.approx(below, rel=0.01)
