"""The quality stage of a slide: laid out with its store, measured in its blocks, put together and summed up at its end.

What the low-power picture knows (tissue, ink, folds, black, glass) is in ``labels/quality``; only blur needs the blocks' pixels.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from wsikit.cut import Canvas
from wsikit.errors import ResolutionMismatchError
from wsikit.grid import Raster, TileGrid
from wsikit.overlay.heat import heat_map, heat_placement
from wsikit.run.plan import QUALITY, Stage, grid_info
from wsikit.slide import Slide
from wsikit.store import SlideStore
from wsikit.store.columns import write_table
from wsikit.store.durable import digest_of
from wsikit.store.image import write_image
from wsikit.tissue import quality
from wsikit.tissue.quality import BLURRED, MIN_MEASURED, MIN_TISSUE, MPP, PENS, REASONS, TILE_PX, USED, Window, blurred, median_blur

VERSION = 1  # raise it when a column would come out otherwise
CHANNELS = ("tissue", "blur", "pen", "fold", "black")
_NEAR = 0.02  # µm/px this close to the stated ones are as good
_COARSEST = 1.1
_NEVER = 2.0  # no tile has that share of tissue, so none is read


def quality_layout(slide: Slide, kept: TileGrid | None) -> dict[str, Any]:
    """The grid of a slide's quality tiles, how many px a side are averaged before blur is measured, and why blur is not, if it is not.

    Read from the kept pixels' own raster where 1 µm/px is a whole multiple of it, so that nothing is decoded twice. It depends on the
    slide and on how pixels are kept, never on models.
    """
    if kept is not None and max(kept.raster.mpp) > _COARSEST:
        return _unmeasured(kept.raster, f"pixels are kept at {max(kept.raster.mpp):.4g} µm/px")
    if kept is not None:
        factor = round(MPP / math.sqrt(math.prod(kept.raster.mpp)))
        if factor and all(abs(factor * m / MPP - 1) <= _NEAR for m in kept.raster.mpp):
            return {**grid_info(TileGrid(kept.raster, TILE_PX * factor)), "factor": factor, "reason": ""}
    try:
        return {**grid_info(TileGrid(slide.raster(MPP), TILE_PX)), "factor": 1, "reason": ""}
    except ResolutionMismatchError:
        return _unmeasured(slide.reduced(1), f"the slide has {max(slide.require_mpp()):.4g} µm/px")


def _unmeasured(raster: Raster, why: str) -> dict[str, Any]:
    tile_px = max(1, round(MPP * TILE_PX / math.sqrt(math.prod(raster.mpp))))
    return {**grid_info(TileGrid(raster, tile_px)), "factor": 0, "reason": f"{why}, blur is measured at {MPP:g}"}


def quality_stage(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What the plan needs of the stage."""
    info = attributes["quality"]
    grid = {k: info[k] for k in ("raster", "tile_px", "overlap_px")}
    return {"key": digest_of([attributes["survey"]["key"], QUALITY, VERSION, info]), "min_tissue": MIN_MEASURED if info["factor"] else _NEVER, **grid}


def measure(attributes: Mapping[str, Any], stage: Stage, rows: np.ndarray, canvas: Canvas, tissue: np.ndarray) -> dict[str, np.ndarray]:
    """The blur of some tiles of a block; ``row`` int64 says which of the stage's tiles each is. ``tissue`` is that of the whole slide."""
    factor = attributes["quality"]["factor"]
    at, low = stage.grid.raster, Raster.from_json(attributes["survey"]["raster"])
    rgb = canvas.array()
    x, y = (
        _under(start, length, at.size[axis] - 2 * factor, at.downsample[axis] / low.downsample[axis], tissue.shape[1 - axis])
        for axis, (start, length) in enumerate(((canvas.x, rgb.shape[1]), (canvas.y, rgb.shape[0])))
    )
    corners = stage.grid.corners_px(stage.cells[rows]) - (canvas.x, canvas.y)
    return {"row": rows, "blur": quality.blur(rgb, corners, stage.grid.tile_px, factor, Window(tissue, y, x))}


