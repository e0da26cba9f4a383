"""Tiles that a file has no bytes of: glass that the scanner left out, or tissue that was lost?

Readers show both as white. The low-power picture tells them apart: tissue is missing where it has tissue (a coarser level still has it), or where
tissue is all around the gap (there is no coarser level, or the gap is in it).
"""

from __future__ import annotations

import numpy as np

from wsikit.errors import DamagedSlideError
from wsikit.geometry import Region, Size
from wsikit.readers._container import missing_tiles
from wsikit.slide import Slide
from wsikit.survey import Survey

INSIDE, AROUND = 0.25, 0.5  # shares of tissue in a gap, and on the rim of it


def check_missing(slide: Slide, found: Survey) -> None:
    """Are all tiles that the file has no bytes of glass?

    Raises
    ------
    DamagedSlideError
        No, tissue is missing; the message says how much and where.
    """
    boxes = np.array([_at_level_0(slide.size, size, tile) for size, tile in missing_tiles(slide.path)], np.int64).reshape(-1, 4)
    lost = boxes[_in_tissue(boxes, found.mask.tissue, found.raster.downsample)]
    if len(lost):
        at = Region(*lost[0].tolist())
        raise DamagedSlideError(
            f"{slide.path}: {len(lost)} tiles in the tissue are missing from the file, the first of {at.w} × {at.h} px at x {at.x}, y {at.y} of level 0; "
            "copy the slide again from the scanner"
        )


def _at_level_0(full: Size, level: Size, tile: Region) -> tuple[int, int, int, int]:
    """x, y, w, h."""
    sx, sy = full.w / level.w, full.h / level.h
    return round(tile.x * sx), round(tile.y * sy), max(1, round(tile.w * sx)), max(1, round(tile.h * sy))


def _in_tissue(boxes: np.ndarray, tissue: np.ndarray, downsample: tuple[float, float]) -> np.ndarray:
    """Which boxes (N, 4) of level-0 px miss tissue of the mask: bool (N,). By sums over rectangles, for a sparse slide lacks a million tiles."""
    sums = np.pad(tissue.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    limit = np.array(tissue.shape[::-1])
    start = np.clip((low / downsample).astype(np.int64), 0, limit)
    stop = np.clip(np.ceil(high / downsample).astype(np.int64), start, limit)

    def count(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (x0, y0), (x1, y1) = a.T, b.T
        return sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0], (b - a).prod(1)

    inside, size = count(start, stop)
    rim, rim_size = count(np.maximum(start - 2, 0), np.minimum(stop + 2, limit))
    around = (rim - inside) / np.maximum(1, rim_size - size)
    return np.asarray((size > 0) & ((inside >= INSIDE * size) | (around >= AROUND)))
