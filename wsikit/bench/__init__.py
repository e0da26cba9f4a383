"""How fast is each stage here, alone and together, and which one holds the others up?"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import torch

from wsikit import threads
from wsikit.cut import Canvas, normalise
from wsikit.errors import SlideError
from wsikit.geometry import Region
from wsikit.grid import Raster, TileGrid, summed_area
from wsikit.models import load_model
from wsikit.models._network import Network
from wsikit.slide import Slide, open_slide
from wsikit.store.codec import parse_codec
from wsikit.store.shard import encode_shard
from wsikit.survey import Survey, survey

REPEATS = 3
CODEC, CHUNK_PX = "zstd:1", 256
FLOOR, READ, RESAMPLE, STAIN, ENCODE = "decode floor", "read", "read and resample", "stain", f"encode {CODEC}"
TOGETHER = "slide to shard, together"
Stage = tuple[float, Callable[[], Any]]  # megapixels of the square that it does, and how
_NATIVE = ("native", "tiff")  # readers of compressed tiles that lie in a TIFF
_JPEG = 7


@dataclass(frozen=True)
class _Square:
    """The square of a slide that holds the most tissue, in px of a raster."""

    slide: Slide
    raster: Raster
    found: Survey
    x: int
    y: int
    side: int

    @property
    def window(self) -> Region:
        """Its pixels of the stored level."""
        return self.raster.source_window(self.x, self.y, self.side, self.side)

    def pixels(self) -> np.ndarray:
        return self.slide.read_raster(self.raster, self.x, self.y, self.side, self.side)

    def stained(self, pixels: np.ndarray) -> np.ndarray:
        return np.asarray(normalise(pixels, self.found.stain))


def bench_slide(path: Path, model: str, mpp: float = 0.5, side_px: int = 2048, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Median MPx/s of each stage on one square of tissue of a slide, alone and together; a network uses one thread.

    Speeds are in pixels of the square, whatever lies behind them: at half a level's resolution each of them takes four to read.
    The decode floor, which no reading can beat, is libjpeg-turbo on the compressed tiles under the square, already in memory;
    it is left out for slides that are not JPEG tiles in a TIFF.

    Raises
    ------
    SlideError
        The slide cannot be used, has no tissue, or is smaller than a tile.
    """
    torch.set_num_threads(1)
    square = _square(open_slide(path), mpp, side_px)
    network = load_model(model)
    grid = TileGrid(square.raster, network.card.tile_px)
    if square.side < grid.tile_px:
        name = network.card.name
        raise SlideError(f"{path}: {square.side} px at {square.raster.mpp[0]:g} µm/px is less than one tile of {name} ({grid.tile_px} px); take a larger slide")
    rates = {}
    for name, (work, stage) in _stages(square, network, grid).items():
        rates[name] = float(f"{work / _median_seconds(stage):.3g}")  # a slow network still has a rate above 0
        say(f"{name}: {rates[name]} MPx/s")
    alone = {name: rates[name] for name in (RESAMPLE, STAIN, ENCODE, f"infer {network.card.name}")}
    about: dict[str, Any] = {
        "slide": path.name,
        "reader": square.slide.reader,
        "threads": threads.count(),
        "square_px": square.side,
        "mpp": square.raster.mpp[0],
    }
    about |= {"mpx_per_s": rates, "one_after_another": float(f"{1 / sum(1 / r for r in alone.values()):.3g}")}
    if FLOOR in rates:
        about["of_decode_floor"] = {name: float(f"{rate / rates[FLOOR]:.3g}") for name, rate in rates.items() if name != FLOOR}
    return about | {"bottleneck": min(alone, key=lambda n: alone[n])}


def _stages(square: _Square, network: Network, grid: TileGrid) -> dict[str, Stage]:
    side, mpx = square.side, square.side**2 / 1e6
    pixels = square.pixels()
    stained = square.stained(pixels)
    corners = np.stack(np.meshgrid(*2 * [np.arange(0, side - grid.tile_px + 1, grid.tile_px)]), -1).reshape(-1, 2)[: 4 * network.card.batch]
    tiles = Canvas(stained, 0, 0, grid.tile_px).tiles(corners)
    codec, chunk = parse_codec(CODEC), min(CHUNK_PX, side)
    whole = side // chunk * chunk
    return {
        **_floor(square),
        READ: (mpx, lambda: square.slide.read_level(square.raster.level, square.window)),
        RESAMPLE: (mpx, square.pixels),
        STAIN: (mpx, lambda: square.stained(pixels)),
        ENCODE: (whole**2 / 1e6, lambda: deque(encode_shard(stained[:whole, :whole], chunk, codec), 0)),
        f"infer {network.card.name}": (len(tiles) * grid.tile_px**2 / 1e6, lambda: network.predict(tiles)),
        TOGETHER: (mpx, lambda: deque(encode_shard(square.stained(square.pixels())[:whole, :whole], chunk, codec), 0)),
    }


def _square(slide: Slide, mpp: float, side_px: int) -> _Square:
    found = survey(slide)
    if not found.mask.tissue.any():
        raise SlideError(f"{slide.path}: no tissue was found on this slide, so nothing would be measured; take one with tissue")
    raster = slide.raster(max(mpp, *slide.require_mpp()))
    side = min(side_px, *raster.size)
    scale = [a / b for a, b in zip(raster.downsample, found.raster.downsample, strict=True)]
    x, y = _densest(found.mask.tissue, side * scale[0], side * scale[1])
    return _Square(slide, raster, found, round(x / scale[0]), round(y / scale[1]), side)


def _densest(tissue: np.ndarray, w: float, h: float) -> tuple[int, int]:
    rows, columns = max(1, min(tissue.shape[0], int(h))), max(1, min(tissue.shape[1], int(w)))
    t = summed_area(tissue)
    sums = t[rows:, columns:] - t[:-rows, columns:] - t[rows:, :-columns] + t[:-rows, :-columns]
    y, x = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(x), int(y)


def _floor(square: _Square) -> dict[str, Stage]:
    """The decoder alone, as a stage; none where the slide is not JPEG tiles in a TIFF."""
    slide, size = square.slide, square.slide.levels[square.raster.level].size
    if slide.reader not in _NATIVE:
        return {}
    with tifffile.TiffFile(slide.path) as tif:
        pages = [p for p in (level for page in tif.pages for level in (page, *(page.pages or ()))) if (p.imagewidth, p.imagelength) == size]
        page = next((p for p in pages if p.is_tiled and p.compression == _JPEG and p.planarconfig == 1), None)
        if page is None:
            return {}
        w, h, tables = page.tilewidth, page.tilelength, page.jpegtables
        box, across = square.window.clip(size), -(-size.w // w)
        wanted = [r * across + c for r in range(box.y // h, -(-box.y1 // h)) for c in range(box.x // w, -(-box.x1 // w))]
        segments = [s for s in (_segment(tif, page.dataoffsets[i], page.databytecounts[i]) for i in wanted) if s]
    work = square.side**2 / 1e6 * len(segments) * w * h / (box.w * box.h)
    return {FLOOR: (work, lambda: threads.each(lambda data: imagecodecs.jpeg8_decode(data, tables=tables), segments))}


def _segment(tif: tifffile.TiffFile, offset: int, count: int) -> bytes:
    tif.filehandle.seek(offset)
    return bytes(tif.filehandle.read(count))


def _median_seconds(stage: Callable[[], Any]) -> float:
    stage()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        stage()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
