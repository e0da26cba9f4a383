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
    lost = [box for size, tile in missing_tiles(slide.path) if (box := _lost(slide.size, size, tile, found))]
    if lost:
        at = lost[0]
        raise DamagedSlideError(
            f"{slide.path}: {len(lost)} tiles in the tissue are missing from the file, the first of {at.w} × {at.h} px at x {at.x}, y {at.y} of level 0; "
            "copy the slide again from the scanner"
        )


def _lost(full: Size, level: Size, tile: Region, found: Survey) -> Region | None:
    """The tile in level-0 px, where tissue is missing with it."""
    sx, sy = full.w / level.w, full.h / level.h
    box = Region(round(tile.x * sx), round(tile.y * sy), max(1, round(tile.w * sx)), max(1, round(tile.h * sy)))
    (dx, dy), tissue = found.raster.downsample, found.mask.tissue
    y, x = (slice(max(0, int(a / d)), int(np.ceil(b / d))) for a, b, d in ((box.y, box.y1, dy), (box.x, box.x1, dx)))
    inside = tissue[y, x]
    rim = tissue[max(0, y.start - 2) : y.stop + 2, max(0, x.start - 2) : x.stop + 2]
    around = (rim.sum() - inside.sum()) / max(1, rim.size - inside.size)
    return box if inside.size and (inside.mean() >= INSIDE or around >= AROUND) else None
