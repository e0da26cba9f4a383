"""DICOM headers: which files of a folder are one slide, and whether what they claim of their colours is true."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from wsikit.errors import DamagedSlideError, UnsupportedFormatError, how_to_install
from wsikit.geometry import Region, Size

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_MAGIC_AT, _MAGIC = 128, b"DICM"
_TAGS = [
    "SOPClassUID", "SeriesInstanceUID", "ImageType", "PhotometricInterpretation", "SamplesPerPixel", "TotalPixelMatrixFocalPlanes", "ConcatenationUID",
    "InConcatenationTotalNumber", "OpticalPathSequence", "TotalPixelMatrixColumns", "DimensionOrganizationType",
]  # fmt: skip
_PLACE_TAGS = ("TotalPixelMatrixColumns", "TotalPixelMatrixRows", "Columns", "Rows", "PerFrameFunctionalGroupsSequence")
_BASELINE_JPEG = "1.2.840.10008.1.2.4.50"
_MOST_FRAMES = 2**22  # of a level: a whole glass of 25 × 75 mm at 0.1 µm/px takes 2.9 million of 256 px
_FIRST_FRAME = 65536  # bytes that surely hold a JPEG's headers
_RGB, _YCBCR = "RGB", "YCbCr"
UNSURE = "maybe YCbCr"
_NO_SLIDE = "no whole-slide image in DICOM (it may be a label, a report or an image of another kind)"


@dataclass(frozen=True)
class Instance:
    """What is needed of one file's header. ``stream`` is what its first JPEG frame says of its colours, empty where it says nothing."""

    path: Path
    sop_class: str
    series: str
    is_volume: bool
    width: int
    syntax: str
    photometric: str
    samples: int
    planes: int
    optical_paths: int
    light: str
    objective: float | None
    icc: bytes
    concatenation: str
    parts: int
    stream: str
    is_sparse: bool

    @property
    def false_colours(self) -> bool:
        """Whether the header claims other colours than the frames have, so that readers show wrong ones without a word."""
        return bool(self.stream) and (self.photometric == "RGB") != (self.stream == _RGB)


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark."""
    try:
        with path.open("rb") as f:
            return f.read(_MAGIC_AT + 4)[_MAGIC_AT:] == _MAGIC
    except OSError:
        return False


def instance(path: Path) -> Instance | None:
    """The header of a file; None where it is no DICOM."""
    try:
        s = path.stat()
        return _instance(path, s.st_mtime_ns, s.st_size) if is_dicom(path) else None
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _instance(path: Path, _mtime_ns: int, _bytes: int) -> Instance | None:
    from pydicom import dcmread

    try:
        with path.open("rb") as f:
            ds = dcmread(f, stop_before_pixels=True, specific_tags=_TAGS)
            return _facts(path, ds, f)
    except Exception:  # whatever pydicom meets in a broken header
        return None


def _facts(path: Path, ds: Any, f: BinaryIO) -> Instance:
    optical = ds.get("OpticalPathSequence") or [{}]
    lights = [str(code.get("CodeMeaning", "")) for o in optical for code in o.get("IlluminationTypeCodeSequence") or []]
    syntax = str(ds.file_meta.TransferSyntaxUID)
    photometric = str(ds.get("PhotometricInterpretation", ""))
    return Instance(
        path=path,
        sop_class=str(ds.get("SOPClassUID", "")),
        series=str(ds.get("SeriesInstanceUID", "")),
        is_volume="VOLUME" in (ds.get("ImageType") or []),
        width=int(ds.get("TotalPixelMatrixColumns", 0) or 0),
        syntax=syntax,
        photometric=photometric,
        samples=int(ds.get("SamplesPerPixel", 0) or 0),
        planes=int(ds.get("TotalPixelMatrixFocalPlanes", 1) or 1),
        optical_paths=len(optical),
        light=", ".join(lights),
        objective=float(optical[0].get("ObjectiveLensPower") or 0) or None,
        icc=bytes(optical[0].get("ICCProfile") or b""),
        concatenation=str(ds.get("ConcatenationUID", "")),
        parts=int(ds.get("InConcatenationTotalNumber", 1) or 1),
        stream=jpeg_colours(_first_frame(f)) if syntax == _BASELINE_JPEG and ds.get("SamplesPerPixel") == 3 else "",
        is_sparse=ds.get("DimensionOrganizationType") == "TILED_SPARSE",
    )


def _first_frame(f: BinaryIO) -> bytes:
    """The beginning of the first frame; ``f`` stands at the pixel data."""
    head = f.read(_FIRST_FRAME)
    at = head.find(b"\xff\xd8\xff")
    return head[at:] if at >= 0 else b""


def jpeg_colours(data: bytes) -> str:
    """What a JPEG says of its three colours: ``RGB`` or ``YCbCr`` where it is certain, `UNSURE` where only JFIF hints at YCbCr, else empty.

    An Adobe marker or component names say it outright; colours at half the resolution are never red, green or blue.
    """
    hint, i = "", 2
    while i + 4 <= len(data) and data[i] == 0xFF:
        marker, length = data[i + 1], int.from_bytes(data[i + 2 : i + 4], "big")
        body = data[i + 4 : i + 2 + length]
        if marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            return _YCBCR if body[11] else _RGB
        if marker == 0xE0 and body[:4] == b"JFIF":
            hint = UNSURE
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            names, sampling = body[6:15:3], body[7:16:3]
            if names == b"RGB":
                return _RGB
            return _YCBCR if len(set(sampling)) > 1 else hint
        i += 2 + length
    return hint


def series_of(path: Path) -> list[Instance]:
    """The instances of the slide that a file belongs to, or that a folder holds, sorted by path.

    Raises
    ------
    UnsupportedFormatError
        There is no whole-slide image, or the folder holds several.
    DamagedSlideError
        A part of a concatenation is missing.
    """
    own = None if path.is_dir() else instance(path)
    if not path.is_dir() and (own is None or own.sop_class != WHOLE_SLIDE):  # before its folder is gone through, which may hold thousands of others
        raise UnsupportedFormatError(f"{path}: {_NO_SLIDE}")
    folder = path.parent if own else path
    found = [i for p in sorted(folder.iterdir()) if p.is_file() and (i := instance(p)) and i.sop_class == WHOLE_SLIDE]
    slides = [own.series] if own else sorted({i.series for i in found if i.is_volume})
    if len(slides) > 1:
        raise UnsupportedFormatError(f"{path}: holds {len(slides)} DICOM slides; name one file of the one that is meant")
    mine = [i for i in found if [i.series] == slides]
    if not any(i.is_volume for i in mine):
        raise UnsupportedFormatError(f"{path}: {_NO_SLIDE}")
    _require_parts(mine, path)
    return mine


def _require_parts(instances: Iterable[Instance], path: Path) -> None:
    parts: dict[str, list[Instance]] = {}
    for i in instances:
        if i.concatenation:
            parts.setdefault(i.concatenation, []).append(i)
    for found in parts.values():
        if len(found) != found[0].parts:
            raise DamagedSlideError(f"{path}: {len(found)} of the {found[0].parts} files of a level are there; copy the slide again, all of its files")


def missing_frames(path: Path) -> list[tuple[Size, Region]]:
    """Places of a sparse slide's levels that no frame is of: the size of the level, and the place in px of it.

    Frames that do not lie on a grid leave the question open, and nothing is said.

    Raises
    ------
    DamagedSlideError
        It claims more frames than a slide can have, or does not say where they are.
    """
    levels: dict[Size, tuple[Size, set[tuple[int, int]]]] = {}
    for i in series_of(path):
        if i.is_volume and i.is_sparse:
            size, tile, corners = _frame_places(i.path)
            levels.setdefault(size, (tile, set()))[1].update(corners)
    found = []
    for size, (tile, there) in levels.items():
        if any(x % tile.w or y % tile.h for x, y in there):
            continue
        if (cells_in_all := -(-size.w // tile.w) * -(-size.h // tile.h)) > _MOST_FRAMES:
            raise DamagedSlideError(f"{path}: claims {cells_in_all:,} frames; the file is damaged, copy it again from the scanner")
        cells = ((x, y) for y in range(0, size.h, tile.h) for x in range(0, size.w, tile.w))
        found += [(size, Region(x, y, *tile).clip(size)) for x, y in cells if (x, y) not in there]
    return found


def _frame_places(path: Path) -> tuple[Size, Size, list[tuple[int, int]]]:
    """Size of a level, of its frames, and the upper-left corner of each, px."""
    from pydicom import dcmread

    try:
        ds = dcmread(path, stop_before_pixels=True, specific_tags=[*_PLACE_TAGS])
        planes = [f.PlanePositionSlideSequence[0] for f in ds.PerFrameFunctionalGroupsSequence]
        corners = [(int(p.ColumnPositionInTotalImagePixelMatrix) - 1, int(p.RowPositionInTotalImagePixelMatrix) - 1) for p in planes]
        size, tile = Size(int(ds.TotalPixelMatrixColumns), int(ds.TotalPixelMatrixRows)), Size(int(ds.Columns), int(ds.Rows))
    except (AttributeError, IndexError, KeyError, ValueError, TypeError) as e:
        raise DamagedSlideError(f"{path}: a sparse DICOM slide that does not say where its frames are; copy it again from the scanner") from e
    if min(tile) < 1:
        raise DamagedSlideError(f"{path}: frames of {tile.w} × {tile.h} px; the file is damaged, copy it again from the scanner")
    return size, tile, corners


def require_true_colours(volume: list[Instance], path: Path, *, handled: bool) -> None:
    """Refuse a slide whose header claims other colours than its frames have; where that is ``handled``, only an unsure one.

    Raises
    ------
    UnsupportedFormatError
        It does.
    """
    for i in volume:
        if i.false_colours and not (handled and i.stream != UNSURE):
            more = "" if handled else f"; to read it by its frames, {how_to_install('dicom')}"
            more = "; have PhotometricInterpretation corrected where the slide comes from" if i.stream == UNSURE else more
            raise UnsupportedFormatError(f"{path}: its header says {i.photometric}, its JPEG frames say {i.stream}: colours would be wrong{more}")
