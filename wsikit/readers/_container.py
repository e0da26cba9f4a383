"""What a TIFF container says of itself, read by nobody's decoder: its directories, where its tiles are, and whether all that can be.

Readers and their libraries take offsets and sizes at their word. Most damage shows here already: tiles that lie beyond the end of the file or
share bytes, tables of another length than the image needs, a chain that runs in a circle.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from wsikit.errors import DamagedSlideError, UnsupportedFormatError
from wsikit.geometry import Region, Size
from wsikit.location import is_remote
from wsikit.readers._dicom import is_dicom, missing_frames
from wsikit.readers.image import jpeg_sampling
from wsikit.readers.tiff import directory_offsets

_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _SAMPLES, _PLANES = 256, 257, 322, 323, 277, 284
_TILE_OFFSETS, _TILE_COUNTS, _STRIP_OFFSETS, _STRIP_COUNTS, _SUB_DIRECTORIES = 324, 325, 273, 279, 330
_DESCRIPTION, _COMPRESSION, _PHOTOMETRIC, _JPEG, _RGB = 270, 259, 262, 7, 2
_NUMBERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MAX_SIDE, _MIN_TILE, _MAX_TILE_PX, _MAX_TILE_BYTES = 4_000_000, 8, 2**26, 256 * 1024**2
_MAX_VALUES, _MAX_DIRECTORIES = 2**26, 1000
_AGAIN = "copy it again from the scanner"


@dataclass(frozen=True)
class Directory:
    """One image of a TIFF: ``fields`` are type, count and position of each tag's value."""

    path: Path
    number: int
    offset: int
    order: str
    fields: dict[int, tuple[int, int, int]]

    def raw(self, tag: int) -> bytes:
        """The bytes of a tag's value; none where it is not there.

        Raises
        ------
        DamagedSlideError
            They lie beyond the end of the file, or are too many to be true.
        """
        kind, count, at = self.fields.get(tag, (1, 0, 0))
        wanted = count * _BYTES.get(kind, 1)
        if count > _MAX_VALUES:
            raise DamagedSlideError(f"{self.path}: image {self.number} claims {count} values of TIFF tag {tag}; the file is damaged, {_AGAIN}")
        with self.path.open("rb") as f:
            f.seek(min(at, os.fstat(f.fileno()).st_size))  # the system refuses to go where no file can be
            data = f.read(wanted)
        if len(data) != wanted:
            raise DamagedSlideError(f"{self.path}: TIFF tag {tag} of image {self.number} lies beyond the end of the file; {_AGAIN}")
        return data

    def numbers(self, tag: int) -> np.ndarray:
        """A tag's whole numbers, int64 (N,); empty where it is not there.

        Raises
        ------
        DamagedSlideError
            See `raw`; or they are no whole numbers.
        """
        kind = self.fields.get(tag, (1, 0, 0))[0]
        if kind not in _NUMBERS:
            raise DamagedSlideError(f"{self.path}: TIFF tag {tag} of image {self.number} is of type {kind}, which it cannot be; the file is damaged, {_AGAIN}")
        return np.frombuffer(self.raw(tag), self.order + _NUMBERS[kind]).astype(np.uint64).clip(max=2**61).astype(np.int64)

    def _one(self, tag: int, default: int = 0) -> int:
        found = self.numbers(tag)
        return int(found[0]) if len(found) else default

    @cached_property
    def size(self) -> Size:
        """The image's width and height; 0 where it says none."""
        return Size(self._one(_WIDTH), self._one(_HEIGHT))

    @property
    def is_tiled(self) -> bool:
        """Whether it is kept in tiles, as levels of slides are."""
        return _TILE_OFFSETS in self.fields or _TILE_WIDTH in self.fields

    @cached_property
    def tile(self) -> Size:
        """Width and height of its tiles."""
        return Size(self._one(_TILE_WIDTH), self._one(_TILE_HEIGHT))

    @cached_property
    def segments(self) -> np.ndarray:
        """Where the bytes of its tiles or strips are: int64 (N, 2) offset, count."""
        tags = (_TILE_OFFSETS, _TILE_COUNTS) if self.is_tiled else (_STRIP_OFFSETS, _STRIP_COUNTS)
        offsets, counts = map(self.numbers, tags)
        if len(offsets) != len(counts):
            raise DamagedSlideError(f"{self.path}: image {self.number} lists {len(offsets)} places and {len(counts)} sizes of tiles; {_AGAIN}")
        return np.stack([offsets, counts], 1)

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.size.w // self.tile.w)

    def check(self) -> None:
        """Can there be such an image?

        Raises
        ------
        DamagedSlideError
            No: of its size, its tiles, or their number or places.
        """
        where = f"{self.path}: image {self.number}"
        w, h = self.size
        if not (0 < w <= _MAX_SIDE and 0 < h <= _MAX_SIDE):
            raise DamagedSlideError(f"{where} claims {w} × {h} px; the file is damaged, {_AGAIN}")
        if self.is_tiled:
            tw, th = self.tile
            if min(tw, th) < _MIN_TILE or tw * th > _MAX_TILE_PX:
                raise DamagedSlideError(f"{where} claims tiles of {tw} × {th} px; the file is damaged, {_AGAIN}")
            planes = self._one(_SAMPLES, 1) if self._one(_PLANES, 1) == 2 else 1
            wanted = self.columns * -(-h // th) * planes
            if len(self.segments) != wanted:
                raise DamagedSlideError(f"{where} of {w} × {h} px needs {wanted} tiles, the file lists {len(self.segments)}; it is damaged, {_AGAIN}")
        counts = self.segments[:, 1]
        if (counts > _MAX_TILE_BYTES).any() and self.is_tiled:
            raise DamagedSlideError(f"{where} claims a tile of {counts.max()} bytes; the file is damaged, {_AGAIN}")

    def check_end(self) -> None:
        """Are its tiles or strips inside the file? Of a label too: where its end is missing, a reader may not find what else is.

        Raises
        ------
        DamagedSlideError
            No.
        """
        offsets, counts = self.segments.T
        beyond = (offsets > 0) & (counts > 0) & (offsets + counts > self.path.stat().st_size)
        if beyond.any():
            what = f"{beyond.sum()} of {len(beyond)} {'tiles' if self.is_tiled else 'strips'}"
            raise DamagedSlideError(f"{self.path}: image {self.number}: {what} lie beyond the end of the file, so it is cut off or damaged; {_AGAIN}")

    def check_colours(self) -> None:
        """Do the first tile and the image agree on its colours?

        Raises
        ------
        DamagedSlideError
            No: it is called RGB, and its JPEG is of YCbCr, whose colours are sampled apart. Decoders would show wrong colours.
        """
        if self._one(_COMPRESSION) != _JPEG or self._one(_PHOTOMETRIC) != _RGB:
            return
        offset, count = next((map(int, s) for s in self.segments if s.min() > 0), (0, 0))
        with self.path.open("rb") as f:
            f.seek(min(offset, os.fstat(f.fileno()).st_size))
            sampling = jpeg_sampling(f.read(min(count, 4096)))
        if len(set(sampling)) > 1:
            raise DamagedSlideError(f"{self.path}: image {self.number} is called RGB and its tiles are YCbCr; the file is damaged, {_AGAIN}")

    def missing(self) -> list[Region]:
        """Tiles of which the file has no bytes, in px of this image."""
        empty = np.flatnonzero((self.segments <= 0).any(1))
        (tw, th), area = self.tile, self.columns * -(-self.size.h // self.tile.h)
        cells = sorted({int(i) % area for i in empty})
        return [Region(i % self.columns * tw, i // self.columns * th, tw, th).clip(self.size) for i in cells]


def is_checkable(path: Path) -> bool:
    """Whether it is a TIFF whose addresses can be followed; those of a classic one of over 4 GiB (NDPI) wrap round."""
    if is_remote(path) or not path.is_file():
        return False
    with path.open("rb") as f:
        head = f.read(4)
    return head in (b"II+\0", b"MM\0+") or (head in (b"II*\0", b"MM\0*") and path.stat().st_size < 2**32)


def directories(path: Path) -> Iterator[Directory]:
    """All images of a TIFF, those below others (SubIFDs) behind the one that they belong to.

    Raises
    ------
    UnsupportedFormatError
        The file is not a TIFF.
    DamagedSlideError
        The chain of images cannot be followed.
    """
    with path.open("rb") as f:
        head = f.read(4)
    order, big = ("<" if head[:2] == b"II" else ">"), 43 in head
    todo, seen = directory_offsets(path), set[int]()
    while todo:
        offset = todo.pop(0)
        if offset in seen:
            continue
        if len(seen) > _MAX_DIRECTORIES:
            raise DamagedSlideError(f"{path}: over {_MAX_DIRECTORIES} images; the file is damaged, {_AGAIN}")
        seen.add(offset)
        directory = _directory(path, len(seen) - 1, offset, order, big)
        below = directory.numbers(_SUB_DIRECTORIES) if _SUB_DIRECTORIES in directory.fields else ()
        todo[:0] = [int(o) for o in below]
        yield directory


def _directory(path: Path, number: int, offset: int, order: str, big: bool) -> Directory:
    place = 8 if big else 4
    entry = np.dtype([("tag", order + "u2"), ("type", order + "u2"), ("count", f"{order}u{place}"), ("value", f"{order}u{place}")])
    with path.open("rb") as f:
        size = os.fstat(f.fileno()).st_size
        f.seek(min(offset, size))
        wide = 8 if big else 2
        count = int.from_bytes(f.read(wide), "little" if order == "<" else "big")
        data = f.read(min(count, 4096) * entry.itemsize)
    if count > 4096 or len(data) != count * entry.itemsize:
        raise DamagedSlideError(f"{path}: image directory {number} at byte {offset} claims {count} entries; the file is damaged, {_AGAIN}")
    fields = {}
    for i, (tag, kind, n, value) in enumerate(np.frombuffer(data, entry).tolist()):
        inline = n * _BYTES.get(kind, 1) <= place
        fields[tag] = (kind, n, offset + wide + i * entry.itemsize + entry.itemsize - place if inline else value)
    return Directory(path, number, offset, order, fields)


def check_container(path: Path) -> None:
    """Can this file be what it says? Whatever is not a TIFF passes.

    Raises
    ------
    DamagedSlideError
        No; the message says which image and what of it.
    """
    if not is_checkable(path):
        return
    try:
        found = list(directories(path))
    except UnsupportedFormatError:
        return
    for image in found:
        image.check_end()
    images = [d for d in found if d.is_tiled or d.number == 0]
    for image in images:
        image.check()
        image.check_colours()
    _check_overlaps(path, [d.segments for d in images])


def _check_overlaps(path: Path, segments: list[np.ndarray]) -> None:
    """No two tiles share bytes, but for blank ones that a writer kept once: these have the same place and size, and are small."""
    found = np.concatenate([np.empty((0, 2), np.int64), *segments])
    found = found[(found > 0).all(1)]
    if len(found) < 2:
        return
    found = found[np.lexsort((found[:, 1], found[:, 0]))]
    before, after = found[:-1], found[1:]
    same = (before == after).all(1)
    sharing = (before.sum(1) > after[:, 0]) & (~same | (before[:, 1] > np.median(found[:, 1])))
    if sharing.any():
        at = int(after[np.argmax(sharing), 0])
        raise DamagedSlideError(f"{path}: {sharing.sum()} tiles share their bytes with another one (at byte {at}), so the file is damaged; {_AGAIN}")


def check_levels(path: Path, levels: Collection[Size]) -> None:
    """Does a reader find all levels of an Aperio slide? Libraries pass over an image that damage has made unlike a level.

    Raises
    ------
    DamagedSlideError
        A tiled image is none of ``levels``, the sizes that the reader found.
    """
    if not is_checkable(path):
        return
    images = list(directories(path))
    if images and images[0].raw(_DESCRIPTION).startswith(b"Aperio"):
        for image in images:
            if image.is_tiled and image.size not in levels:
                raise DamagedSlideError(
                    f"{path}: image {image.number} of {image.size.w} × {image.size.h} px is tiled and no level; the file is damaged, {_AGAIN}"
                )


def missing_tiles(path: Path) -> list[tuple[Size, Region]]:
    """Tiles that a TIFF has no bytes of, or a sparse DICOM slide no frames: the size of their level, and the tile in px of that level.

    Some writers leave out tiles of plain glass; whether tissue is missing, the picture must say.

    Raises
    ------
    DamagedSlideError
        A DICOM slide does not say where its frames are, or claims more than there can be.
    """
    if not is_remote(path) and (path.is_dir() or is_dicom(path)):
        try:
            return missing_frames(path)
        except UnsupportedFormatError:  # a folder of another kind
            return []
    if not is_checkable(path):
        return []
    return [(d.size, region) for d in directories(path) if d.is_tiled for region in d.missing()]
