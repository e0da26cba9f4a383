"""How fast is each stage here, alone and together, and which one holds the others up?"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsikit.cut import Canvas, normalise
from wsikit.errors import SlideError
from wsikit.geometry import Region
from wsikit.grid import TileGrid
from wsikit.models import load_model
from wsikit.slide import Slide
from wsikit.survey import survey

REPEATS = 3


def bench_slide(path: Path, model: str, mpp: float = 0.5, side_px: int = 2048, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Median MPx/s of reading, resampling, stain and inference on one square of tissue of a slide, in one thread.

    Raises
    ------
    SlideError
        The slide cannot be used, has no tissue, or is smaller than a tile.
    """
    torch.set_num_threads(1)
    slide = Slide(path)
    found = survey(slide)
    if not found.mask.tissue.any():
        raise SlideError(f"{path}: no tissue was found on this slide, so nothing would be measured; take one with tissue")
    raster = slide.raster(max(mpp, *slide.require_mpp()))
    side = min(side_px, *raster.size)
    x, y = _densest(found.mask.tissue, side * raster.downsample[0] / found.raster.downsample[0], side * raster.downsample[1] / found.raster.downsample[1])
    x, y = round(x * found.raster.downsample[0] / raster.downsample[0]), round(y * found.raster.downsample[1] / raster.downsample[1])
    window = raster.source_window(x, y, side, side)
    pixels = slide.read_raster(raster, x, y, side, side)
    network = load_model(model)
    grid = TileGrid(raster, network.card.tile_px)
    if side < grid.tile_px:
        raise SlideError(f"{path}: {side} px at {raster.mpp[0]:g} µm/px is less than one tile of {network.card.name} ({grid.tile_px} px); take a larger slide")
    canvas = Canvas(normalise(pixels, found.stain), 0, 0, grid.tile_px)
    corners = np.stack(np.meshgrid(*2 * [np.arange(0, side - grid.tile_px + 1, grid.tile_px)]), -1).reshape(-1, 2)[: 4 * network.card.batch]
    tiles = canvas.tiles(corners)
    mpx = side * side / 1e6
    stages = {
        "read": (mpx, lambda: slide.read_level(raster.level, Region(window.x, window.y, window.w, window.h))),
        "read and resample": (mpx, lambda: slide.read_raster(raster, x, y, side, side)),
        "stain": (mpx, lambda: normalise(pixels, found.stain)),
        f"infer {network.card.name}": (len(tiles) * grid.tile_px**2 / 1e6, lambda: network.predict(tiles)),
    }
    rates = {}
    for name, (work, stage) in stages.items():
        rates[name] = float(f"{work / _median_seconds(stage):.3g}")  # a slow network still has a rate above 0
        say(f"{name}: {rates[name]} MPx/s")
    alone = [rates["read and resample"], rates["stain"], rates[f"infer {network.card.name}"]]
    together = 1 / sum(1 / r for r in alone)
    slowest = min(("read and resample", "stain", f"infer {network.card.name}"), key=lambda n: rates[n])
    about = {"slide": path.name, "square_px": side, "mpp": raster.mpp[0]}
    return about | {"mpx_per_s": rates, "one_after_another": float(f"{together:.3g}"), "bottleneck": slowest}


def _densest(tissue: np.ndarray, w: float, h: float) -> tuple[int, int]:
    from wsikit.grid import summed_area

    rows, columns = max(1, min(tissue.shape[0], int(h))), max(1, min(tissue.shape[1], int(w)))
    t = summed_area(tissue)
    sums = t[rows:, columns:] - t[:-rows, columns:] - t[rows:, :-columns] + t[:-rows, :-columns]
    y, x = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(x), int(y)


def _median_seconds(stage: Callable[[], Any]) -> float:
    stage()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        stage()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
