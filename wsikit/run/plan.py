"""Which tiles does each model want of a slide, and in which blocks? Pure: the same mask gives the same plan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsikit.geometry import Size
from wsikit.grid import Block, BlockGrid, Raster, TileGrid
from wsikit.store.durable import digest_of

PIXELS, TILES, QUALITY, DAMAGED = "pixels", "tiles", "quality", "damaged"
BLOCK_PX = 4096
MAX_BLOCK = 1.25
PYRAMID_FACTOR = 4
BLOCK_LEVELS = 3  # stored levels that a block writes: 1, 4 and 16 px a side per pixel
BLOCK_MULTIPLE = PYRAMID_FACTOR ** (BLOCK_LEVELS - 1)


@dataclass(frozen=True)
class Stage:
    """What one model (or the kept pixels) wants of a slide.

    Attributes
    ----------
    name : the pipeline, ``pixels`` or ``quality``
    key : digest of everything that its numbers depend on
    grid : the cells
    cells : int64 (N, 2) column, row of the tiles with enough tissue, row by row
    tissue : float64 (N,), share of each tile
    """

    name: str
    key: str
    grid: TileGrid
    cells: np.ndarray
    tissue: np.ndarray


def make_stage(name: str, key: str, grid: TileGrid, mask: np.ndarray, mask_raster: Raster, min_tissue: float) -> Stage:
    """The tiles of a grid of which at least ``min_tissue`` (and some) is tissue."""
    share = grid.covered(mask, mask_raster.downsample)
    keep = (share >= min_tissue) & (share > 0)
    return Stage(name, key, grid, grid.all_cells()[keep], share[keep])


@dataclass(frozen=True)
class Plan:
    """All stages of a slide, and the blocks that they are done in."""

    blocks: BlockGrid
    stages: Mapping[str, Stage]

    def work(self) -> dict[Block, list[str]]:
        """Which stages have tiles in which block, row by row."""
        out: dict[Block, list[str]] = {}
        for name, stage in self.stages.items():
            for block in self.blocks.blocks(stage.grid.centres(stage.cells)):
                out.setdefault(block, []).append(name)
        return dict(sorted(out.items()))

    def part_key(self, name: str) -> str:
        """Digest of everything that a block's part of a stage depends on: also how blocks are cut."""
        return digest_of([self.stages[name].key, self.blocks.side])

    def rows(self, name: str, block: Block) -> np.ndarray:
        """Which rows of a stage's cells lie in a block: int64, ascending."""
        stage = self.stages[name]
        return self.blocks.select(stage.grid.centres(stage.cells), block)


def finest_downsample(grids: Iterable[TileGrid]) -> tuple[float, float]:
    """Level-0 px per pixel of the finest of some grids (x, y)."""
    found = [g.raster.downsample for g in grids]
    return (min(d[0] for d in found), min(d[1] for d in found)) if found else (1.0, 1.0)


def block_grid(grids: Mapping[str, TileGrid], block_px: int, shard: int | None = None) -> BlockGrid:
    """Squares of ``block_px`` at the finest resolution that is read; of one shard of kept pixels, where there are any."""
    if shard is not None:
        dx, dy = grids[PIXELS].raster.downsample
        return BlockGrid((shard * dx, shard * dy))
    dx, dy = finest_downsample(grids.values())
    return BlockGrid((block_px * dx, block_px * dy))


def stored_tile_px(tile_px: int) -> int:
    """Side of the stored chunks for tiles of this side: the same, or the next multiple of 16 where whole tiles would make a block huge.

    A block is a whole number of chunks and of the pixels of its coarsest level, so 997 px would make blocks of 15,952 px.

    >>> [stored_tile_px(n) for n in (256, 299, 500, 997)]
    [256, 299, 500, 1008]
    """
    if math.lcm(tile_px, BLOCK_MULTIPLE) <= MAX_BLOCK * BLOCK_PX:
        return tile_px
    return -(-tile_px // BLOCK_MULTIPLE) * BLOCK_MULTIPLE


def shard_px(grid: TileGrid, finest: tuple[float, float], block_px: int) -> int:
    """Stored pixels along a block's side: about ``block_px`` at the finest resolution that is read.

    A whole number of stored tiles and, at each level that a block writes, of pixels.
    """
    unit = math.lcm(grid.tile_px, BLOCK_MULTIPLE)
    return max(1, round(block_px * finest[0] / grid.raster.downsample[0] / unit)) * unit


def chunk_px(shard: int, tile_px: int) -> int:
    """Side of the chunks of a shard: a tile, or the whole shard of a coarser level that tiles do not divide."""
    return tile_px if shard % tile_px == 0 else shard


def grid_info(grid: TileGrid) -> dict[str, Any]:
    """A grid as plain values for the store's attributes; which of its cells are kept follows from the mask."""
    return {"raster": grid.raster.to_json(), "tile_px": grid.tile_px, "overlap_px": grid.overlap_px}


def grid_of(info: Mapping[str, Any]) -> TileGrid:
    """The inverse of `grid_info`."""
    return TileGrid(Raster.from_json(info["raster"]), info["tile_px"], info["overlap_px"])


def pyramid_sizes(size: Size, smallest: int = 512) -> list[Size]:
    """Sizes of the stored levels by fours, until one is at most ``smallest`` px."""
    sizes = [size]
    while max(sizes[-1]) > smallest:
        last = sizes[-1]
        sizes.append(Size(-(-last.w // PYRAMID_FACTOR), -(-last.h // PYRAMID_FACTOR)))
    return sizes
