"""Where things are: sizes, boxes and levels in level-0 pixels, unless the name says otherwise.

x runs right, y runs down, the origin is the corner of the first pixel; boxes are half-open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class Size(NamedTuple):
    """A width and a height."""

    w: int
    h: int


@dataclass(frozen=True, slots=True)
class Region:
    """A half-open box ``[x, x + w) × [y, y + h)`` in level-0 px.

    >>> Region(0, 0, 10, 10).clip(Size(6, 20))
    Region(x=0, y=0, w=6, h=10)
    """

    x: int
    y: int
    w: int
    h: int

    @property
    def x1(self) -> int:
        """First column right of the box."""
        return self.x + self.w

    @property
    def y1(self) -> int:
        """First row below the box."""
        return self.y + self.h

    @property
    def is_empty(self) -> bool:
        """Whether the box holds no pixel."""
        return self.w <= 0 or self.h <= 0

    def intersect(self, other: Region) -> Region:
        """The part that lies in both boxes; empty (w or h of 0) when they do not meet."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        w, h = min(self.x1, other.x1) - x, min(self.y1, other.y1) - y
        return Region(x, y, max(w, 0), max(h, 0))

    def clip(self, size: Size) -> Region:
        """The part inside an image of this size."""
        return self.intersect(Region(0, 0, size.w, size.h))


@dataclass(frozen=True, slots=True)
class Level:
    """One stored resolution of a slide.

    ``downsample`` is level-0 px per pixel of this level, x and y apart, from the real sizes: pyramids
    with odd sizes have 4.016, never 2^k.
    """

    index: int
    size: Size
    downsample: tuple[float, float]

    def to_level0(self, region: Region) -> Region:
        """The box in level-0 px that a box of this level covers, rounded outwards.

        >>> Level(1, Size(25, 25), (4.016, 4.0)).to_level0(Region(1, 1, 2, 2))
        Region(x=4, y=4, w=9, h=8)
        """
        dx, dy = self.downsample
        x, y = math.floor(region.x * dx), math.floor(region.y * dy)
        return Region(x, y, math.ceil(region.x1 * dx) - x, math.ceil(region.y1 * dy) - y)
