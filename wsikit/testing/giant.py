"""A slide larger than any scanner makes: a few pieces of tissue on a gigantic piece of glass, written without ever being in memory.

Tiles of glass are left out of the file, as some scanners do, so that 40 gigapixels take no more disk than their tissue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tifffile

from wsikit.resample import shrink
from wsikit.store.codec import encode_jpeg
from wsikit.testing.phantom import DESCRIPTION

PIECE_PX = 8192
_FACTORS = (1, 4, 16, 64)
_TILE = {1: 256, 4: 256, 16: 256, 64: 128}  # a piece is a whole number of tiles at each level


def write_giant(path: Path, piece: np.ndarray, places: Sequence[tuple[int, int]], size: tuple[int, int], mpp: float = 0.25, quality: int = 88) -> None:
    """Write a BigTIFF with levels 1, 4, 16 and 64.

    Parameters
    ----------
    piece : uint8 (8192, 8192, 3), the tissue
    places : columns and rows of pieces, each 8192 px: where it lies
    size : width and height in px, whole multiples of 8192
    """
    resolution = (1e4 / mpp, 1e4 / mpp)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for factor in _FACTORS:
            tile, rgb = _TILE[factor], shrink(piece, factor) if factor > 1 else piece
            shape = (size[1] // factor, size[0] // factor, 3)
            tif.write(
                _tiles(rgb, places, shape, tile, quality),
                shape=shape,
                dtype=np.uint8,
                tile=(tile, tile),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(factor > 1),
                resolution=tuple(r / factor for r in resolution),
                resolutionunit="CENTIMETER",
                description=DESCRIPTION if factor == 1 else None,
                metadata=None,
            )


def _tiles(rgb: np.ndarray, places: Sequence[tuple[int, int]], shape: tuple[int, int, int], tile: int, quality: int) -> Iterator[bytes]:
    """Encoded tiles row by row, empty ones for glass."""
    per_piece = len(rgb) // tile
    encoded = [[encode_jpeg(rgb[y : y + tile, x : x + tile], quality) for x in range(0, len(rgb), tile)] for y in range(0, len(rgb), tile)]
    there = set(places)
    for row in range(-(-shape[0] // tile)):
        for column in range(-(-shape[1] // tile)):
            yield encoded[row % per_piece][column % per_piece] if (column // per_piece, row // per_piece) in there else b""
