"""Masks grown and sorted by size against scipy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage as ndi
from skimage.morphology import remove_small_objects

from wsikit.tissue import _parts
from wsikit.tissue._parts import grown, shrunk, small, strips

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 16), st.integers(1, 16)))


@settings(max_examples=60, deadline=None)
@given(MASKS, st.integers(0, 3))
def test_growing_and_shrinking_are_scipys(mask: np.ndarray, steps: int) -> None:
    before = mask.copy()
    dilated = ndi.binary_dilation(mask, iterations=steps) if steps else mask
    eroded = ndi.binary_erosion(mask, iterations=steps, border_value=1) if steps else mask
    assert np.array_equal(grown(mask, steps), dilated)
    assert np.array_equal(shrunk(mask, steps), eroded)
    assert np.array_equal(mask, before)


@settings(max_examples=60, deadline=None)
@given(MASKS, st.integers(0, 12), st.integers(1, 40))
def test_small_parts_are_those_that_scikit_image_removes(mask: np.ndarray, most: int, strip: int) -> None:
    before = _parts._STRIP_PX
    _parts._STRIP_PX = strip
    try:
        found = small(mask, most)
    finally:
        _parts._STRIP_PX = before
    assert np.array_equal(mask & ~found, remove_small_objects(mask, max_size=most) if mask.any() else mask)
    assert not (found & ~mask).any()


def test_parts_with_too_few_marked_pixels_go_as_well() -> None:
    mask, marked = np.zeros((10, 30), bool), np.zeros((10, 30), bool)
    mask[2:6, 2:7], mask[2:6, 10:15], mask[2:6, 20:25] = True, True, True
    marked[2, 2:6] = True  # 4 of 20
    marked[2, 10:13] = True  # 3 of 20
    marked[9] = True
    found = small(mask, 0, marked, 0.2)
    assert [bool(found[3, x]) for x in (4, 12, 22)] == [False, True, True]


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (7, 3), (3, 2**21), (4000, 1000)])
def test_strips_are_all_rows_once(shape: tuple[int, int]) -> None:
    rows = [y for part in strips(shape) for y in range(part.start, part.stop)]
    assert rows == list(range(shape[0]))
    assert all((s.stop - s.start) * shape[1] <= max(2**20, shape[1]) for s in strips(shape))
