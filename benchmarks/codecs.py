"""Size and speed of each pixel codec on real, stain-normalised tissue, one core: the figures behind the defaults.

uv run python benchmarks/codecs.py
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsikit.cut import normalise
from wsikit.sample import sample_slide
from wsikit.slide import open_slide
from wsikit.store.codec import parse_codec
from wsikit.survey import survey

CODECS = ("zstd:0", "zstd:1", "zstd:3", "zstd:9", "jpeg:80", "jpeg:90", "jpeg:95")
CHUNK_PX, REPEATS = 256, 3


def chunks() -> list[NDArray[np.uint8]]:
    """The whole tiles of the sample slide in which there is tissue, Macenko-normalised."""
    slide = open_slide(sample_slide())
    found = survey(slide)
    w, h = slide.size
    rgb = np.asarray(normalise(slide.read((0, 0, w, h)), found.stain))
    tiles = [rgb[y : y + CHUNK_PX, x : x + CHUNK_PX] for y in range(0, h - CHUNK_PX + 1, CHUNK_PX) for x in range(0, w - CHUNK_PX + 1, CHUNK_PX)]
    return [t for t in tiles if (t < 220).any(-1).mean() > 0.5]


def seconds(work: Callable[[], object]) -> float:
    """The least processor time of a few tries."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def decoder(name: str) -> Callable[[bytes], object]:
    """What reads a chunk back."""
    return (lambda data: imagecodecs.jpeg8_decode(data[:-4])) if name.startswith("jpeg") else imagecodecs.zstd_decode


def main() -> None:
    """Print the table."""
    os.environ["WSIKIT_THREADS"] = "1"
    tiles = chunks()
    mpx = len(tiles) * CHUNK_PX**2 / 1e6
    print(f"{len(tiles)} tiles of {CHUNK_PX} px, {mpx:.1f} megapixels\n")
    print("| codec | bytes/px | of raw | encode, MPx/s a core | decode, MPx/s a core | grey levels off, mean (99th percentile) |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in CODECS:
        codec, decode = parse_codec(name), decoder(name)
        data = [codec.encode(t) for t in tiles]
        size = sum(map(len, data)) / (mpx * 1e6)
        encode_s = seconds(lambda c=codec: [c.encode(t) for t in tiles])  # type: ignore[misc]
        decode_s = seconds(lambda d=data, f=decode: [f(x) for x in d])  # type: ignore[misc]
        off = "0"
        if name.startswith("jpeg"):
            difference = np.concatenate([np.abs(np.asarray(decode(d)).astype(int) - t).ravel() for d, t in zip(data, tiles, strict=True)])
            off = f"{difference.mean():.2f} ({np.percentile(difference, 99):.0f})"
        print(f"| `{name}` | {size:.3f} | {size / 3:.0%} | {mpx / encode_s:.0f} | {mpx / decode_s:.0f} | {off} |")


if __name__ == "__main__":
    main()
