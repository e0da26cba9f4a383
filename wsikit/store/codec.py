"""How kept pixels are encoded: lossless zstd by default, JPEG where size matters more than the last grey level.

Each chunk is one stored tile. zarr-python alone reads ``zstd``; ``jpeg`` has the name and settings of the codec in
``imagecodecs.zarr``, and is registered here for the Python versions whose imagecodecs has none. Both end in a checksum, so
that bit rot is an error and not a colour.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import google_crc32c
import imagecodecs
import numba
import numpy as np
import zstandard
from zarr.abc.codec import ArrayBytesCodec
from zarr.codecs import Crc32cCodec, TransposeCodec, ZstdCodec
from zarr.registry import register_codec

from wsikit.errors import UsageError


class PixelCodec(ABC):
    """A codec of ``--codec``: how zarr-python is told of it, and how a chunk's bytes are made without it."""

    @abstractmethod
    def zarr_arguments(self) -> dict[str, Any]:
        """Arguments of `zarr.create_array`."""

    @abstractmethod
    def encode(self, pixels: np.ndarray) -> bytes:
        """The bytes of a chunk, from uint8 (chunk, chunk, 3); the array stores it as (3, chunk, chunk)."""


@dataclass(frozen=True)
class Zstd(PixelCodec):
    """Lossless; its frame has a checksum."""

    level: int

    def zarr_arguments(self) -> dict[str, Any]:
        """The standard zstd codec."""
        return {"compressors": [ZstdCodec(level=self.level, checksum=True)]}

    def encode(self, pixels: np.ndarray) -> bytes:
        """Planes one after another, which compress better than interleaved colours."""
        planes = np.empty((3, *pixels.shape[:2]), np.uint8)
        _part_colours(pixels, planes)
        return _compressor(self.level, threading.get_ident()).compress(planes.data)


@lru_cache(maxsize=64)
def _compressor(level: int, _thread: int) -> zstandard.ZstdCompressor:
    """A compressor that is used again, by one thread.

    At level 1 only matches of 7 bytes and more are looked for, in a small table: pixels hardly ever have shorter ones worth taking, and
    the same size comes out a quarter faster (measured on real tissue).
    """
    if level != 1:
        return zstandard.ZstdCompressor(level, write_checksum=True)
    search = {"strategy": zstandard.STRATEGY_FAST, "window_log": 19, "hash_log": 12, "chain_log": 6, "search_log": 1, "min_match": 7, "target_length": 0}
    return zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(**search, write_checksum=True))


@dataclass(frozen=True)
class Jpeg(PixelCodec):
    """JPEG 4:2:0 of that quality, then crc32c."""

    quality: int

    def zarr_arguments(self) -> dict[str, Any]:
        """Colours last, JPEG, checksum."""
        return {"filters": [TransposeCodec(order=(1, 2, 0))], "serializer": JpegCodec(level=self.quality), "compressors": [Crc32cCodec()]}

    def encode(self, pixels: np.ndarray) -> bytes:
        """The same bytes as zarr-python makes through `JpegCodec`."""
        data = encode_jpeg(pixels, self.quality)
        return data + google_crc32c.value(data).to_bytes(4, "little")


def parse_codec(text: str) -> PixelCodec:
    """The pixel codec of ``--codec``: ``zstd``, ``zstd:LEVEL``, ``jpeg`` or ``jpeg:QUALITY``.

    Raises
    ------
    UsageError
        It is another codec, or a level or quality that it does not have.

    >>> parse_codec("jpeg:90")
    Jpeg(quality=90)
    """
    name, given, number = text.partition(":")
    value = int(number) if number.isdigit() else -1
    if name == "zstd" and (not given or 0 <= value <= 22):
        return Zstd(value if given else 1)
    if name == "jpeg" and (not given or 50 <= value <= 100):
        return Jpeg(value if given else 90)
    raise UsageError(f"codec '{text}' is not known; use zstd or zstd:LEVEL (0 to 22, lossless), or jpeg:QUALITY (50 to 100)")


@numba.njit(cache=True, nogil=True)
def _part_colours(pixels: np.ndarray, planes: np.ndarray) -> None:
    """What ``planes[...] = np.moveaxis(pixels, -1, 0)`` does, several times faster."""
    for y in range(pixels.shape[0]):
        red, green, blue, row = planes[0, y], planes[1, y], planes[2, y], pixels[y]
        for x in range(row.shape[0]):
            red[x], green[x], blue[x] = row[x, 0], row[x, 1], row[x, 2]


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """A JPEG with halved chroma, as scanners write it, from uint8 (H, W, 3)."""
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), quality, subsampling="420"))


class JpegCodec(ArrayBytesCodec):
    """``imagecodecs_jpeg`` for zarr-python, with the settings that we use: ``level``."""

    is_fixed_size = False

    def __init__(self, *, level: int, subsampling: str | None = "420") -> None:
        self.level, self.subsampling = level, subsampling

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """From a store's metadata."""
        settings = data.get("configuration", {})
        return cls(level=settings.get("level", 90), subsampling=settings.get("subsampling"))

    def to_dict(self) -> dict[str, Any]:
        """For a store's metadata."""
        return {"name": "imagecodecs_jpeg", "configuration": {"level": self.level, "subsampling": self.subsampling}}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JpegCodec) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.level, self.subsampling))

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        pixels = imagecodecs.jpeg8_decode(chunk_bytes.to_bytes())
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(pixels.reshape(chunk_spec.shape))

    def _encode_sync(self, chunk_array: Any, chunk_spec: Any) -> Any:
        data = encode_jpeg(chunk_array.as_numpy_array(), self.level)
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return self._decode_sync(chunk_data, chunk_spec)

    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return self._encode_sync(chunk_data, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: Any) -> int:
        """Not known before it is encoded.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError("the size of a JPEG is known only once it is encoded")


register_codec("imagecodecs_jpeg", JpegCodec)
