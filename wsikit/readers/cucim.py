"""Aperio SVS and generic tiled TIFF decoded by cuCIM (extra ``cucim``), on the GPU where there is one.

Never chosen by itself: nvJPEG's pixels differ from the CPU's by a few grey levels, and a slide's numbers are not to depend on the machine.
``--reader cucim`` asks for it, and results name it. Which file, which levels and what resolution is OpenSlide's to say.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wsikit import threads
from wsikit.errors import DamagedSlideError, UnsupportedFormatError, WsikitError
from wsikit.readers import Facts, Reader
from wsikit.readers._said import said
from wsikit.readers.openslide import OpenSlideReader
from wsikit.readers.tiff import open_tiff

if find_spec("cucim") is None:
    raise ImportError("cucim is not installed")
_VENDORS = ("aperio", "generic-tiff")
_CODECS = (7, 33003, 33005)  # JPEG, JPEG 2000 as Aperio has it; of others it complains on the terminal
_UNASKED = 1  # below every other reader


class CucimReader(Reader):
    """Levels of OpenSlide, pixels by cuCIM."""

    name: ClassVar[str] = "cucim"

    @classmethod
    def accepts(cls, path: Path) -> int:
        """1, after all others, where it can read the file; cuCIM itself does not look at it."""
        try:
            _facts_of(path)
        except (OSError, ValueError, WsikitError):
            return 0
        return _UNASKED

    def __init__(self, path: Path) -> None:
        self._path, self._facts = path, _facts_of(path)
        try:
            from cucim.clara import CuImage

            self._image: Any = CuImage(str(path))
            sizes = self._image.resolutions["level_dimensions"]
        except Exception as e:  # whatever its C++ side raises
            raise UnsupportedFormatError(f"{path}: cuCIM cannot open it ({said(e)})") from e
        if [tuple(lv.size) for lv in self._facts.levels] != [tuple(size) for size in sizes]:
            raise UnsupportedFormatError(f"{path}: cuCIM sees other levels than OpenSlide")

    @property
    def facts(self) -> Facts:
        """What OpenSlide says of the file."""
        return self._facts

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a level: uint8 (h, w, 3); missing tiles are white."""
        down = self._facts.levels[level].downsample
        corner = (round(x * down[0]), round(y * down[1]))
        try:
            found = self._image.read_region(location=corner, size=(w, h), level=level, device=_device(), num_workers=threads.count())
            pixels = np.asarray(found) if _device() == "cpu" else _fetched(found)
        except Exception as e:
            raise DamagedSlideError(f"{self._path}: cuCIM cannot read {w} × {h} px at ({x}, {y}) of level {level} ({said(e)}); leave out --reader cucim") from e
        if pixels.shape[:2] != (h, w):
            raise DamagedSlideError(f"{self._path}: cuCIM gave {pixels.shape} for {w} × {h} px at ({x}, {y}) of level {level}; leave out --reader cucim")
        return np.array(pixels[..., :3], np.uint8)

    def close(self) -> None:
        """Let go of the file."""
        self._image = None


def _facts_of(path: Path) -> Facts:
    """What OpenSlide says of a file that cuCIM reads rightly.

    Raises
    ------
    UnsupportedFormatError
        It is another kind of file.
    """
    known = OpenSlideReader(path)
    facts = known.facts
    known.close()
    if facts.vendor not in _VENDORS:
        raise UnsupportedFormatError(f"{path}: cuCIM is asked for Aperio SVS and generic tiled TIFF only, this is {facts.vendor}")
    if not all(float(d).is_integer() for lv in facts.levels for d in lv.downsample):
        raise UnsupportedFormatError(f"{path}: cuCIM takes places in level-0 px and misses by one where levels are not whole fractions")
    with open_tiff(path) as tif:
        if not all(p.compression in _CODECS and p.planarconfig == 1 for p in tif.pages if p.is_tiled):
            raise UnsupportedFormatError(f"{path}: cuCIM is asked for tiles in JPEG and JPEG 2000 only")
    return facts


@cache
def _device() -> str:
    try:
        import cupy

        return "cuda" if cupy.cuda.runtime.getDeviceCount() else "cpu"
    except Exception:  # no cupy, no driver
        return "cpu"


def _fetched(region: Any) -> np.ndarray:
    import cupy

    return np.asarray(cupy.asnumpy(cupy.asarray(region)))


READER = CucimReader
