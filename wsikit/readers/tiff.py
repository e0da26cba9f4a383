"""TIFF files by their own compressed tiles: OME-TIFF, and RGB TIFFs that OpenSlide does not take."""

from __future__ import annotations

import math
import os
import struct
import xml.etree.ElementTree as ET  # entities, its one danger, are refused below
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tifffile

from wsikit.errors import DamagedSlideError, UnsupportedFormatError
from wsikit.geometry import Level, Region, Size
from wsikit.readers import Facts, Reader
from wsikit.resolution import Clue

_MAX_DIRECTORIES = 1000
_MAX_SEGMENT_BYTES = 256 * 1024**2
_UNIT_UM = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "in": 25400.0}
_RESOLUTION_UM = {2: 25400.0, 3: 10000.0}  # TIFF ResolutionUnit: inch, centimetre


def directory_offsets(path: Path) -> list[int]:
    """Where are the image directories (IFDs) of a TIFF? Their byte offsets, in order.

    Raises
    ------
    UnsupportedFormatError
        The file is not a TIFF.
    DamagedSlideError
        The chain runs in a circle (on which tifffile would hang), out of the file, or is absurdly long.
    """
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
            f.seek(n * entry, os.SEEK_CUR)
            offset = _unpack(f.read(struct.calcsize(pointer)), order + pointer, path)
    return seen


def _unpack(data: bytes, fmt: str, path: Path) -> int:
    if len(data) < struct.calcsize(fmt):
        raise DamagedSlideError(f"{path}: an image directory is cut off; the file is truncated")
    return int(struct.unpack(fmt, data)[0])


def _open(path: Path) -> tifffile.TiffFile:
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
            with _open(path) as tif:
                return 90 if tif.is_ome else 20
        except (OSError, ValueError, struct.error):
            return 0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tif = _open(path)
        try:
            series = self._tif.series[0]
            self._pages = [level.keyframe for level in series.levels]
            self._sizes = [Size(p.imagewidth, p.imagelength) for p in self._pages]
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
        full = self._sizes[0]
        levels = tuple(Level(i, s, (full.w / s.w, full.h / s.h)) for i, s in enumerate(self._sizes))
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
        page = self._pages[level]
        out = np.full((h, w, 3), 255, np.uint8)
        box = Region(x, y, w, h)
        tw, th = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
        across, down = math.ceil(page.imagewidth / tw), math.ceil(page.imagelength / th)
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        for row in range(y // th, min(-(-(y + h) // th), down)):
            for column in range(x // tw, min(-(-(x + w) // tw), across)):
                for plane in range(planes):
                    tile = self._segment(page, (plane * down + row) * across + column)
                    if tile is not None:
                        _paste(out, box, tile, Region(column * tw, row * th, tile.shape[1], tile.shape[0]), plane if planes > 1 else None)
        return out

    def _segment(self, page: Any, index: int) -> np.ndarray | None:
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if count == 0 or offset == 0:
            return None
        where = f"{self._path}: level of {page.imagewidth} × {page.imagelength} px, tile {index}"
        if count > _MAX_SEGMENT_BYTES:
            raise DamagedSlideError(f"{where} claims {count} bytes; the file is damaged")
        data = os.pread(self._tif.filehandle.fileno(), count, offset)
        if len(data) != count:
            raise DamagedSlideError(f"{where} is cut off; the file is truncated")
        try:
            decoded = page.decode(data, index, jpegtables=page.jpegtables)[0]
        except Exception as e:  # a codec's own exception classes
            raise DamagedSlideError(f"{where} cannot be decoded ({e}); copy the slide again from the scanner") from e
        return None if decoded is None else np.asarray(decoded[0])

    def close(self) -> None:
        """Let go of the file."""
        self._tif.close()


def _paste(out: np.ndarray, box: Region, tile: np.ndarray, at: Region, plane: int | None) -> None:
    part = at.intersect(box)
    if part.is_empty:
        return
    source = tile[part.y - at.y : part.y1 - at.y, part.x - at.x : part.x1 - at.x]
    target = out[part.y - box.y : part.y1 - box.y, part.x - box.x : part.x1 - box.x]
    if plane is not None:
        if plane < 3:
            target[..., plane] = source[..., 0]
    else:
        target[...] = source[..., :3]


def _require_rgb(series: Any, path: Path) -> None:
    page = series.keyframe
    if page.dtype != np.uint8 or page.samplesperpixel not in (3, 4) or series.size != page.size:
        what = f"{series.axes} {tuple(series.shape)} {page.dtype}"
        raise UnsupportedFormatError(f"{path}: not a brightfield RGB image but {what} (multi-channel or fluorescence?); H&E slides are 8-bit RGB")


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
        size = pixels.get(f"PhysicalSize{axis}", pixels.get("PhysicalSizeX", "0"))
        unit = _UNIT_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            values.append(float(size) * unit if unit else 0.0)
        except ValueError:
            values.append(0.0)
    return (Clue("file metadata", values[0], values[1]),)


def _resolution_clues(page: Any) -> tuple[Clue, ...]:
    unit = _RESOLUTION_UM.get(int(page.tags.valueof("ResolutionUnit", default=1)))
    values = [page.tags.valueof(name) for name in ("XResolution", "YResolution")]
    if unit is None or None in values:
        return ()
    per_unit = [v[0] / v[1] if v[1] else 0.0 for v in values]
    return (Clue("tiff resolution", *(unit / v if v else 0.0 for v in per_unit)),)


READER = TiffReader
