"""TIFF files by their own compressed tiles: OME-TIFF, and RGB TIFFs that OpenSlide does not take."""

from __future__ import annotations

import math
import os
import struct
import xml.etree.ElementTree as ET  # entities, its one danger, are refused below
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tifffile

from wsikit.errors import DamagedSlideError, UnsupportedFormatError
from wsikit.geometry import Level, Region, Size
from wsikit.readers import Facts, Reader
from wsikit.readers._tiles import TiledLevel
from wsikit.resolution import Clue, parse_number

_MAX_DIRECTORIES = 1000
_UNIT_UM = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "in": 25400.0}
_RESOLUTION_UM = {2: 25400.0, 3: 10000.0}  # TIFF ResolutionUnit: inch, centimetre
_RGB, _YCBCR = 2, 6  # TIFF PhotometricInterpretation
_GIVES_RGB = (7, 50001)  # JPEG and WebP are decoded to RGB whatever they keep
_APERIO_YCBCR = 33003  # JPEG 2000 that says RGB and keeps YCbCr


def directory_offsets(path: Path) -> list[int]:
    """Where are the image directories (IFDs) of a TIFF? Their byte offsets, in order.

    Raises
    ------
    UnsupportedFormatError
        The file is not a TIFF.
    DamagedSlideError
        The chain runs in a circle (on which tifffile would hang), out of the file, or is absurdly long.
    """
    if not path.is_file():
        raise UnsupportedFormatError(f"{path}: not a TIFF but a folder")
    with path.open("rb") as f:
        head = f.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) == 16 else 0
        if version not in (42, 43):
            raise UnsupportedFormatError(f"{path}: not a TIFF")
        big = version == 43
        count, entry, pointer = (("Q", 20, "Q"), ("H", 12, "I"))[not big]
        start = head[8:16] if big else head[4:8]
        offset = struct.unpack(order + pointer, start)[0]
        size, seen = os.fstat(f.fileno()).st_size, list[int]()
        while offset:
            if offset in seen or offset >= size or len(seen) >= _MAX_DIRECTORIES:
                raise DamagedSlideError(f"{path}: image directory {len(seen)} points to byte {offset}, which cannot be; the file is damaged")
            seen.append(offset)
            f.seek(offset)
            n = _unpack(f.read(struct.calcsize(count)), order + count, path)
            if n * entry > size:
                raise DamagedSlideError(f"{path}: image directory {len(seen) - 1} claims {n} entries; the file is damaged")
            f.seek(n * entry, os.SEEK_CUR)
            offset = _unpack(f.read(struct.calcsize(pointer)), order + pointer, path)
    return seen


def _unpack(data: bytes, fmt: str, path: Path) -> int:
    if len(data) < struct.calcsize(fmt):
        raise DamagedSlideError(f"{path}: an image directory is cut off; the file is truncated")
    return int(struct.unpack(fmt, data)[0])


def open_tiff(path: Path) -> tifffile.TiffFile:
    """The file, its directories checked first.

    Raises
    ------
    UnsupportedFormatError, DamagedSlideError
        It is not a TIFF, or a broken one.
    """
    if not directory_offsets(path):
        raise DamagedSlideError(f"{path}: a TIFF without any image")
    try:
        return tifffile.TiffFile(path)
    except Exception as e:  # tifffile raises whatever struct, numpy or a codec raises
        raise DamagedSlideError(f"{path}: the TIFF cannot be opened ({e})") from e


