"""Zeiss CZI through the maker's own library, pylibCZIrw (extra ``czi``): also JPEG XR, several scenes, focal planes and channels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pylibCZIrw import czi

from wsikit.errors import DamagedSlideError, UnsupportedFormatError
from wsikit.geometry import Level, Region, Size
from wsikit.readers import Facts, Reader
from wsikit.readers._channels import Channel, compose, default_channel, why_not_he, windows
from wsikit.resolution import Clue, parse_number

_MAGIC = b"ZISRAWFILE"
_SMALLEST = 1024
_TILE_PX = 1024
_WHITE = (1.0, 1.0, 1.0)
_BLACK = (0.0, 0.0, 0.0)
_COLOURED = "Bgr24"


class CziReader(Reader):
    """All scenes in their places, on white; coarser levels by twos, as the library makes them from the file's own pyramid."""

    name: ClassVar[str] = "czi"

    @classmethod
    def accepts(cls, path: Path) -> int:
        """84, over OpenSlide, which reads neither JPEG XR nor several planes."""
        try:
            with path.open("rb") as f:
                return 84 if f.read(len(_MAGIC)) == _MAGIC else 0
        except OSError:
            return 0

    def __init__(self, path: Path) -> None:
        self._path = path
        if not self.accepts(path):
            raise UnsupportedFormatError(f"{path}: not a CZI")
        try:
            self._context = czi.open_czi(str(path))
            self._doc: Any = self._context.__enter__()
            self._box = self._doc.total_bounding_rectangle
            spans = {k: b - a for k, (a, b) in self._doc.total_bounding_box.items()}
            self._pixels = dict(self._doc.pixel_types)
            self._metadata = _inner(self._doc.metadata, "ImageDocument", "Metadata")
        except Exception as e:  # libCZI raises RuntimeError for all that it meets
            raise DamagedSlideError(f"{path}: the CZI cannot be opened ({' '.join(str(e).split())[:200]})") from e
        if spans.get("T", 1) > 1 or min(self._box.w, self._box.h) < 1:
            raise UnsupportedFormatError(f"{path}: {spans.get('T', 1)} points of time, {self._box.w} × {self._box.h} px; a slide has one, and pixels")
        self._planes = tuple(f"z{i}" for i in range(spans.get("Z", 1))) if spans.get("Z", 1) > 1 else ()
        self._plane = len(self._planes) // 2
        self._is_rgb = list(self._pixels.values()) == [_COLOURED]
        self._channels: tuple[Channel, ...] = tuple(default_channel(i, len(self._pixels)) for i in range(len(self._pixels)))
        self._known: dict[int, list[tuple[float, float]]] = {}

    @property
    def facts(self) -> Facts:
        """Levels by twos, the scaling and the objective that the metadata state."""
        objective = _first(_inner(self._metadata, "Information", "Instrument", "Objectives").get("Objective"))
        return Facts(
            vendor="zeiss",
            levels=tuple(self._levels()),
            clues=_clues(self._metadata),
            objective=parse_number(objective.get("NominalMagnification", "")),
            not_he="" if self._is_rgb else why_not_he(self._channels, np.dtype(np.uint16 if "16" in str(self._pixels) else np.uint8)),
            focal_planes=self._planes,
            focal_plane=self._planes[len(self._planes) // 2] if self._planes else "",
        )

    def _levels(self) -> list[Level]:
        found = [Level(0, Size(self._box.w, self._box.h), (1.0, 1.0))]
        while max(found[-1].size) > _SMALLEST and min(found[-1].size) >= 2:
            f = 2 ** len(found)
            found.append(Level(len(found), Size(self._box.w // f, self._box.h // f), (float(f), float(f))))
        return found

    def focus(self, plane: str) -> None:
        """Read this focal plane from now on."""
        self._plane = self._planes.index(plane)

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a level: uint8 (h, w, 3), white between the scenes; in fluorescence black."""
        box = Region(x, y, w, h)
        if self._is_rgb:
            return np.ascontiguousarray(self._fetch(level, box, 0)[..., ::-1])
        planes = [self._fetch(level, box, c)[..., 0] for c in range(len(self._channels))]
        return compose(planes, self._channels, self._windows())

    def _windows(self) -> list[tuple[float, float]]:
        if self._plane not in self._known:
            last = self._levels()[-1]
            self._known[self._plane] = windows(lambda c, box: self._fetch(last.index, box, c)[..., 0], last.size, len(self._channels))
        return self._known[self._plane]

    def _fetch(self, level: int, box: Region, channel: int) -> np.ndarray:
        """Numbers of a box (h, w, samples). Coarser levels in fixed squares: the library's scaling depends on where a request begins."""
        if level == 0:
            return self._ask(0, box, channel)
        size = self._levels()[level].size
        out: np.ndarray | None = None
        for ty in range(box.y // _TILE_PX * _TILE_PX, box.y1, _TILE_PX):
            for tx in range(box.x // _TILE_PX * _TILE_PX, box.x1, _TILE_PX):
                square = Region(tx, ty, _TILE_PX, _TILE_PX).clip(size)
                tile = self._ask(level, square, channel)
                part = square.intersect(box)
                if out is None:
                    out = np.empty((box.h, box.w, tile.shape[2]), tile.dtype)
                out[part.y - box.y : part.y1 - box.y, part.x - box.x : part.x1 - box.x] = tile[part.y - ty : part.y1 - ty, part.x - tx : part.x1 - tx]
        assert out is not None
        return out

    def _ask(self, level: int, box: Region, channel: int) -> np.ndarray:
        f = 2**level
        roi = (self._box.x + box.x * f, self._box.y + box.y * f, box.w * f, box.h * f)
        plane = {"C": channel} | ({"Z": self._plane} if self._planes else {})
        try:
            found = np.asarray(self._doc.read(roi=roi, plane=plane, zoom=1 / f, background_pixel=_WHITE if self._is_rgb else _BLACK))
        except Exception as e:  # as above
            raise DamagedSlideError(f"{self._path}: level {level}, {box} cannot be decoded ({' '.join(str(e).split())[:200]}); copy the slide again") from e
        if found.shape[:2] != (box.h, box.w):
            raise DamagedSlideError(f"{self._path}: level {level}, {box} gives {found.shape[1]} × {found.shape[0]} px")
        return found

    def close(self) -> None:
        """Let go of the file."""
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = None


def _inner(value: Any, *names: str) -> Mapping[str, Any]:
    """A part of nested metadata; empty where it is not there."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _first(value: Any) -> Mapping[str, Any]:
    one = value[0] if isinstance(value, list) and value else value
    return one if isinstance(one, Mapping) else {}


def _clues(metadata: Mapping[str, Any]) -> tuple[Clue, ...]:
    """The scaling, which is in metres per pixel."""
    stated = _inner(metadata, "Scaling", "Items").get("Distance")
    distances = {d.get("@Id"): parse_number(d.get("Value", "")) for d in stated if isinstance(d, Mapping)} if isinstance(stated, list) else {}
    if distances.get("X") is None:
        return ()
    return (Clue("file metadata", (distances["X"] or 0.0) * 1e6, (distances.get("Y") or distances["X"] or 0.0) * 1e6),)


READER = CziReader
