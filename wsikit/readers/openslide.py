"""OpenSlide: SVS, NDPI, SCN, MRXS, BIF, VMS, SVSlide, Philips TIFF, CZI, generic tiled TIFF and DICOM."""

from __future__ import annotations

import contextlib
import ctypes
import math
import re
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import openslide

from wsikit.errors import DamagedSlideError, SlideError, UnsupportedFormatError
from wsikit.geometry import Level, Region, Size
from wsikit.readers import Facts, Reader
from wsikit.readers._dicom import is_dicom, require_true_colours, series_of
from wsikit.readers._private import places_in_properties, tellable
from wsikit.readers._said import said
from wsikit.readers.tiff import directory_offsets
from wsikit.resolution import Clue, parse_number

# Metadata that says how the image was made and never whose it is. Everything else (comments, titles, dates,
# user names, DICOM patient tags) stays in the file.
_ALLOWED = (
    "openslide.vendor", "openslide.mpp-x", "openslide.mpp-y", "openslide.objective-power", "openslide.level-count",
    "openslide.bounds-x", "openslide.bounds-y", "openslide.bounds-width", "openslide.bounds-height",
    "aperio.AppMag", "aperio.MPP", "hamamatsu.SourceLens", "tiff.ResolutionUnit", "tiff.XResolution", "tiff.YResolution",
)  # fmt: skip
_FIXED_TILE = 1024
_MAX_TILE_PX = 2**26
_TILE_SIDES = (322, 323)  # TIFF tags
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # TIFF field types


