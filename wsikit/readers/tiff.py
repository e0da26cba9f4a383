"""TIFF files by their own compressed tiles: OME-TIFF, and RGB TIFFs that OpenSlide does not take."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tifffile

from wsikit.errors import DamagedSlideError, UnsupportedFormatError, WsikitError
from wsikit.geometry import Level, Region
from wsikit.location import ReadAt, is_remote, read_at
from wsikit.readers import Facts, Reader
from wsikit.readers._layout import GREY, TiffImage
from wsikit.readers._said import said
from wsikit.resolution import Clue, parse_number

_MAX_DIRECTORIES = 1000
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
        size, seen = f.seek(0, os.SEEK_END), list[int]()
        while offset:
            if offset in seen or offset >= size or len(seen) >= _MAX_DIRECTORIES:
                why = "beyond the end of the file, which is truncated" if offset >= size else "which cannot be; the file is damaged"
                raise DamagedSlideError(f"{path}: image directory {len(seen)} points to byte {offset}, {why}; copy it again from the scanner")
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
        # never the other files that its metadata may name
        return tifffile.TiffFile(path.open("rb") if is_remote(path) else path, name=path.name if is_remote(path) else None, _multifile=False)
    except Exception as e:  # tifffile raises whatever struct, numpy or a codec raises
        raise DamagedSlideError(f"{path}: the TIFF cannot be opened ({said(e)})") from e


class TiffReader(Reader):
    """Levels of the first image; a region is put together from the tiles (or strips) it covers."""

    name: ClassVar[str] = "tiff"

    @classmethod
    def accepts(cls, path: Path) -> int:
        """90 for OME-TIFF (OpenSlide sees neither its pyramid nor its mpp) and for grey ones (OpenSlide shows channels as if they were colours), else 20."""
        try:
            with open_tiff(path) as tif:
                if _vendor_layout(tif):
                    return 0
                return 90 if tif.is_ome or all(page.photometric in GREY for page in tif.pages) else 20
        except (OSError, ValueError, struct.error):
            return 0

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.suffix.lower() == ".vsi":
            raise UnsupportedFormatError(
                f"{path}: an Olympus VSI, whose slide lies in .ets files beside it; convert it to OME-TIFF (what is in here is a preview)"
            )
        self._tif = open_tiff(path)
        try:
            if layout := _vendor_layout(self._tif):
                raise UnsupportedFormatError(f"{path}: a {layout} file, which OpenSlide reads from this machine's disk; copy it here")
            self._image = TiffImage(self._tif, path)
        except WsikitError:
            self.close()
            raise
        except Exception as e:  # tifffile raises whatever struct or numpy raises
            self.close()
            raise DamagedSlideError(f"{path}: the TIFF's images cannot be listed ({said(e)})") from e
        self._bytes: int | ReadAt = read_at(path) if is_remote(path) else self._tif.filehandle.fileno()

    @property
    def facts(self) -> Facts:
        """Levels with their real downsamples, and the resolution that OME, Aperio or the TIFF's tags state."""
        image, page = self._image, self._image.page
        sizes = image.sizes
        levels = tuple(Level(i, s, (sizes[0].w / s.w, sizes[0].h / s.h)) for i, s in enumerate(sizes))
        aperio = _aperio(page)
        return Facts(
            vendor="ome-tiff" if self._tif.is_ome else "aperio" if aperio else "tiff",
            levels=levels,
            clues=image.clues or _aperio_clues(aperio) or _resolution_clues(page),
            objective=parse_number(aperio.get("AppMag", "")),
            icc=bytes(page.tags.valueof(34675, default=b"")),
            not_he=image.not_he,
            focal_planes=image.planes,
            focal_plane=image.planes[len(image.planes) // 2] if image.planes else "",
            properties={"wsikit.phantom": "1"} if str(page.description).startswith("wsikit phantom") else {},
        )

    def focus(self, plane: str) -> None:
        """Read this focal plane from now on."""
        self._image.plane = self._image.planes.index(plane)

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a level: uint8 (h, w, 3); missing tiles are white, in fluorescence black."""
        return self._image.read(self._bytes, level, Region(x, y, w, h))

    def close(self) -> None:
        """Let go of the file."""
        self._tif.close()


def _vendor_layout(tif: tifffile.TiffFile) -> str:
    """Whose file it is whose first image is no slide, or whose tiles overlap or are padded; empty for others."""
    return next((name for name in ("NDPI", "SCN", "BIF", "Philips") if getattr(tif, f"is_{name.lower()}")), "")


def _aperio(page: Any) -> dict[str, str]:
    """What an Aperio description states, by name; empty for others."""
    text = str(page.description)
    if not text.startswith("Aperio"):
        return {}
    return {k.strip(): v.strip() for k, _, v in (part.partition("=") for part in text.split("|")[1:])}


def _aperio_clues(stated: dict[str, str]) -> tuple[Clue, ...]:
    mpp = parse_number(stated.get("MPP", ""))
    return () if mpp is None else (Clue("file metadata", mpp, mpp),)


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
