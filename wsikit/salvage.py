"""Read around what cannot be decoded: the squares that hold it come out white, and are named so that nothing takes them for glass."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from wsikit.errors import DamagedSlideError
from wsikit.geometry import Region
from wsikit.grid import TileGrid

SQUARE_PX = 64  # of the stored level, from its corner: the least that is given up; a file's own tiles are not known here
WHITE = 255


def read_around(read: Callable[[Region], np.ndarray], window: Region) -> tuple[np.ndarray, list[Region]]:
    """Pixels of a window, uint8 (h, w, 3), and the squares of it that cannot be decoded and are white.

    A window that ``read`` cannot decode is halved until its parts can be, or are one square.
    """
    out = np.full((window.h, window.w, 3), WHITE, np.uint8)
    lost: list[Region] = []
    waiting = [window]
    while waiting:
        box = waiting.pop()
        try:
            pixels = read(box)
        except DamagedSlideError:
            halves = _halves(box)
            waiting += halves
            if not halves:
                lost.append(box)
            continue
        out[box.y - window.y : box.y1 - window.y, box.x - window.x : box.x1 - window.x] = pixels
    return out, sorted(lost, key=lambda r: (r.y, r.x))


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
