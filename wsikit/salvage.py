"""Read around what cannot be decoded: the squares that hold it come out white, and are named so that nothing takes them for glass."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from wsikit.errors import DamagedSlideError
from wsikit.geometry import Region
from wsikit.grid import TileGrid
from wsikit.slide import Slide

SQUARE_PX = 256  # of the stored level, from its corner: the least that is given up
WHITE = 255


def read_around(slide: Slide, level: int, window: Region) -> tuple[np.ndarray, list[Region]]:
    """Pixels of a stored level, uint8 (h, w, 3), and the squares of it, in level-0 px, that cannot be decoded and are white.

    A window that cannot be read is halved until its parts can, or are one square.

    Raises
    ------
    RegionError
        The window is too large to hold.
    """
    out = np.full((window.h, window.w, 3), WHITE, np.uint8)
    lost: list[Region] = []
    waiting = [window]
    while waiting:
        box = waiting.pop()
        try:
            pixels = slide.read_level(level, box)
        except DamagedSlideError:
            halves = _halves(box)
            waiting += halves
            if not halves:
                lost.append(_level0(slide, level, box))
            continue
        out[box.y - window.y : box.y1 - window.y, box.x - window.x : box.x1 - window.x] = pixels
    return out, sorted((r for r in lost if not r.is_empty), key=lambda r: (r.y, r.x))


def _halves(box: Region) -> list[Region]:
    """A box cut across its longer side between squares; nothing when it lies in one of them."""
    for side in sorted("wh", key=lambda s: -getattr(box, s)):
        start = box.x if side == "w" else box.y
        length = box.w if side == "w" else box.h
        first, last = start // SQUARE_PX + 1, (start + length - 1) // SQUARE_PX
        if first > last:
            continue
        at = (first + last + 1) // 2 * SQUARE_PX - start
        if side == "w":
            return [Region(box.x, box.y, at, box.h), Region(box.x + at, box.y, box.w - at, box.h)]
        return [Region(box.x, box.y, box.w, at), Region(box.x, box.y + at, box.w, box.h - at)]
    return []


def _level0(slide: Slide, level: int, box: Region) -> Region:
    dx, dy = slide.levels[level].downsample
    x, y, x1, y1 = math.floor(box.x * dx), math.floor(box.y * dy), math.ceil(box.x1 * dx), math.ceil(box.y1 * dy)
    return Region(x, y, x1 - x, y1 - y).clip(slide.size)


def touching(grid: TileGrid, cells: np.ndarray, lost: Iterable[Region]) -> np.ndarray:
    """Which tiles have a pixel in one of these boxes (level-0 px)? bool (N,)"""
    start = grid.corners_px(cells) * np.array(grid.raster.downsample)
    end = start + np.array(grid.tile_size)
    out = np.zeros(len(cells), bool)
    for box in lost:
        out |= (start[:, 0] < box.x1) & (end[:, 0] > box.x) & (start[:, 1] < box.y1) & (end[:, 1] > box.y)
    return out


def without_cells(mask: np.ndarray, downsample: tuple[float, float], grid: TileGrid, cells: np.ndarray) -> np.ndarray:
    """A mask, bool (H, W), a pixel covering ``downsample`` level-0 px (x, y), without the cells (N, 2) of a grid."""
    out = mask.copy()
    scale = np.array(grid.raster.downsample) * grid.stride_px / np.array(downsample)
    for (x, y), (x1, y1) in zip(np.floor(cells * scale).astype(int).tolist(), np.ceil((cells + 1) * scale).astype(int).tolist(), strict=True):
        out[y:y1, x:x1] = False
    return out