def _under(start: int, length: int, last: int, ratio: float, limit: int) -> np.ndarray:
    """Which pixel of the mask each of some pixels lies on: int64; −1 beyond the ``last`` whose neighbours are all on the slide."""
    px = np.arange(start, start + length)
    return np.where((px >= 0) & (px <= last), np.minimum((px + 0.5) * ratio, limit - 1).astype(np.int64), -1)


def write_quality(path: Path, store: SlideStore, stage: Stage, parts: Iterable[Path]) -> None:
    """``tables/quality``, a row for every tile that is not plain glass, and ``overlays/quality``."""
    grid, info = stage.grid, store.attributes["quality"]
    shares = quality.tile_shares(store.kinds(), tuple(store.attributes["survey"]["raster"]["downsample"]), grid)
    why = quality.left_out(shares)
    blur = np.full(len(why), np.nan, np.float32)
    measured = stage.cells[:, 1] * grid.shape[0] + stage.cells[:, 0]
    for part in parts:
        columns = load_file(part)
        blur[measured[columns["row"]]] = columns["blur"]
    kept = np.flatnonzero(why != REASONS.index("glass"))
    cells = grid.all_cells()[kept]
    table = {"origin": grid.origins(cells), "size": np.tile(np.array(grid.tile_size), (len(kept), 1)), "reason": why[kept], "blur": blur[kept]}
    table |= {name: values[kept].astype(np.float32) for name, values in shares.items()}
    attributes = {
        "task": QUALITY,
        "key": stage.key,
        "cells": list(grid.shape),
        "reasons": list(REASONS),
        "min_tissue": MIN_TISSUE,
        "n_glass": len(why) - len(kept),
        "units": {"blur": f"variance of the Laplacian of luminance, grey levels squared, at {MPP:g} µm/px: low is blurred", "shares": "of the tile"},
        "blur_reason": info["reason"],
    }
    for folder in (path / "tables" / QUALITY, path / "overlays" / QUALITY):
        shutil.rmtree(folder, ignore_errors=True)
    write_table(path / "tables" / QUALITY, table, attributes)
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    omero = {"channels": [{"label": c, "color": "FFFFFF", "active": c == CHANNELS[0], "window": window} for c in CHANNELS]}
    heat = heat_map(grid, cells, heat_channels(table))
    write_image(path / "overlays" / QUALITY, QUALITY, [heat], [heat_placement(grid)], fill=float("nan"), extra={"omero": omero})


def heat_channels(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """What the heat map shows of each tile, all 0–1: float32 (N, 5), see `CHANNELS`.

    Blur is 1 for a tile without any detail, 0.5 where it begins to be called blurred, and 0 from twice that sharpness on.
    """
    middle = median_blur(table)
    blur = np.clip(1 - table["blur"] / (2 * BLURRED * middle), 0, 1) if middle else np.full(len(table["blur"]), np.nan)
    pen = np.clip(sum(table[p] for p in PENS), 0, 1)
    return np.stack([table["tissue"], blur, pen, table["fold"], table["black"]], -1).astype(np.float32)


def quality_summary(store: SlideStore) -> dict[str, Any]:
    """What a slide's result says of its quality: shares of the slide (folds: of its tissue), blur, and tiles by reason."""
    table, shares = store.tables()[QUALITY], store.attributes["survey"]["shares"]
    columns = {name: table[name] for name in ("blur", "reason")}
    measured, middle = (columns["reason"] == USED) & ~np.isnan(columns["blur"]), median_blur(columns)
    count = np.bincount(columns["reason"], minlength=len(REASONS)).tolist()
    count[REASONS.index("glass")] += table.attributes["n_glass"]
    return {
        **shares,
        "blur_median": middle and round(middle, 3),
        "blurred": None if middle is None else round(float(blurred(columns)[measured].mean()), 6),
        "blur_reason": table.attributes["blur_reason"],
        "tiles": dict(zip(REASONS, count, strict=True)),
    }
