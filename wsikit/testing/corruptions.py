"""Damage to slides by the seed: cut off, bits flipped in tiles and in headers, tiles that point elsewhere, pages of zeros and of garbage.

The same classes and counts as a published comparison of readers would use: 200 for each slide. Every damaged file differs from the whole one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wsikit.readers._container import directories

CLASSES = {
    "truncation": 40,
    "bit flip in a tile": 40,
    "bit flip in a header": 40,
    "random tile offset": 20,
    "two tiles swapped": 10,
    "random tile size": 10,
    "4096 bytes zeroed": 20,
    "64 bytes of garbage": 20,
}
_OFFSETS, _COUNTS = 324, 325  # TIFF tags
_ITEM = b"\xfe\xff\x00\xe0"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"


class Slot(NamedTuple):
    """Where a number stands in a file: its first byte, its bytes, and the order of these."""

    at: int
    width: int
    order: str

    def get(self, data: bytes | bytearray) -> int:
        """The number."""
        return int.from_bytes(data[self.at : self.at + self.width], "little" if self.order == "<" else "big")

    def set(self, data: bytearray, value: int) -> None:
        """Put another one there."""
        data[self.at : self.at + self.width] = (value % 2 ** (8 * self.width)).to_bytes(self.width, "little" if self.order == "<" else "big")


@dataclass
class Layout:
    """Where what of a file is: tiles (offset, bytes), ranges of headers, and the numbers that say where and how large each tile is."""

    tiles: list[tuple[int, int]] = field(default_factory=list)
    headers: list[tuple[int, int]] = field(default_factory=list)
    places: list[Slot] = field(default_factory=list)
    sizes: list[Slot] = field(default_factory=list)


def layout(path: Path) -> Layout:
    """The layout of a TIFF, or of a DICOM instance with encapsulated frames."""
    return _dicom_layout(path.read_bytes()) if path.suffix == ".dcm" else _tiff_layout(path)


def _tiff_layout(path: Path) -> Layout:
    found = Layout()
    for image in directories(path):
        big = any(kind in (16, 18) for kind, _, _ in image.fields.values())
        found.headers.append((image.offset, image.offset + (8 if big else 2) + (20 if big else 12) * len(image.fields)))
        if not image.is_tiled:
            continue
        found.tiles += [(int(o), int(c)) for o, c in image.segments]
        for tag, slots in ((_OFFSETS, found.places), (_COUNTS, found.sizes)):
            kind, count, at = image.fields[tag]
            width = {3: 2, 4: 4, 16: 8}[kind]
            slots += [Slot(at + i * width, width, image.order) for i in range(count)]
            found.headers.append((at, at + width * count))
    return found


def _dicom_layout(data: bytes) -> Layout:
    found, at = Layout(), data.index(_PIXEL_DATA)
    found.headers.append((132, at + 12))
    at += 12
    while data[at : at + 4] == _ITEM:
        size = Slot(at + 4, 4, "<")
        if found.headers and at > found.headers[0][1]:  # the first item is the table of offsets
            found.tiles.append((at + 8, size.get(data)))
            found.sizes.append(size)
        at += 8 + size.get(data)
    return found


def corruptions(path: Path, share: float = 1.0) -> Iterator[tuple[str, int, bytes]]:
    """Class, seed and bytes of each damaged file; with ``share`` below 1, fewer of each class."""
    data, where = path.read_bytes(), layout(path)
    for name, count in CLASSES.items():
        for seed in range(max(1, round(count * share))):
            rng = random.Random(f"{name} {seed}")
            damaged = bytes(data)
            while damaged == data:
                damaged = _damage(name, rng, bytearray(data), where)
            yield name, seed, damaged


def _damage(name: str, rng: random.Random, data: bytearray, where: Layout) -> bytes:
    if name == "truncation":
        return bytes(data[: rng.randrange(1, len(data))])
    if name.startswith("bit flip"):
        ranges = [(o, o + c) for o, c in where.tiles] if "tile" in name else where.headers
        low, high = rng.choices(ranges, [b - a for a, b in ranges])[0]
        data[rng.randrange(low, high)] ^= 1 << rng.randrange(8)
    elif name == "two tiles swapped":
        _swap(rng, data, where)
    elif name.startswith("random tile"):
        slots = where.places if "offset" in name and where.places else where.sizes
        slot = rng.choice(slots)
        slot.set(data, rng.randrange(8, len(data)) if "offset" in name else rng.randrange(1, max(2, 3 * slot.get(data))))
    else:
        n = 4096 if "zeroed" in name else 64
        at = rng.randrange(0, max(1, len(data) - n))
        data[at : at + n] = bytes(n) if "zeroed" in name else rng.randbytes(n)
    return bytes(data)


def _swap(rng: random.Random, data: bytearray, where: Layout) -> None:
    """One tile's place for another's; where frames stand one behind the other, the frames themselves."""
    if where.places:
        a, b = rng.sample(where.places, 2)
        first, second = a.get(data), b.get(data)
        a.set(data, second)
        b.set(data, first)
        return
    (o1, c1), (o2, c2) = sorted(rng.sample(where.tiles, 2))
    one, between, two = data[o1 - 8 : o1 + c1], data[o1 + c1 : o2 - 8], data[o2 - 8 : o2 + c2]
    data[o1 - 8 : o2 + c2] = two + between + one
