"""A slide that is already in memory, for tests, phantoms and notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from wsikit.errors import UnsupportedFormatError
from wsikit.geometry import Level, Size
from wsikit.readers import Facts, Reader
from wsikit.readers._said import said
from wsikit.resample import resample, source_span


class ArrayReader(Reader):
    """Pixels of an ``.npy`` file (uint8 (H, W, 3)) with a pyramid by twos made as it is read."""

    name: ClassVar[str] = "array"

    @classmethod
    def accepts(cls, path: Path) -> int:
        """60 for NumPy files."""
        return 60 if path.suffix == ".npy" and path.is_file() else 0

    def __init__(self, path: Path) -> None:
        try:
            self._image = np.lib.format.open_memmap(path, mode="r")
        except Exception as e:  # NumPy raises whatever its parser of the header does
            raise UnsupportedFormatError(f"{path}: not an array file, or cut off ({said(e)})") from e
        if self._image.dtype != np.uint8 or self._image.ndim != 3 or self._image.shape[2] != 3 or not self._image.size:
            raise UnsupportedFormatError(f"{path}: an array of {self._image.dtype} {self._image.shape}; needed is uint8 (H, W, 3)")

    @property
    def facts(self) -> Facts:
        """Levels by twos down to 512 px, as far as both sides last."""
        h, w = self._image.shape[:2]
        levels = [Level(0, Size(w, h), (1.0, 1.0))]
        while max(levels[-1].size) > 512 and min(levels[-1].size) >= 2:
            f = 2 ** len(levels)
            levels.append(Level(len(levels), Size(w // f, h // f), (float(f), float(f))))
        return Facts(vendor="array", levels=tuple(levels))

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a level: uint8 (h, w, 3)."""
        f = 2**level
        (x0, x1), (y0, y1) = source_span(x, w, f), source_span(y, h, f)
        return resample(np.array(self._image[y0:y1, x0:x1]), (x, y), (w, h), (f, f))

    def close(self) -> None:
        """Nothing is held beyond the map."""


READER = ArrayReader
