"""Of which tissue is a count? Of what a detector has seen well: neither tiles that could not be decoded, nor those that are blurred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsikit.grid import Raster, TileGrid
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
    cells = table.attributes.get("dropped", []) if table is not None else []
    return without_flaws(store, _grid(store.attributes["stages"][pipeline]) if cells else None, np.array(cells))


def without_flaws(store: SlideStore, grid: TileGrid | None = None, dropped: np.ndarray | None = None) -> Searched:
    """Tissue without blurred tiles, and without cells (N, 2) of a grid that could not be decoded."""
    downsample: tuple[float, float] = tuple(store.attributes["survey"]["raster"]["downsample"])
    tissue, table = store.tissue() == 1, store.tables().get(_QUALITY)
    if grid is not None and dropped is not None:
        tissue = without_cells(tissue, downsample, grid, dropped)
    if table is None:
        return Searched(tissue, np.zeros_like(tissue))
    tiles = _grid(store.attributes[_QUALITY])
    dull = blurred({name: table[name] for name in ("blur", "reason")})
    sharp = without_cells(tissue, downsample, tiles, np.rint(table["origin"][dull] / np.array(tiles.tile_size)).astype(np.int64))
    return Searched(sharp, tissue & ~sharp)


def _grid(info: Mapping[str, Any]) -> TileGrid:
    return TileGrid(Raster.from_json(info["raster"]), info["tile_px"], info["overlap_px"])