class OpenSlideReader(Reader):
    """A slide through OpenSlide's ``read_region``."""

    name: ClassVar[str] = "openslide"

    @classmethod
    def accepts(cls, path: Path) -> int:
        """80 for what OpenSlide recognises, 0 otherwise; also 0 for a CZI that it cannot open and another reader can."""
        try:
            vendor = openslide.OpenSlide.detect_format(str(_entry(path)))
            if vendor == "zeiss" and find_spec("pylibCZIrw"):
                openslide.OpenSlide(str(path)).close()
            return 80 if vendor else 0
        except (openslide.OpenSlideError, OSError):
            return 0

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.is_dir() or is_dicom(path):
            require_true_colours([i for i in series_of(path) if i.is_volume], path, handled=False)
        _refuse_giant_tiles(_entry(path))
        try:
            self._slide = openslide.OpenSlide(str(_entry(path)))
            # asked now: after one error in its pixels it answers nothing any more
            self._scales, self._sizes = tuple(self._slide.level_downsamples), tuple(self._slide.level_dimensions)
        except openslide.OpenSlideUnsupportedFormatError as e:
            raise UnsupportedFormatError(f"{path}: OpenSlide does not know this file") from e
        except (openslide.OpenSlideError, OSError) as e:
            raise DamagedSlideError(f"{path}: OpenSlide cannot open it ({said(e)}); copy it again from the scanner") from e

    @property
    def facts(self) -> Facts:
        """Levels, resolution clues and allow-listed properties."""
        try:
            return self._facts()
        except openslide.OpenSlideError as e:  # one error makes every later call fail
            raise DamagedSlideError(f"{self._path}: OpenSlide cannot read it ({said(e)}); copy it again from the scanner") from e

    def _facts(self) -> Facts:
        s, p = self._slide, self._slide.properties
        w, h = s.dimensions
        levels = tuple(Level(i, Size(*size), (w / size[0], h / size[1])) for i, size in enumerate(s.level_dimensions))
        properties = tellable(p, _ALLOWED)
        if p.get("tiff.ImageDescription", "").startswith("wsikit phantom"):
            properties["wsikit.phantom"] = "1"
        return Facts(
            vendor=p.get("openslide.vendor", "unknown"),
            levels=levels,
            clues=_clues(dict(p)),
            objective=parse_number(p.get("openslide.objective-power", "")),
            icc=_profile(s),
            not_he=_fluorescence(dict(p)),
            bounds=_bounds(dict(p)),
            associated=tuple(s.associated_images),
            properties=properties,
            private=tuple(places_in_properties(dict(p), s.associated_images)),
        )

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a level: uint8 (h, w, 3); transparent (missing) ones are white."""
        scale = self._scales[level]
        if float(scale).is_integer():
            return self._fetch(level, x, y, w, h)
        # OpenSlide takes level-0 positions: with a downsample of 4.016 a pixel's value would depend on where the
        # request starts. Reading in fixed squares makes each pixel come from one request, always the same.
        out = np.empty((h, w, 3), np.uint8)
        limit = self._sizes[level]
        for ty in range(y // _FIXED_TILE * _FIXED_TILE, y + h, _FIXED_TILE):
            for tx in range(x // _FIXED_TILE * _FIXED_TILE, x + w, _FIXED_TILE):
                tile = self._fetch(level, tx, ty, min(_FIXED_TILE, limit[0] - tx), min(_FIXED_TILE, limit[1] - ty))
                x0, y0 = max(tx, x), max(ty, y)
                x1, y1 = min(tx + tile.shape[1], x + w), min(ty + tile.shape[0], y + h)
                out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - ty : y1 - ty, x0 - tx : x1 - tx]
        return out

    def _fetch(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        scale = self._scales[level]
        try:
            rgba = np.asarray(self._slide.read_region((round(x * scale), round(y * scale)), level, (w, h)))
        except openslide.OpenSlideError as e:
            raise DamagedSlideError(
                f"{self._path}: level {level}, x {x}, y {y}, {w} × {h} px cannot be decoded ({said(e)}); copy the slide again from the scanner"
            ) from e
        rgb, alpha = rgba[..., :3], rgba[..., 3:]
        if alpha.min() == 255:
            return rgb.copy()
        a = alpha.astype(np.uint16)
        return ((rgb * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)

    def associated(self, name: str) -> tuple[np.ndarray, bytes]:
        """Label, macro or thumbnail: uint8 (H, W, 4), and its colour profile."""
        if name not in tuple(self._slide.associated_images):  # asking the mapping itself would read the image
            return super().associated(name)
        try:
            image = self._slide.associated_images[name]
        except openslide.OpenSlideError as e:
            raise DamagedSlideError(f"{self._path}: its {name} cannot be decoded ({said(e)})") from e
        return np.array(image), bytes(image.info.get("icc_profile", b""))

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(ctypes.ArgumentError):  # it is closed
            self._slide.close()

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """The file; with the other instances of a DICOM series, the data folder of MRXS, or the pictures that a VMS or VMU lists."""
        entry = _entry(path)
        if path.is_dir() or is_dicom(path):
            return [i.path for i in series_of(path)]
        companion = entry.with_suffix("")
        if entry.suffix.lower() == ".mrxs" and companion.is_dir():
            return sorted([entry, *(p for p in companion.rglob("*") if p.is_file())])
        if entry.suffix.lower() in (".vms", ".vmu"):
            named = {line.partition("=")[2].strip() for line in entry.read_text("latin-1").splitlines()}
            return sorted([entry, *(p for p in entry.parent.iterdir() if p.name in named and p.is_file())])
        return [entry]


def _entry(path: Path) -> Path:
    """The file that stands for a folder of DICOM instances."""
    if path.is_dir():
        try:
            return next(i.path for i in series_of(path) if i.is_volume)
        except SlideError:
            return path
    return path


def _refuse_giant_tiles(path: Path) -> None:
    """Refuse a damaged TIFF on which OpenSlide would end the process: it takes memory for a whole tile, and aborts without."""
    try:
        offsets = directory_offsets(path)
    except SlideError:  # no TIFF, or one whose directories only OpenSlide can follow or refuse
        return
    with path.open("rb") as f:
        head = f.read(4)
        order = "<" if head[:2] == b"II" else ">"
        count, entry = (f"{order}H", f"{order}HHI4s") if 42 in head else (f"{order}Q", f"{order}HHQ8s")
        for number, offset in enumerate(offsets):
            f.seek(offset)
            (n,) = struct.unpack(count, f.read(struct.calcsize(count)))
            fields = struct.iter_unpack(entry, f.read(n * struct.calcsize(entry)))
            area = math.prod(_number(order, kind, value) for tag, kind, _, value in fields if tag in _TILE_SIDES)
            if area > _MAX_TILE_PX:
                raise DamagedSlideError(f"{path}: image {number} claims tiles of {area:.3g} px; the file is damaged, copy it again from the scanner")


def _number(order: str, kind: int, value: bytes) -> float:
    """A TIFF field that holds one number; infinite for a type that cannot be one."""
    form = order + _NUMBERS.get(kind, "100s")
    return float(struct.unpack_from(form, value)[0]) if struct.calcsize(form) <= len(value) else math.inf


def library_version() -> str:
    """The version of the OpenSlide library itself."""
    return str(openslide.__library_version__)


def _profile(slide: openslide.OpenSlide) -> bytes:
    """The colour profile as stored; a picture without pixels carries it, and decodes nothing."""
    return bytes(slide.read_region((0, 0), 0, (0, 0)).info.get("icc_profile", b""))


def _fluorescence(p: dict[str, str]) -> str:
    """Why a slide is fluorescence, by what its scanner says of the light; empty where it says nothing."""
    light = [v for k, v in p.items() if k.endswith("IlluminationTypeCodeSequence[0].CodeMeaning") or k == "leica.illumination-source"]
    light += ["fluorescence" for k, v in p.items() if k.startswith("hamamatsu.") and re.search(r"ExcitationName=[^;\s]", v)]
    return "its scanner says fluorescence; it is no brightfield H&E stain" if any("fluorescence" in text.lower() for text in light) else ""


def _bounds(p: dict[str, str]) -> Region | None:
    """The scanned part of level 0, where the scanner gives one."""
    values = [p.get(f"openslide.bounds-{k}", "") for k in ("x", "y", "width", "height")]
    return Region(*map(int, values)) if all(v.lstrip("-").isdigit() for v in values) else None


def _clues(p: dict[str, str]) -> tuple[Clue, ...]:
    x, y = p.get("openslide.mpp-x"), p.get("openslide.mpp-y")
    raw = p.get("aperio.MPP")
    # for a generic TIFF, OpenSlide makes its mpp from the resolution tags
    source = "tiff resolution" if p.get("openslide.vendor") == "generic-tiff" else "file metadata"
    if x is None and raw is not None and parse_number(raw) is not None:
        x = y = raw
    if x is None:
        return ()
    vx, vy = parse_number(x), parse_number(y)
    return (Clue(source, vx if vx is not None else 0.0, vy if vy is not None else 0.0),)


READER = OpenSlideReader
