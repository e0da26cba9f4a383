"""Aperio SVS, Philips and generic tiled TIFF at the speed of the decoder: OpenSlide tells the facts, the tiles are decoded here.

OpenSlide composes every region on an RGBA canvas, which costs most of its time. Here the compressed tiles that a region
covers are decoded straight into place. A file is taken only when its levels are tiled TIFF images and some of the
fullest tiles of each come out exactly as OpenSlide has them; otherwise OpenSlide reads it.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import tifffile

from wsikit.errors import DamagedSlideError, UnsupportedFormatError, WsikitError
from wsikit.geometry import Region
from wsikit.readers import Facts, Reader
from wsikit.readers._said import said
from wsikit.readers._tiles import TiledLevel
from wsikit.readers.openslide import OpenSlideReader
from wsikit.readers.tiff import open_tiff

_VENDORS = ("aperio", "generic-tiff", "philips")
_CHECKED_TILES = 4  # of each level, besides its last one
_SHIFTED = 8.0  # mean grey levels: OpenSlide cannot start on a pixel of a level whose downsample is not whole, so it is off by a part of one


class NativeReader(Reader):
    """Levels of OpenSlide, pixels from the file's own tiles."""

    name: ClassVar[str] = "native"

    @classmethod
    def accepts(cls, path: Path) -> int:
        """85, over OpenSlide, where its pixels are the same."""
        try:
            stat = path.stat()
            return 85 if path.is_file() and _same_pixels(path, stat.st_mtime_ns, stat.st_size) else 0
        except (OSError, ValueError, struct.error, WsikitError):
            return 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = OpenSlideReader(path)
        self._tif: tifffile.TiffFile | None = None
        try:
            self._facts = self._known.facts
            self._tif = open_tiff(path)
            self._levels = _matching(self._tif, self._facts, path)
        except WsikitError:
            self.close()
            raise
        except Exception as e:  # tifffile raises whatever struct or numpy raises
            self.close()
            raise DamagedSlideError(f"{path}: the TIFF's images cannot be listed ({said(e)})") from e

    @property
    def facts(self) -> Facts:
        """What OpenSlide says of the file."""
        return self._facts

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a level: uint8 (h, w, 3); missing tiles are white."""
        assert self._tif is not None
        return self._levels[level].read(self._tif.filehandle.fileno(), Region(x, y, w, h))

    def reopen(self) -> None:
        """A new OpenSlide in place of one that met an error."""
        self._known.close()
        self._known = OpenSlideReader(self._path)

    def associated(self, name: str) -> tuple[np.ndarray, bytes]:
        """Label, macro or thumbnail, as OpenSlide has them."""
        return self._known.associated(name)

    def close(self) -> None:
        """Let go of the file."""
        self._known.close()
        if self._tif is not None:
            self._tif.close()


def _matching(tif: tifffile.TiffFile, facts: Facts, path: Path) -> list[TiledLevel]:
    """The tiled TIFF image of each of OpenSlide's levels.

    Raises
    ------
    UnsupportedFormatError
        A level has none, so it is not an image that is simply there.
    """
    if facts.vendor not in _VENDORS:
        raise UnsupportedFormatError(f"{path}: {facts.vendor} keeps its tiles in ways of its own; OpenSlide reads it")
    tiled = [TiledLevel(path, p) for p in tif.pages if p.is_tiled and p.dtype == np.uint8 and p.samplesperpixel in (3, 4) and p.imagedepth == 1]
    if facts.vendor == "philips":
        return _padded(tiled, facts, path)
    by_size = {page.size: page for page in reversed(tiled)}
    if missing := [lv.size for lv in facts.levels if lv.size not in by_size]:
        raise UnsupportedFormatError(f"{path}: no tiled image of {missing[0].w} × {missing[0].h} px; OpenSlide reads it")
    levels = [by_size[lv.size] for lv in facts.levels]
    if facts.vendor == "aperio" and any(0 in level.sizes() for level in levels):
        raise UnsupportedFormatError(f"{path}: tiles are missing, which OpenSlide fills from other levels")
    return levels


def _padded(tiled: list[TiledLevel], facts: Facts, path: Path) -> list[TiledLevel]:
    """Philips pads each level to whole tiles, so that only their order tells which image is which level's."""
    found = list(zip(tiled, facts.levels, strict=False))
    if len(found) < len(facts.levels) or any(not 0 <= m - n < t for page, lv in found for m, n, t in zip(page.size, lv.size, page.tile, strict=True)):
        raise UnsupportedFormatError(f"{path}: tiled images of {[tuple(t.size) for t in tiled]} px that are not its levels; OpenSlide reads it")
    return [page for page, _ in found]


@lru_cache(maxsize=64)
def _same_pixels(path: Path, _mtime_ns: int, _bytes: int) -> bool:
    """Whether the fullest tiles of each level, and its last one, come out as OpenSlide has them."""
    reader = NativeReader(path)
    try:
        return all(_agrees(reader, level) for level in range(len(reader._levels)))
    finally:
        reader.close()


def _agrees(reader: NativeReader, level: int) -> bool:
    sizes = reader._levels[level].sizes()
    chosen = {*sorted(range(len(sizes)), key=lambda i: -sizes[i])[:_CHECKED_TILES], len(sizes) - 1}
    whole = all(float(d).is_integer() for d in reader.facts.levels[level].downsample)
    seen = 0
    for index in sorted(chosen):
        box = reader._levels[level].region(index).clip(reader.facts.levels[level].size)
        if box.is_empty:
            continue
        try:
            ours, theirs = (r.read(level, box.x, box.y, box.w, box.h).astype(int) for r in (reader, reader._known))
        except DamagedSlideError:  # this one tells nothing; OpenSlide reads nothing more after an error
            reader.reopen()
            continue
        seen += 1
        if whole and (ours != theirs).any():
            return False
        if not whole and np.abs(ours - theirs).mean() > _SHIFTED:
            return False
    return seen > 0


READER = NativeReader