class TiffReader(Reader):
    """Levels of the first image; a region is put together from the tiles (or strips) it covers."""

    name: ClassVar[str] = "tiff"

    @classmethod
    def accepts(cls, path: Path) -> int:
        """90 for OME-TIFF (OpenSlide sees neither its pyramid nor its mpp), 20 for other TIFFs."""
        try:
            with open_tiff(path) as tif:
                return 90 if tif.is_ome else 20
        except (OSError, ValueError, struct.error):
            return 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tif = open_tiff(path)
        try:
            series = self._tif.series[0]
            self._pages = [level.keyframe for level in series.levels]
            self._levels = [TiledLevel(path, page) for page in self._pages]
            _require_pyramid([level.size for level in self._levels], path)
        except DamagedSlideError:
            self.close()
            raise
        except Exception as e:
            self.close()
            raise DamagedSlideError(f"{path}: the TIFF's images cannot be listed ({e})") from e
        try:
            _require_rgb(series, path)
        except UnsupportedFormatError:
            self.close()
            raise

    @property
    def facts(self) -> Facts:
        """Levels with their real downsamples, and the OME physical size or TIFF resolution."""
        full = self._levels[0].size
        levels = tuple(Level(i, s, (full.w / s.w, full.h / s.h)) for i, s in enumerate(v.size for v in self._levels))
        page = self._pages[0]
        clues: tuple[Clue, ...] = ()
        if self._tif.is_ome:
            clues = _ome_clues(self._tif.ome_metadata or "", self._path)
        properties = {"wsikit.phantom": "1"} if str(page.description).startswith("wsikit phantom") else {}
        return Facts(
            vendor="ome-tiff" if self._tif.is_ome else "tiff",
            levels=levels,
            clues=clues or _resolution_clues(page),
            has_icc=34675 in page.tags,
            properties=properties,
        )

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a level: uint8 (h, w, 3); missing tiles are white."""
        return self._levels[level].read(self._tif.filehandle.fileno(), Region(x, y, w, h))

    def close(self) -> None:
        """Let go of the file."""
        self._tif.close()


def _require_rgb(series: Any, path: Path) -> None:
    page = series.keyframe
    if page.dtype != np.uint8 or page.samplesperpixel not in (3, 4) or series.size != page.size or not _is_coloured(page):
        what = f"{series.axes} {tuple(series.shape)} {page.dtype}, {getattr(page.photometric, 'name', page.photometric)}"
        raise UnsupportedFormatError(f"{path}: not a brightfield RGB image but {what} (multi-channel or fluorescence?); H&E slides are 8-bit RGB")


def _require_pyramid(sizes: list[Size], path: Path) -> None:
    """Each level is smaller than the one before, and shows the same picture: its sides agree, to a pixel or 1 %, on the downsample."""
    for i, (before, size) in enumerate(pairwise(sizes), 1):
        scales = [(n / (1.01 * s + 1), n / (0.99 * s - 1) if s > 2 else math.inf) for n, s in zip(sizes[0], size, strict=True)]
        if size.w > before.w or size.h > before.h or size == before or max(s[0] for s in scales) > min(s[1] for s in scales):
            raise DamagedSlideError(f"{path}: level {i} of {size.w} × {size.h} px is no smaller picture of {sizes[0].w} × {sizes[0].h} px")


def _is_coloured(page: Any) -> bool:
    """Whether the samples come out as red, green and blue: CMYK and CIELab do not, nor YCbCr outside of JPEG."""
    if page.photometric == _YCBCR:
        return page.compression in _GIVES_RGB and page.planarconfig == 1
    return page.photometric == _RGB and page.compression != _APERIO_YCBCR


def _ome_clues(xml: str, path: Path) -> tuple[Clue, ...]:
    if "<!ENTITY" in xml or "<!DOCTYPE" in xml:
        raise DamagedSlideError(f"{path}: the OME-XML declares entities, which OME-TIFF does not use")
    try:
        pixels = next((e for e in ET.fromstring(xml).iter() if e.tag.endswith("}Pixels")), None)  # noqa: S314
    except ET.ParseError as e:
        raise DamagedSlideError(f"{path}: the OME-XML cannot be parsed ({e})") from e
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return ()
    values = []
    for axis in "XY":
        stated = axis if f"PhysicalSize{axis}" in pixels.attrib else "X"
        size = parse_number(pixels.get(f"PhysicalSize{stated}"))
        values.append((size or 0.0) * _UNIT_UM.get(pixels.get(f"PhysicalSize{stated}Unit", "µm"), 0.0))
    return (Clue("file metadata", values[0], values[1]),)


def _resolution_clues(page: Any) -> tuple[Clue, ...]:
    stated = page.tags.valueof("ResolutionUnit", default=1)
    unit = _RESOLUTION_UM.get(stated) if isinstance(stated, int) else None
    values = [page.tags.valueof(name) for name in ("XResolution", "YResolution")]
    if unit is None or None in values:
        return ()
    per_unit = [_ratio(v) for v in values]
    return (Clue("tiff resolution", *(unit / v if v else 0.0 for v in per_unit)),)


def _ratio(value: Any) -> float:
    """A TIFF rational as a number; 0 where it is none."""
    match value:
        case (int(a), int(b)) if b:
            return a / b
        case int() | float():
            return float(value)
    return 0.0


READER = TiffReader
