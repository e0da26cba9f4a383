"""Files made on purpose to harm, mislead or exhaust a reader, each with what must become of it.

``refused``: an error of ours when opened or read. ``no mpp``: it opens, and says why it has no resolution. ``missing``: the tiles that are
not there are named. ``reads``: as if nothing were wrong. A number: that is its mpp.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from wsikit.readers._container import directories
from wsikit.testing.slides import write_ome, write_svs

Make = Callable[[Path], Path]
PICTURE = np.random.default_rng(4).integers(90, 250, (14, 19, 3), dtype=np.uint8).repeat(64, 0).repeat(64, 1)
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, X_RESOLUTION, UNIT = 256, 257, 258, 259, 262, 277, 282, 296
TILE_WIDTH, TILE_LENGTH, OFFSETS, COUNTS = 322, 323, 324, 325


def plain(path: Path, **options: Any) -> Path:
    """A tiled RGB TIFF with JPEG tiles and a resolution."""
    settings = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None, "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, PICTURE, **settings | options)
    return path


def svs(path: Path) -> Path:
    """An Aperio slide."""
    return write_svs(path.with_suffix(".svs"), PICTURE)


class _Patch:
    """Changes numbers of a TIFF's first image, by tag."""

    def __init__(self, path: Path) -> None:
        self._path, self.data = path, bytearray(path.read_bytes())
        self.image = next(directories(path))

    def set(self, tag: int, value: int, index: int = 0) -> _Patch:
        kind, _, at = self.image.fields[tag]
        width = {3: 2, 4: 4, 5: 4, 13: 4}[kind]
        self.data[at + index * width : at + (index + 1) * width] = value.to_bytes(width, "little")
        return self

    def entry(self, tag: int, *, kind: int | None = None, count: int | None = None, value: int | None = None) -> _Patch:
        at = self.image.offset + 2 + 12 * list(self.image.fields).index(tag)
        for given, where, form in ((kind, at + 2, "<H"), (count, at + 4, "<I"), (value, at + 8, "<I")):
            if given is not None:
                struct.pack_into(form, self.data, where, given)
        return self

    def next_directory(self, offset: int) -> _Patch:
        struct.pack_into("<I", self.data, self.image.offset + 2 + 12 * len(self.image.fields), offset)
        return self

    def tile(self, index: int, change: Callable[[bytes], bytes]) -> _Patch:
        offset, count = map(int, self.image.segments[index])
        new = change(bytes(self.data[offset : offset + count]))
        self.data[offset : offset + count] = new[:count].ljust(count, b"\0")
        return self

    def done(self) -> Path:
        self._path.write_bytes(self.data)
        return self._path


def _tag(tag: int, value: int, base: Callable[[Path], Path] = plain, index: int = 0) -> Make:
    """A file with one number changed; a tag of 2 bytes is made one of 4 where the number needs it."""

    def make(path: Path) -> Path:
        patch = _Patch(base(path))
        if patch.image.fields[tag][1] == 1 and value >= 2**16:
            return patch.entry(tag, kind=4, value=value).done()
        return patch.set(tag, value, index).done()

    return make


def _bytes(data: bytes, suffix: str) -> Make:
    def make(path: Path) -> Path:
        path.with_suffix(suffix).write_bytes(data)
        return path.with_suffix(suffix)

    return make


def _mpp(text: str) -> Make:
    return lambda path: write_svs(path.with_suffix(".svs"), PICTURE, mpp=text)


