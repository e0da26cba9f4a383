"""OME-Zarr 0.4 and 0.5 as a slide, local or remote: scanners' exports, converters', and the stores that wsikit writes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wsikit.errors import DamagedSlideError, UnsupportedFormatError, WsikitError
from wsikit.geometry import Level, Region, Size
from wsikit.location import is_remote
from wsikit.readers import Facts, Reader
from wsikit.readers._channels import compose, is_rgb, why_not_he, windows
from wsikit.readers._ngff import channels_of, image_attributes, multiscale_of

_MARKS = ("zarr.json", ".zattrs", ".zgroup")
_MAX_CHUNK_BYTES = 256 * 1024**2
_MOST_CHANNELS = 64


class OmeZarrReader(Reader):
    """Levels of the first image of a group; channels as a picture, unless they are red, green and blue."""

    name: ClassVar[str] = "ome-zarr"

    @classmethod
    def accepts(cls, path: Path) -> int:
        """88 for a folder that holds a Zarr group."""
        return 88 if is_group(path) else 0

    def __init__(self, path: Path) -> None:
        if not is_group(path):
            raise UnsupportedFormatError(f"{path}: not a Zarr group")
        self._path = path
        try:
            self._group = _open(path)
            self._attributes = dict(self._group.attrs)
            image = self._image = multiscale_of(self._attributes, str(path))
            self._arrays = [self._group[p] for p in image.paths]
            self._look()
        except WsikitError:
            raise
        except Exception as e:  # zarr raises whatever json, its codecs or the file system do
            raise DamagedSlideError(f"{path}: the OME-Zarr cannot be opened ({' '.join(str(e).split())[:200]})") from e
        self._plane = len(self._planes) // 2
        self._known: dict[int, list[tuple[float, float]]] = {}

    def _look(self) -> None:
        """Refuse what cannot be a picture, before any of it is read."""
        axes, first = self._image.axes, self._arrays[0]
        for array in self._arrays:
            if array.ndim != len(axes) or min(array.shape, default=0) < 1 or array.dtype != first.dtype or array.dtype.kind not in "uif":
                raise DamagedSlideError(f"{self._path}: a level is {array.dtype} {array.shape} where the axes are {axes}")
            if math.prod(array.chunks) * array.dtype.itemsize > _MAX_CHUNK_BYTES:
                raise UnsupportedFormatError(f"{self._path}: chunks of {array.chunks}; up to 256 MiB are read, write it anew in smaller ones")
        length = dict(zip(axes, first.shape, strict=True))
        if length.get("t", 1) > 1 or length.get("c", 1) > _MOST_CHANNELS:
            raise UnsupportedFormatError(f"{self._path}: {length.get('t', 1)} points of time and {length.get('c', 1)} channels; a slide has one, and up to 64")
        self._planes = tuple(f"z{i}" for i in range(length["z"])) if length.get("z", 1) > 1 else ()
        self._channels = channels_of(self._attributes, length.get("c", 1))
        self._is_rgb = is_rgb(self._channels, first.dtype)

    @property
    def facts(self) -> Facts:
        """Levels with the downsamples that their scales state, and the resolution."""
        stored = self._attributes.get("wsikit")
        about = stored.get("slide", {}) if isinstance(stored, dict) else {}
        dtype = self._arrays[0].dtype
        return Facts(
            vendor="wsikit" if stored else "ome-zarr",
            levels=tuple(self._levels()),
            clues=self._image.clue(),
            not_he="" if self._is_rgb else why_not_he(self._channels, dtype),
            focal_planes=self._planes,
            focal_plane=self._planes[len(self._planes) // 2] if self._planes else "",
            properties={"wsikit.phantom": "1"} if about.get("phantom") else {},
        )

    def _levels(self) -> Iterator[Level]:
        """Where a stated scale does not fit the sizes, the sizes hold."""
        ix, iy = (self._image.axes.index(a) for a in "xy")
        full = Size(self._arrays[0].shape[ix], self._arrays[0].shape[iy])
        for i, (array, scale) in enumerate(zip(self._arrays, self._image.scales, strict=True)):
            size = Size(array.shape[ix], array.shape[iy])
            stated = [s / s0 if s0 else 0.0 for s, s0 in ((scale[k], self._image.scales[0][k]) for k in (ix, iy))]
            real = [d if d > 0 and abs(n / d - m) <= 1 else n / m for d, n, m in zip(stated, full, size, strict=True)]
            yield Level(i, size, (real[0], real[1]))

    def focus(self, plane: str) -> None:
        """Read this focal plane from now on."""
        self._plane = self._planes.index(plane)

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a level: uint8 (h, w, 3); chunks that are not there have the array's fill value."""
        box = Region(x, y, w, h)
        if self._is_rgb:
            return np.ascontiguousarray(np.moveaxis(self._fetch(level, box, slice(0, 3)), 0, -1))
        planes = [self._channel(level, c, box) for c in range(len(self._channels))]
        return compose(planes, self._channels, self._windows())

    def _windows(self) -> list[tuple[float, float]]:
        if self._plane not in self._known:
            last = len(self._arrays) - 1
            size = list(self._levels())[-1].size
            self._known[self._plane] = windows(lambda c, box: self._channel(last, c, box), size, len(self._channels))
        return self._known[self._plane]

    def _channel(self, level: int, channel: int, box: Region) -> np.ndarray:
        return self._fetch(level, box, channel)

    def _fetch(self, level: int, box: Region, channel: slice | int) -> np.ndarray:
        """Numbers of a box, its axes in the order c, y, x."""
        wanted = {"t": 0, "c": channel, "z": self._plane, "y": slice(box.y, box.y1), "x": slice(box.x, box.x1)}
        try:
            found = np.asarray(self._arrays[level][tuple(wanted[a] for a in self._image.axes)])
        except Exception as e:  # a codec's own exception classes
            why = " ".join(str(e).split())[:200]
            raise DamagedSlideError(f"{self._path}: level {level}, {box} cannot be decoded ({why}); copy the slide again") from e
        left = [a for a in self._image.axes if isinstance(wanted[a], slice)]
        return found.transpose([left.index(a) for a in "cyx" if a in left])

    def close(self) -> None:
        """Nothing is held open."""

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """Every file of the folder; of a web server, which lists none, those that the metadata tells of.

        Raises
        ------
        DamagedSlideError
            One of them is empty.
        """
        if not is_remote(path) or not str(path).startswith("http"):
            found = sorted(p for p in path.rglob("*") if p.is_file())
            if empty := [p for p in found if not p.stat().st_size]:  # Zarr takes it for a chunk that was never written
                raise DamagedSlideError(f"{path}: {empty[0].relative_to(path)} is empty; copy the slide again")
            return found
        reader = cls(path)
        names = list(_MARKS)
        for name, array in zip(reader._image.paths, reader._arrays, strict=True):
            names += [f"{name}/{m}" for m in ("zarr.json", ".zarray")] + [f"{name}/{key}" for key in _keys(array)]
        return [path / n for n in names if (path / n).exists()]


def is_group(path: Path) -> bool:
    """Whether there is a Zarr group at a path."""
    try:
        return (is_remote(path) or path.is_dir()) and any((path / mark).is_file() for mark in _MARKS)
    except OSError:
        return False


def _open(path: Path) -> Any:
    """The group of the image: the first one of what bioformats2raw wrote."""
    import zarr

    group = zarr.open_group(str(path), mode="r")
    if "bioformats2raw.layout" in image_attributes(dict(group.attrs)):
        return group["0"]
    return group


def _keys(array: Any) -> Iterator[str]:
    side = array.shards or array.chunks
    counts = [-(-n // s) for n, s in zip(array.shape, side, strict=True)]
    yield from (array.metadata.encode_chunk_key(at) for at in np.ndindex(*counts))


READER = OmeZarrReader
