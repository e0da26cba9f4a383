"""A block's pixels as one Zarr shard, its chunks encoded by several threads.

zarr-python encodes a shard's chunks one after another through its codec pipeline, at about a third of the codec's own speed. This
writes the same layout (Zarr v3 ``sharding_indexed``, its index at the end: offset and length of each chunk as little-endian
uint64, then their crc32c), which zarr-python and every other reader opens.
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c
import numpy as np

from wsikit import threads
from wsikit.store.codec import PixelCodec

_AT_ONCE = 32  # chunks: they are written while the next ones are encoded
_ABSENT = 2**64 - 1  # offset and length of a chunk that holds only the fill value


def encode_shard(rgb: np.ndarray, chunk_px: int, codec: PixelCodec, fill: int = 255) -> Iterator[bytes]:
    """The bytes of a shard (such as ``0/c/0/3/4``), part by part; none when every pixel has the fill value, and there is to be no file.

    Parameters
    ----------
    rgb : uint8 (S, S, 3), S a whole multiple of ``chunk_px``; chunks are stored as (3, chunk_px, chunk_px)
    """
    across = rgb.shape[1] // chunk_px
    chunks: list[bytes] = [b""] * (rgb.shape[0] // chunk_px * across)
    length = np.zeros(len(chunks), np.uint64)

    def encode(i: int) -> None:
        y, x = i // across * chunk_px, i % across * chunk_px
        pixels = rgb[y : y + chunk_px, x : x + chunk_px]
        # most chunks differ in their first row, which saves comparing the rest
        if not ((pixels[0] == fill).all() and (pixels == fill).all()):
            chunks[i] = codec.encode(pixels)

    for start in range(0, len(chunks), _AT_ONCE):
        some = range(start, min(start + _AT_ONCE, len(chunks)))
        threads.each(encode, some)
        for i in some:
            length[i] = len(chunks[i])
            if chunks[i]:
                yield chunks[i]
            chunks[i] = b""
    if length.any():
        index = np.stack([np.cumsum(length) - length, length], -1).astype("<u8")
        index[length == 0] = _ABSENT
        tail = index.tobytes()
        yield tail + google_crc32c.value(tail).to_bytes(4, "little")
