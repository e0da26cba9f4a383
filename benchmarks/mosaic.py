"""A gigapixel-sized slide of real tissue: crops of the public CC0 sample, no two alike, as an Aperio SVS.

Cells of the picture show random crops of tissue, turned, mirrored and in slightly other stain strengths, so that neither
a disk's nor a decoder's cache sees the same bytes twice. The same seed gives the same file. Memory stays bounded: a band
of cells is made, encoded and forgotten.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from wsikit.resample import shrink
from wsikit.sample import cache_path, sample_slide
from wsikit.slide import open_slide
from wsikit.store.durable import digest_of
from wsikit.survey import survey
from wsikit.testing.phantom import Spec, write_phantom

VERSION = 1  # raise it when other pixels would come out
LEVELS = 3
FACTOR = 4  # from one level to the next, as Aperio's scanners have it
MPP = 0.499  # the sample's own


@dataclass(frozen=True)
class Mosaic:
    """What to make. ``width`` and ``height`` in px; ``cell`` is the side of one crop; ``glass`` px are left free all around."""

    width: int = 22_000
    height: int = 20_000
    tile: int = 256
    quality: int = 85
    cell: int = 992  # no multiple of the tile, so crops begin anywhere in a tile
    glass: int = 256
    seed: int = 7


QUICK = Mosaic(width=2816, height=2304)


def bench_folder() -> Path:
    """Where slides made for benchmarks are kept, out of the repository."""
    return cache_path().parent / "bench"


def mosaic_slide(what: Mosaic, folder: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """The path of a mosaic, made if it is not there yet.

    Raises
    ------
    SlideNotFoundError
        The sample slide cannot be found anywhere.
    """
    name = f"mosaic-{what.width}x{what.height}-{digest_of([VERSION, asdict(what)])[:8]}.svs"
    path = (folder or bench_folder()) / name
    if not path.exists():
        say(f"making {path} ({what.width * what.height / 1e9:.2f} gigapixels)")
        _replace(path, lambda part: write_mosaic(part, what))
    return path


def phantom_slide(side: int, folder: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """The path of a square phantom slide of wsikit, made if it is not there yet."""
    path = (folder or bench_folder()) / f"phantom-{side}.tif"
    if not path.exists():
        say(f"making {path} ({side**2 / 1e6:.0f} megapixels)")
        _replace(path, lambda part: write_phantom(part, Spec(3, "LMS", side, side)))
    return path


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"part-{path.name}")
    make(part)
    part.replace(path)


def write_mosaic(path: Path, what: Mosaic) -> None:
    """Write the mosaic; levels 1, 4 and 16, all tiled, YCbCr 4:2:0."""
    levels: list[np.ndarray] = []
    size = (what.height, what.width)
    with tifffile.TiffWriter(path) as tif, ThreadPoolExecutor() as pool:
        _write_level(tif, size, what, _encoded(_kept(_bands(what), size, levels), what, pool), _description(what))
        for _ in range(1, LEVELS):
            rgb = np.concatenate(levels)
            size, levels = rgb.shape[:2], []
            step = what.tile * FACTOR
            _write_level(tif, size, what, _encoded(_kept((rgb[y : y + step] for y in range(0, size[0], step)), size, levels), what, pool), None)


def _write_level(tif: tifffile.TiffWriter, size: tuple[int, int], what: Mosaic, tiles: Iterator[bytes], description: str | None) -> None:
    options = {"tile": (what.tile, what.tile), "photometric": "ycbcr", "compression": "jpeg", "subsampling": (2, 2), "metadata": None}
    about = {"description": description} if description else {}
    tif.write(tiles, shape=(*size, 3), dtype=np.uint8, subfiletype=0 if description else 1, **options, **about)


def _description(what: Mosaic) -> str:
    shape = f"{what.width}x{what.height}"
    return f"Aperio Image Library v12.0.0\n{shape} [0,0 {shape}] ({what.tile}x{what.tile}) JPEG/YCC Q={what.quality}|AppMag = 20|MPP = {MPP:.4f}"


def _kept(bands: Iterator[np.ndarray], size: tuple[int, int], coarse: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The bands themselves; what the next level needs of each is put aside."""
    rows = size[0] // FACTOR
    for band in bands:
        h, w = band.shape[0] // FACTOR * FACTOR, band.shape[1] // FACTOR * FACTOR
        missing = rows - sum(len(c) for c in coarse)
        if h and missing:
            coarse.append(shrink(band[:h, :w], FACTOR)[:missing])
        yield band  # last: the writer does not ask again once it has all tiles


