"""An uncompressed TIFF in strips, often one strip for all of it, as ImageJ writes them: rows are read where they lie, nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.errors import DamagedSlideError
from wsikit.geometry import Region
from wsikit.location import ReadAt
from wsikit.readers._tiles import TiledLevel

_PLAIN = (1, 1, 1)  # no compression, no predictor, bits in their usual order


class RawStrips(TiledLevel):
    """A page whose numbers lie in the file as they are, row after row."""

    def __init__(self, path: Path, page: Any, samples: int | None = None) -> None:
        """Look at the page's layout.

        Raises
        ------
        DamagedSlideError
            Its strips cannot make up an image of its size.
        """
        super().__init__(path, page, samples)
        self._stored = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        self._in_row = page.samplesperpixel if self._planes == 1 else 1
        self._row_bytes = self.size.w * self._in_row * self._stored.itemsize

    @staticmethod
    def suits(page: Any) -> bool:
        """Whether a page is one of these."""
        plain = (page.compression, page.predictor, page.fillorder) == _PLAIN
        return plain and not page.is_tiled and page.dtype is not None and page.bitspersample == page.dtype.itemsize * 8

    def read(self, fd: int | ReadAt, box: Region) -> np.ndarray:
        """Pixels of a box inside the level, as a `TiledLevel` gives them.

        Raises
        ------
        DamagedSlideError
            A strip is cut off.
        """
        out = np.full((box.h, box.w, self._depth), self._fill, self._dtype)
        for strip in range(box.y // self.tile.h, -(-box.y1 // self.tile.h)):
            rows = Region(0, strip * self.tile.h, self.size.w, self.tile.h).clip(self.size).intersect(box)
            for plane in range(min(self._planes, self._depth)):
                found = self._rows(fd, plane * self.down + strip, rows.y - strip * self.tile.h, rows.h)
                if found is not None:
                    colours = slice(plane, plane + 1) if self._planes > 1 else slice(self._depth)
                    out[rows.y - box.y : rows.y1 - box.y, :, colours] = self._on_white(found[:, box.x : box.x1])[..., : self._depth]
        return out

    def _rows(self, fd: int | ReadAt, index: int, first: int, count: int) -> np.ndarray | None:
        """Some rows of a strip: (count, w, samples); None where the strip is not there."""
        offset, stored = self._page.dataoffsets[index], self._page.databytecounts[index]
        if offset == 0 or stored == 0:
            return None
        start, n = first * self._row_bytes, count * self._row_bytes
        where = f"{self._path}: level of {self.size.w} × {self.size.h} px, strip {index}"
        if start + n > stored or offset >= 2**62:
            raise DamagedSlideError(f"{where} has {stored} bytes from byte {offset} and not the {start + n} of its rows; the file is damaged")
        data = os.pread(fd, n, offset + start) if isinstance(fd, int) else fd(offset + start, n)
        if len(data) != n:
            raise DamagedSlideError(f"{where} is cut off; the file is truncated")
        return np.frombuffer(data, self._stored).reshape(count, self.size.w, self._in_row).astype(self._stored.newbyteorder("="))