def _cut(path: Path) -> Path:
    svs(path)
    data = path.with_suffix(".svs").read_bytes()
    path.with_suffix(".svs").write_bytes(data[: len(data) // 2])
    return path.with_suffix(".svs")


def _no_words(path: Path) -> Path:
    """An Aperio slide whose description says neither mpp nor objective."""
    data = svs(path).read_bytes()
    path.with_suffix(".svs").write_bytes(data.replace(b"AppMag = 20", b"AppXXX = 20").replace(b"MPP = 0.5", b"XXX = 0.5"))
    return path.with_suffix(".svs")


def _loop(to_itself: bool) -> Make:
    def make(path: Path) -> Path:
        with tifffile.TiffWriter(path) as tif:
            for _ in range(2):
                tif.write(PICTURE, tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None)
        patch = _Patch(path)
        second = list(directories(path))[1]
        if to_itself:
            return patch.next_directory(patch.image.offset).done()
        struct.pack_into("<I", patch.data, second.offset + 2 + 12 * len(second.fields), patch.image.offset)
        return patch.done()

    return make


def _sub_directory_loop(path: Path) -> Path:
    patch = _Patch(write_ome(path.with_suffix(".ome.tif"), PICTURE))
    return patch.set(330, patch.image.offset).done()


def _shared_bytes(path: Path) -> Path:
    patch = _Patch(plain(path))
    sizes = patch.image.segments[:, 1]
    largest = int(sizes.argmax())
    return patch.set(OFFSETS, int(patch.image.segments[largest, 0]), 0 if largest else 1).set(COUNTS, int(sizes[largest]), 0 if largest else 1).done()


def _giant_frame(data: bytes) -> bytes:
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", 65500, 65500) + data[at + 9 :]


def _half_zero(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def _bomb(path: Path) -> Path:
    """A deflated tile of 5 MB that unpacks to 1 GiB, twenty times what its side of 4096 px allows: only that much may be unpacked."""
    packer, zeros = zlib.compressobj(1), bytes(2**24)
    packed = b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    patch = _Patch(plain(path, compression="deflate"))
    at = len(patch.data)
    patch.data += packed
    for tag in (WIDTH, LENGTH, TILE_WIDTH, TILE_LENGTH):
        patch.entry(tag, kind=4, count=1, value=4096)
    patch.entry(OFFSETS, count=1, value=at).entry(COUNTS, kind=4, count=1, value=len(packed))
    return patch.done()


def _entities(path: Path) -> Path:
    names = "".join(f'<!ENTITY e{i} "{"&e%d;" % (i - 1) * 10 if i else "Jane Roe"}">' for i in range(10))  # noqa: UP031
    xml = f'<?xml version="1.0"?><!DOCTYPE OME [{names}]><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">&e9;</OME>'
    tifffile.imwrite(path.with_suffix(".ome.tif"), PICTURE, photometric="rgb", description=xml, metadata=None)
    return path.with_suffix(".ome.tif")


def _jpeg(w: int, h: int) -> bytes:
    data = bytes(imagecodecs.jpeg8_encode(PICTURE, level=80))
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", h, w) + data[at + 9 :]


def _png_bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(bytes(2**22), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _npy_bomb() -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6, 3)})
    return buffer.getvalue() + bytes(1000)


CASES: dict[str, tuple[Make, str | float]] = {
    "empty": (_bytes(b"", ".svs"), "refused"),
    "text": (_bytes(b"Macroscopy: a nodule of Jane Roe\n" * 40, ".svs"), "refused"),
    "noise": (_bytes(np.random.default_rng(0).bytes(9999), ".tif"), "refused"),
    "header only": (_bytes(b"II*\0\x08\0\0\0", ".tif"), "refused"),
    "no directory": (_bytes(b"II*\0\0\0\0\0" + bytes(99), ".tif"), "refused"),
    "directory beyond the end": (_bytes(b"II*\0\xff\xff\xff\x7f" + bytes(99), ".tif"), "refused"),
    "2^63 entries": (_bytes(b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2**63) + bytes(99), ".tif"), "refused"),
    "cut in half": (_cut, "refused"),
    "directories in a circle": (_loop(False), "refused"),
    "directory that follows itself": (_loop(True), "refused"),
    "level that is its own level": (_sub_directory_loop, "refused"),
    "width 0": (_tag(WIDTH, 0), "refused"),
    "height 0": (_tag(LENGTH, 0), "refused"),
    "width 2^31": (_tag(WIDTH, 2**31), "refused"),
    "a column of tiles more": (_tag(WIDTH, 1281), "refused"),
    "a column of tiles less": (_tag(WIDTH, 1000), "refused"),
    "tile width 0": (_tag(TILE_WIDTH, 0), "refused"),
    "tile width 2^31 - 16": (_tag(TILE_WIDTH, 2**31 - 16), "refused"),
    "tile of 65536 x 65536": (lambda p: _Patch(_tag(TILE_WIDTH, 65536)(p)).entry(TILE_LENGTH, kind=4, value=65536).done(), "refused"),
    "2^30 bit depths": (lambda p: _Patch(plain(p)).entry(BITS, count=2**30).done(), "refused"),
    "4000 samples": (_tag(SAMPLES, 4000), "refused"),
    "unknown compression": (_tag(COMPRESSION, 52479), "refused"),
    "YCbCr called RGB": (_tag(PHOTOMETRIC, 2), "refused"),
    "tile beyond the end": (_tag(OFFSETS, 2**31, index=3), "refused"),
    "tile of 2^31 bytes": (lambda p: _Patch(plain(p)).entry(COUNTS, kind=4).set(COUNTS, 2**31, 0).done(), "refused"),
    "two tiles in one place": (_shared_bytes, "refused"),
    "tile at 0": (_tag(OFFSETS, 0, svs, 6), "missing"),
    "tile of 0 bytes": (_tag(COUNTS, 0, svs, 6), "missing"),
    "tile of 0 bytes, plain": (_tag(COUNTS, 0, plain, 6), "missing"),
    "frame of 65500 x 65500 in a tile": (lambda p: _Patch(plain(p)).tile(1, _giant_frame).done(), "refused"),
    "tile half zeroed": (lambda p: _Patch(plain(p)).tile(1, _half_zero).done(), "refused"),
    "deflate bomb": (_bomb, "reads"),
    "entities in XML": (_entities, "refused"),
    "PNG bomb": (_bytes(_png_bomb(), ".png"), "refused"),
    "JPEG bomb": (_bytes(_jpeg(65500, 65500), ".jpg"), "refused"),
    "array that is not there": (_bytes(_npy_bomb(), ".npy"), "refused"),
    "mpp 0": (_mpp("0"), "no mpp"),
    "mpp -1": (_mpp("-1"), "no mpp"),
    "mpp 1e308": (_mpp("1e308"), "no mpp"),
    "mpp nan": (_mpp("nan"), "no mpp"),
    "no mpp and no objective": (_no_words, "no mpp"),
    "resolution 0 / 0": (lambda p: _Patch(plain(p)).set(X_RESOLUTION, 0, 0).set(X_RESOLUTION, 0, 1).done(), "no mpp"),
    "resolution without a unit": (_tag(UNIT, 1), "no mpp"),
    "mpp with a comma": (_mpp("0,4990"), 0.499),
}
