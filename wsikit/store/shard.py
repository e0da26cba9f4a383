"""A block's pixels as one Zarr shard, its chunks encoded by several threads.

zarr-python encodes a shard's chunks one after another through its codec pipeline, at about a third of the codec's own speed. This
writes the same layout (Zarr v3 ``sharding_indexed``, its index at the end: offset and length of each chunk as little-endian
uint64, then their crc32c), which zarr-python and every other reader opens.
"""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np

from wsikit import threads
from wsikit.store.codec import PixelCodec
from wsikit.store.durable import atomic_file

_ABSENT = 2**64 - 1  # offset and length of a chunk that holds only the fill value


def write_shard(path: Path, rgb: np.ndarray, chunk_px: int, codec: PixelCodec, fill: int = 255) -> bool:
    """Write the shard of a square of pixels; returns whether there was anything but the fill value to write.

    Parameters
    ----------
    path : the shard's file, such as ``0/c/0/3/4``
    rgb : uint8 (S, S, 3), S a whole multiple of ``chunk_px``; chunks are stored as (3, chunk_px, chunk_px)

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    parts = encode_shard(rgb, chunk_px, codec, fill)
    if not parts:
        path.unlink(missing_ok=True)
        return False
    with atomic_file(path) as f:
        f.writelines(parts)
    return True


def encode_shard(rgb: np.ndarray, chunk_px: int, codec: PixelCodec, fill: int = 255) -> list[bytes]:
    """The bytes of a shard in parts, as `write_shard` writes them; none when every pixel has the fill value."""
    across = rgb.shape[1] // chunk_px
    chunks: list[bytes] = [b""] * (rgb.shape[0] // chunk_px * across)

    def encode(i: int) -> None:
        y, x = i // across * chunk_px, i % across * chunk_px
        pixels = rgb[y : y + chunk_px, x : x + chunk_px]
        # most chunks differ in their first row, which saves comparing the rest
        if not ((pixels[0] == fill).all() and (pixels == fill).all()):
            chunks[i] = codec.encode(pixels)

    threads.each(encode, range(len(chunks)))
    if not any(chunks):
        return []
    length = np.array([len(c) for c in chunks], np.uint64)
    index = np.stack([np.cumsum(length) - length, length], -1).astype("<u8")
    index[length == 0] = _ABSENT
    tail = index.tobytes()
    return [*chunks, tail, google_crc32c.value(tail).to_bytes(4, "little")]
