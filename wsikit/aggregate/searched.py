"""Of which tissue is a count, and which detections are in it?

Of what a detector has seen well: neither tiles that it did not look at or that could not be decoded, nor those that are blurred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsikit.grid import Raster, TileGrid, on_mask
from wsikit.salvage import without_cells
from wsikit.store import SlideStore
from wsikit.tissue.quality import blurred

_QUALITY = "quality"


@dataclass(frozen=True)
class Searched:
    """Both bool (H, W) on the low-power raster: the ``tissue`` that was searched, and the tissue that was not, since it is ``blurred``."""

    tissue: np.ndarray
    blurred: np.ndarray


def searched(store: SlideStore, pipeline: str) -> Searched:
    """The tissue of which a pipeline counts the objects."""
    table = store.tables().get(pipeline)
    dropped = table.attributes.get("dropped", []) if table is not None else []
    return without_flaws(store, pipeline, np.array(dropped, np.int64).reshape(-1, 2))


def without_flaws(store: SlideStore, pipeline: str = "", dropped: np.ndarray | None = None) -> Searched:
    """Tissue without blurred tiles; and without those tiles of a pipeline that could not be decoded, its cells (N, 2), or hold too little tissue for it."""
    downsample: tuple[float, float] = tuple(store.attributes["survey"]["raster"]["downsample"])
    tissue, table = store.tissue() == 1, store.tables().get(_QUALITY)
    if pipeline:
        info = store.attributes["stages"][pipeline]
        grid = _grid(info)
        tissue = without_cells(tissue, downsample, grid, np.concatenate([dropped, _too_little(tissue, downsample, grid, info["min_tissue"])]))
    if table is None:
        return Searched(tissue, np.zeros_like(tissue))
    tiles = _grid(store.attributes[_QUALITY])
    dull = blurred({name: table[name] for name in ("blur", "reason")})
    sharp = without_cells(tissue, downsample, tiles, np.rint(table["origin"][dull] / np.array(tiles.tile_size)).astype(np.int64))
    return Searched(sharp, tissue & ~sharp)


def _too_little(tissue: np.ndarray, downsample: tuple[float, float], grid: TileGrid, least: float) -> np.ndarray:
    """The cells with some tissue that were not looked at: int64 (N, 2) column, row."""
    if least == 0:
        return np.empty((0, 2), np.int64)
    share = grid.covered(tissue, downsample)
    return grid.all_cells()[(share > 0) & (share < least)]


def counts_of(store: SlideStore, result: Mapping[str, Any]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Which of some detections (positions (M, 2) in level-0 px, scores (M,)) does an answer count? bool (M,).

    Those from its threshold on, and in the region that it is confined to, where it is. Whoever shows or exports detections beside a count shows these.
    """
    name, threshold = result.get("within", {}).get("region", ""), np.float32(result["threshold"])
    region = store.region(name) if name else None
    downsample: tuple[float, float] = tuple(store.attributes["survey"]["raster"]["downsample"])

    def counts(position: np.ndarray, score: np.ndarray) -> np.ndarray:
        above = np.asarray(score >= threshold)
        return above if region is None else above & on_mask(position, region, downsample)

    return counts


def _grid(info: Mapping[str, Any]) -> TileGrid:
    return TileGrid(Raster.from_json(info["raster"]), info["tile_px"], info["overlap_px"])
