"""One image of a TIFF file by its own compressed tiles (or strips): each is decoded once, by several threads, into place."""

from __future__ import annotations

import math
import os
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from wsikit import threads
from wsikit.errors import DamagedSlideError
from wsikit.geometry import Region, Size
from wsikit.location import ReadAt
from wsikit.readers._said import said
from wsikit.readers.image import decode_jpeg, jpeg_is_whole, jpeg_size

_MAX_SEGMENT_BYTES = 256 * 1024**2
_JPEG, _RGB, _YCBCR = 7, 2, 6  # TIFF Compression, PhotometricInterpretation
_PREMULTIPLIED, _ALPHA = 1, 2  # TIFF ExtraSamples
WHITE = 255


class TiledLevel:
    """A tifffile page as a source of pixels: uint8, RGB or RGBA, its colours together or in planes; or of ``samples`` numbers as stored."""

    def __init__(self, path: Path, page: Any, samples: int | None = None) -> None:
        """Look at the page's layout.

        Raises
        ------
        DamagedSlideError
            Its tiles cannot make up an image of its size.
        """
        self._path, self._page = path, page
        self._depth, self._fill = (3, WHITE) if samples is None else (samples, 0)
        self._dtype: np.dtype = np.dtype(np.uint8 if samples is None else page.dtype)
        size = (page.imagewidth, page.imagelength)
        tile = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
        if not all(isinstance(side, int) and side > 0 for side in (*size, *tile)):
            raise DamagedSlideError(f"{path}: an image of {size[0]} × {size[1]} px in tiles of {tile[0]} × {tile[1]}; the file is damaged")
        self.size = Size(*size)
        self.tile = Size(*tile) if page.is_tiled else Size(*map(min, size, tile))
        self.across, self.down = math.ceil(self.size.w / self.tile.w), math.ceil(self.size.h / self.tile.h)
        self._planes = page.samplesperpixel if page.planarconfig == 2 else 1
        expected = self.across * self.down * self._planes
        if not expected == len(page.dataoffsets) == len(page.databytecounts):
            raise DamagedSlideError(
                f"{path}: an image of {self.size.w} × {self.size.h} px needs {expected} tiles, the file lists {len(page.dataoffsets)}; it is damaged"
            )

    def sizes(self) -> tuple[int, ...]:
        """Compressed bytes of each tile; 0 where the file has none."""
        return tuple(self._page.databytecounts)

    def region(self, index: int) -> Region:
        """Which pixels of the level a tile of the first plane holds."""
        row, column = divmod(index, self.across)
        return Region(column * self.tile.w, row * self.tile.h, self.tile.w, self.tile.h).clip(self.size)

    def read(self, fd: int | ReadAt, box: Region) -> np.ndarray:
        """Pixels of a box inside the level: uint8 (h, w, 3), white where tiles are missing; or stored numbers (h, w, samples), 0 there.

        Raises
        ------
        DamagedSlideError
            A tile is cut off or cannot be decoded.
        """
        out = np.empty((box.h, box.w, self._depth), self._dtype)
        (tw, th) = self.tile
        rows = range(box.y // th, min(-(-box.y1 // th), self.down))
        columns = range(box.x // tw, min(-(-box.x1 // tw), self.across))

        def fill(where: tuple[int, int, int]) -> None:
            row, column, plane = where
            tile = self._decode(fd, (plane * self.down + row) * self.across + column)
            at, colours = Region(column * tw, row * th, tw, th).clip(self.size), slice(plane, plane + 1) if self._planes > 1 else slice(self._depth)
            if tile is None or tile.shape[0] < at.h or tile.shape[1] < at.w:
                _target(out, box, at)[..., colours] = self._fill
            if tile is not None:
                _paste(out, box, tile, at, colours)

        threads.each(fill, product(rows, columns, range(min(self._planes, self._depth))))
        return out

    def _decode(self, fd: int | ReadAt, index: int) -> np.ndarray | None:
        page = self._page
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if count == 0 or offset == 0:
            return None
        where = f"{self._path}: level of {self.size.w} × {self.size.h} px, tile {index}"
        if count > _MAX_SEGMENT_BYTES or offset >= 2**62:
            raise DamagedSlideError(f"{where} claims {count} bytes from byte {offset}; the file is damaged")
        data = os.pread(fd, count, offset) if isinstance(fd, int) else fd(offset, count)
        if len(data) != count:
            raise DamagedSlideError(f"{where} is cut off; the file is truncated")
        if page.compression == _JPEG:
            self._check_jpeg(data, index, where)
        try:
            if self._is_plain_jpeg:
                return decode_jpeg(data, page.jpegtables, rgb=page.photometric == _RGB)
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
        except Exception as e:  # a codec's own exception classes
            raise DamagedSlideError(f"{where} cannot be decoded ({said(e)}); copy the slide again from the scanner") from e
        return None if decoded is None else self._on_white(np.asarray(decoded[0]))

    @cached_property
    def _is_plain_jpeg(self) -> bool:
        """Whether its tiles are JPEGs of 8-bit RGB or YCbCr, as nearly all are."""
        page = self._page
        plain = page.compression == _JPEG and page.photometric in (_RGB, _YCBCR) and page.samplesperpixel == 3 == self._depth
        return plain and page.dtype == np.uint8 and page.planarconfig == 1 and page.bitspersample == 8

    def _check_jpeg(self, data: bytes, index: int, where: str) -> None:
        """Refuse what the decoder would make up silently: the rest of a JPEG that stops early, or one of another size."""
        w, h = jpeg_size(data)
        seen = self.region(index % (self.across * self.down))
        if w and not (seen.w <= w <= self.tile.w and seen.h <= h <= self.tile.h):
            raise DamagedSlideError(f"{where} holds {w} × {h} px and not {self.tile.w} × {self.tile.h}; the file is damaged")
        if w and not jpeg_is_whole(data):
            raise DamagedSlideError(f"{where} stops early; copy the slide again from the scanner")

    def _on_white(self, tile: np.ndarray) -> np.ndarray:
        """A tile with its transparency, if it has any, laid over white."""
        kind = next(iter(self._page.extrasamples), 0)
        if tile.shape[-1] != 4 or kind not in (_PREMULTIPLIED, _ALPHA):
            return tile
        rgb, a = tile[..., :3].astype(np.uint16), tile[..., 3:].astype(np.uint16)
        colour = rgb * a if kind == _ALPHA else np.minimum(rgb, a) * 255
        return ((colour + 255 * (255 - a) + 127) // 255).astype(np.uint8)


def _target(out: np.ndarray, box: Region, part: Region) -> np.ndarray:
    part = part.intersect(box)
    return out[part.y - box.y : part.y1 - box.y, part.x - box.x : part.x1 - box.x]


def _paste(out: np.ndarray, box: Region, tile: np.ndarray, at: Region, colours: slice) -> None:
    part = Region(at.x, at.y, min(at.w, tile.shape[1]), min(at.h, tile.shape[0])).intersect(box)
    if not part.is_empty:
        source = tile[part.y - at.y : part.y1 - at.y, part.x - at.x : part.x1 - at.x]
        _target(out, box, part)[..., colours] = source[..., : colours.stop - (colours.start or 0)]
