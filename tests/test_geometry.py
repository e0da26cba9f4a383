"""Boxes against sets of pixels."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.geometry import Region, Size

regions = st.builds(Region, *[st.integers(-6, 6)] * 2, *[st.integers(-2, 8)] * 2)
sizes = st.builds(Size, st.integers(0, 9), st.integers(0, 9))


def pixels(r: Region) -> set[tuple[int, int]]:
    return {(x, y) for x in range(r.x, r.x1) for y in range(r.y, r.y1)}


@settings(max_examples=200, deadline=None)
@given(regions, regions)
def test_intersect_is_what_lies_in_both(a: Region, b: Region) -> None:
    both = a.intersect(b)
    assert pixels(both) == pixels(a) & pixels(b)
    assert pixels(both) == pixels(b.intersect(a))
    assert both.w >= 0
    assert both.h >= 0
    assert both.is_empty == (not pixels(both))


@settings(max_examples=100, deadline=None)
@given(regions, sizes)
def test_clip_is_what_lies_in_the_image(r: Region, size: Size) -> None:
    inside = r.clip(size)
    assert pixels(inside) == {(x, y) for x, y in pixels(r) if 0 <= x < size.w and 0 <= y < size.h}
    assert inside.clip(size) == inside


def test_ends_are_the_first_pixels_outside() -> None:
    r = Region(3, -4, 10, 20)
    assert (r.x1, r.y1) == (13, 16)
    assert not r.is_empty
    assert Region(3, 4, 0, 5).is_empty
    assert Region(3, 4, 5, -1).is_empty


def test_boxes_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Region(0, 0, 1, 1).x = 5
    assert len({Region(0, 0, 1, 1), Region(0, 0, 1, 1)}) == 1
