"""Outlines: valid polygons in level-0 px that hold exactly the mask's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsikit.overlay.shapes import outlines


@settings(max_examples=120, deadline=None)
@given(
    arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))),
    st.sampled_from([(1.0, 1.0), (16.0, 16.0), (15.7, 31.3)]),
)
def test_the_centres_of_a_masks_pixels_are_inside_and_all_others_outside(mask: np.ndarray, downsample: tuple[float, float]) -> None:
    shape = outlines(mask, downsample)
    assert shape.is_valid
    assert shape.geom_type == "MultiPolygon"
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    inside = shapely.contains_xy(shape, (x + 0.5) * downsample[0], (y + 0.5) * downsample[1])
    assert (inside == mask).all()
    if mask.any():
        assert shape.bounds[0] >= 0
        assert shape.bounds[1] >= 0
        assert shape.bounds[2] <= mask.shape[1] * downsample[0]
        assert shape.bounds[3] <= mask.shape[0] * downsample[1]
    area = mask.sum() * downsample[0] * downsample[1]
    assert 0.499 * area <= shape.area <= area * 2, "a lone pixel is a diamond of half its area"


def test_a_rectangle_is_itself_less_its_corners() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    shape = outlines(mask, (8.0, 4.0))
    assert shape.bounds == (160, 40, 400, 120)
    assert shape.area == pytest.approx((20 * 30 - 0.5) * 32)
    assert len(shape.geoms) == 1
    ring = shape.geoms[0].exterior.coords
    assert ring[0] == ring[-1]


def test_holes_are_cut_out_and_islands_in_them_stay() -> None:
    mask = np.zeros((50, 50), bool)
    mask[5:45, 5:45] = True
    mask[15:35, 15:35] = False
    mask[22:28, 22:28] = True
    shape = outlines(mask, (1.0, 1.0))
    assert [len(g.interiors) for g in sorted(shape.geoms, key=lambda g: -g.area)] == [1, 0]
    assert shape.area == pytest.approx(40 * 40 - 20 * 20 + 6 * 6, abs=2)
    assert not shape.contains(shapely.Point(18, 18))
    assert shape.contains(shapely.Point(25, 25))


def test_tissue_to_the_edge_reaches_the_edge() -> None:
    shape = outlines(np.ones((30, 20), bool), (16.0, 16.0))
    assert shape.bounds == (0, 0, 320, 480)
    assert shape.area == pytest.approx(320 * 480 - 128)


def test_no_mask_is_no_shape() -> None:
    assert outlines(np.zeros((10, 10), bool), (16.0, 16.0)).is_empty