def _encoded(bands: Iterator[np.ndarray], what: Mosaic, pool: ThreadPoolExecutor) -> Iterator[bytes]:
    """The compressed tiles of bands whose height is a whole number of tiles (but for the last), row by row."""
    t = what.tile

    def encode(pixels: np.ndarray) -> bytes:
        padded = np.pad(pixels, ((0, t - pixels.shape[0]), (0, t - pixels.shape[1]), (0, 0)), mode="edge")
        return imagecodecs.jpeg8_encode(padded, level=what.quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")

    for band in bands:
        yield from pool.map(encode, (band[y : y + t, x : x + t] for y in range(0, band.shape[0], t) for x in range(0, band.shape[1], t)))


def _bands(what: Mosaic) -> Iterator[np.ndarray]:
    """Level 0 from top to bottom, in bands of ``FACTOR`` rows of tiles."""
    step = what.tile * FACTOR
    for y in range(0, what.height, step):
        rows = min(step, what.height - y)
        band = np.empty((rows, what.width, 3), np.uint8)
        for row in range(y // what.cell, -(-(y + rows) // what.cell)):
            top = row * what.cell
            a, b = max(y, top), min(y + rows, top + what.cell)
            for column in range(-(-what.width // what.cell)):
                left = column * what.cell
                band[a - y : b - y, left : left + what.cell] = _cell(what, row, column)[a - top : b - top, : what.width - left]
        yield _with_glass(band, y, what)


def _with_glass(band: np.ndarray, y: int, what: Mosaic) -> np.ndarray:
    noise = np.random.default_rng([what.seed, y, 1]).integers(240, 246, band.shape[:2], np.uint8)[..., None]
    rows = np.arange(y, y + len(band))
    outer = (rows < what.glass) | (rows >= what.height - what.glass)
    band[outer] = noise[outer]
    band[:, : what.glass], band[:, -what.glass :] = noise[:, : what.glass], noise[:, -what.glass :]
    return band


@cache
def _source(cell: int) -> tuple[np.ndarray, np.ndarray]:
    """The sample's pixels, and the corners (N, 2) y, x of the crops that hold the most tissue."""
    slide = open_slide(sample_slide())
    rgb = slide.read((0, 0, *slide.size))
    found = survey(slide)
    scale = found.raster.downsample
    corners = np.stack(np.meshgrid(np.arange(0, rgb.shape[0] - cell, 16), np.arange(0, rgb.shape[1] - cell, 16), indexing="ij"), -1).reshape(-1, 2)
    boxes = [found.mask.tissue[int(y / scale[1]) : int((y + cell) / scale[1]), int(x / scale[0]) : int((x + cell) / scale[0])].mean() for y, x in corners]
    return rgb, corners[np.array(boxes) >= np.quantile(boxes, 0.6)]


def _cell(what: Mosaic, row: int, column: int) -> np.ndarray:
    """One crop of tissue, made from its place alone."""
    rng = np.random.default_rng([what.seed, row, column])
    rgb, corners = _source(what.cell)
    y, x = corners[rng.integers(len(corners))] + rng.integers(0, 16, 2)
    y, x = min(y, rgb.shape[0] - what.cell), min(x, rgb.shape[1] - what.cell)
    crop = np.rot90(rgb[y : y + what.cell, x : x + what.cell], rng.integers(4))
    crop = crop[:, ::-1] if rng.integers(2) else crop
    strength = rng.uniform(0.85, 1.15) * rng.uniform(0.96, 1.04, 3)
    table = np.rint(255 * (np.arange(256) / 255)[:, None] ** strength).astype(np.uint8)
    noise = rng.integers(-2, 3, crop.shape[:2], np.int8)[..., None]
    jittered = np.stack([table[crop[..., c], c] for c in range(3)], -1)
    return np.clip(jittered.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the real-tissue mosaic that the benchmark reads.")
    parser.add_argument("--width", type=int, default=Mosaic.width)
    parser.add_argument("--height", type=int, default=Mosaic.height)
    parser.add_argument("--quality", type=int, default=Mosaic.quality)
    parser.add_argument("--tile", type=int, default=Mosaic.tile)
    parser.add_argument("-o", "--folder", type=Path)
    given = parser.parse_args()
    what = Mosaic(given.width, given.height, tile=given.tile, quality=given.quality)
    print(mosaic_slide(what, given.folder, lambda line: print(line, file=sys.stderr)))


if __name__ == "__main__":
    main()
