"""Which tiles does a slide have, and which block does each belong to? Pure arithmetic, no pixels.

A `Raster` is the slide seen at one resolution. A `TileGrid` lays cells over it; a tile is a cell plus
half the overlap on every side. A `BlockGrid` cuts the slide into squares of work, and a tile belongs to the
block that holds its centre, so that every tile is in exactly one block whatever the blocks' size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsikit.errors import ResolutionMismatchError, UsageError
from wsikit.geometry import Level, Region, Size
from wsikit.resample import source_span

SNAP = 0.02  # steps closer than this to a whole number are taken as that: resampling by 1.01 or 2.02 only blurs
MAX_UPSAMPLE = 1.1


@dataclass(frozen=True)
class Raster:
    """The slide at one resolution: pixel (i, j) covers ``[i·dx, (i+1)·dx) × …`` in level-0 px.

    Attributes
    ----------
    level : the stored level that is read
    step : source px of that level per raster px (x, y)
    downsample : level-0 px per raster px (x, y)
    size : raster px that cover the slide
    mpp : µm per raster px (x, y), the real ones
    """

    level: int
    step: tuple[float, float]
    downsample: tuple[float, float]
    size: Size
    mpp: tuple[float, float]

    @property
    def enlarged(self) -> float | None:
        """How many times the finest pixels were enlarged for these; None where that is too little to matter."""
        times = 1 / min(self.step)
        return round(times, 3) if times > MAX_UPSAMPLE else None

    def source_window(self, x: int, y: int, w: int, h: int) -> Region:
        """Pixels of the stored level under raster pixels ``[x, x+w) × [y, y+h)``."""
        x0, x1 = source_span(x, w, self.step[0])
        y0, y1 = source_span(y, h, self.step[1])
        return Region(x0, y0, x1 - x0, y1 - y0)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers for the store's attributes."""
        return {"level": self.level, "step": list(self.step), "downsample": list(self.downsample), "size": list(self.size), "mpp": list(self.mpp)}

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> Raster:
        """The inverse of `to_json`."""
        step, downsample, mpp = (tuple(d[k]) for k in ("step", "downsample", "mpp"))
        return cls(d["level"], step, downsample, Size(*d["size"]), mpp)


def _snap(step: float) -> float:
    """Whole where it nearly is, so that a slide has the same tiles whether or not it stores the level in between."""
    whole = max(1, round(step))
    return float(whole) if abs(step / whole - 1) <= SNAP else step


def make_raster(levels: Sequence[Level], mpp: tuple[float, float], want_mpp: float, *, upsample: bool = False) -> Raster:
    """How is the slide read at ``want_mpp`` µm/px? From the coarsest level that is fine enough.

    Parameters
    ----------
    levels : the slide's levels, finest first
    mpp : µm per level-0 px (x, y)
    want_mpp : µm per px wanted; within 2 % of a stored level, or of a whole multiple of it, that is used
    upsample : allow more than 1.1 × enlargement

    Raises
    ------
    ResolutionMismatchError
        The slide is more than 1.1 × coarser than wanted, and ``upsample`` is false.
    UsageError
        No picture can have ``want_mpp``.
    """
    if not (math.isfinite(want_mpp) and want_mpp > 0):
        raise UsageError(f"pixels of {want_mpp:g} µm cannot be; give µm/px such as 0.5")

    def steps(level: Level) -> tuple[float, float]:
        return (_snap(want_mpp / (mpp[0] * level.downsample[0])), _snap(want_mpp / (mpp[1] * level.downsample[1])))

    fine = [level for level in levels if min(steps(level)) >= 1]
    level = fine[-1] if fine else levels[0]
    step = steps(level)
    if not upsample and min(step) < 1 / MAX_UPSAMPLE:
        raise ResolutionMismatchError(
            f"the slide has {max(mpp):.4g} µm/px, {want_mpp:.4g} µm/px is needed: enlarging by more than {MAX_UPSAMPLE} × invents detail; "
            "use a slide scanned finer, or a model for coarser slides (wsikit train and tile take --mpp); "
            "wsikit score --upsample (upsample=True) enlarges it, which the result then says"
        )
    return raster_at(level, mpp, step)


def raster_at(level: Level, mpp: tuple[float, float], step: tuple[float, float]) -> Raster:
    """The raster that takes ``step`` source px (x, y) of this level per pixel."""
    downsample = (level.downsample[0] * step[0], level.downsample[1] * step[1])
    size = Size(*(max(1, math.ceil(n / s - 1e-6)) for n, s in zip(level.size, step, strict=True)))
    return Raster(level.index, step, downsample, size, (mpp[0] * downsample[0], mpp[1] * downsample[1]))


@dataclass(frozen=True)
class TileGrid:
    """Cells of ``stride_px`` over a raster; a tile is a cell with ``overlap_px / 2`` more on every side.

    Cells tile the plane without gaps, so each point of the slide, and each detection, has one owner.

    >>> from wsikit.geometry import Level, Size
    >>> raster = make_raster([Level(0, Size(1000, 600), (1.0, 1.0))], (0.5, 0.5), 0.5)
    >>> TileGrid(raster, 256).shape
    (4, 3)
    """

    raster: Raster
    tile_px: int
    overlap_px: int = 0

    @property
    def stride_px(self) -> int:
        """Raster px from one tile to the next."""
        return self.tile_px - self.overlap_px

    @property
    def shape(self) -> tuple[int, int]:
        """Columns and rows of cells."""
        return (-(-self.raster.size.w // self.stride_px), -(-self.raster.size.h // self.stride_px))

    @property
    def tile_size(self) -> tuple[float, float]:
        """Width and height of a tile in level-0 px."""
        return (self.tile_px * self.raster.downsample[0], self.tile_px * self.raster.downsample[1])

    def corners_px(self, cells: np.ndarray) -> np.ndarray:
        """Upper-left corners of tiles in raster px: int64 (N, 2) x, y from (N, 2) column, row."""
        return cells.astype(np.int64) * self.stride_px - self.overlap_px // 2

    def origins(self, cells: np.ndarray) -> np.ndarray:
        """Upper-left corners of tiles in level-0 px, rounded: int64 (N, 2) x, y."""
        return np.rint(self.corners_px(cells) * np.array(self.raster.downsample)).astype(np.int64)

    def centres(self, cells: np.ndarray) -> np.ndarray:
        """Centres of tiles in level-0 px: float64 (N, 2) x, y."""
        return (cells.astype(np.float64) + 0.5) * self.stride_px * np.array(self.raster.downsample)

    def all_cells(self) -> np.ndarray:
        """Every cell, row by row: int64 (N, 2) column, row."""
        columns, rows = self.shape
        return np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2)

    def covered(self, mask: np.ndarray, mask_downsample: tuple[float, float]) -> np.ndarray:
        """What share of each tile does a mask cover? Outside the slide counts as not covered.

        Parameters
        ----------
        mask : bool (H, W), a pixel covering ``mask_downsample`` level-0 px (x, y)

        Returns
        -------
        float64 (N,), in the order of `all_cells`
        """
        columns, rows = self.shape
        table = summed_area(mask)
        x = self._mask_edges(columns, self.raster.downsample[0] / mask_downsample[0], mask.shape[1])
        y = self._mask_edges(rows, self.raster.downsample[1] / mask_downsample[1], mask.shape[0])
        corner = [[bilinear(table, y[j], x[i]) for i in (0, 1)] for j in (0, 1)]
        area = corner[1][1] - corner[0][1] - corner[1][0] + corner[0][0]
        full = self.tile_size[0] * self.tile_size[1] / (mask_downsample[0] * mask_downsample[1])
        # 1e-9 steps keep 1/2 on the same side of a threshold however the sums were rounded
        return np.round(np.clip(area / full, 0, 1), 9).reshape(-1)

    def _mask_edges(self, count: int, scale: float, limit: int) -> np.ndarray:
        start = np.arange(count) * self.stride_px - self.overlap_px // 2
        return np.clip(np.stack([start, start + self.tile_px]) * scale, 0, limit)


def summed_area(values: np.ndarray) -> np.ndarray:
    """Sums of all values above and left of each corner: float64 (H + 1, W + 1); of a mask int32, which is half as large."""
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.int32 if values.dtype == bool else np.float64)
    inside = table[1:, 1:]
    np.cumsum(values, 0, dtype=table.dtype, out=inside)
    np.cumsum(inside, 1, out=inside)
    return table


def on_mask(position: np.ndarray, mask: np.ndarray, downsample: tuple[float, float]) -> np.ndarray:
    """Which points (M, 2) in level-0 px lie on a mask? bool (M,)"""
    cell = np.floor(position / np.array(downsample)).astype(int)
    inside = ((cell >= 0) & (cell < mask.shape[::-1])).all(1)
    out = np.zeros(len(position), bool)
    out[inside] = mask[cell[inside, 1], cell[inside, 0]]
    return out


def bilinear(table: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A summed-area table at fractional rows y (M,) and columns x (N,): float64 (M, N)."""
    j, i = np.minimum(y.astype(int), table.shape[0] - 2), np.minimum(x.astype(int), table.shape[1] - 2)
    fy, fx = (y - j)[:, None], (x - i)[None]
    top = table[np.ix_(j, i)] * (1 - fx) + table[np.ix_(j, i + 1)] * fx
    bottom = table[np.ix_(j + 1, i)] * (1 - fx) + table[np.ix_(j + 1, i + 1)] * fx
    return np.asarray(top * (1 - fy) + bottom * fy)


@dataclass(frozen=True, order=True, slots=True)
class Block:
    """One square of work, by its row and column in the block grid."""

    row: int
    column: int

    @property
    def name(self) -> str:
        """``r<row>c<column>``: how receipts and files call it."""
        return f"r{self.row}c{self.column}"


@dataclass(frozen=True)
class BlockGrid:
    """Squares of ``side`` level-0 px (x, y) from the slide's origin."""

    side: tuple[float, float]

    def owners(self, centres: np.ndarray) -> np.ndarray:
        """Which block holds each point? int64 (N, 2) row, column from float64 (N, 2) level-0 x, y."""
        return np.floor(centres / np.array(self.side)).astype(np.int64)[:, ::-1]

    def select(self, centres: np.ndarray, block: Block) -> np.ndarray:
        """Which of these points are this block's? Indices, ascending."""
        return np.flatnonzero((self.owners(centres) == (block.row, block.column)).all(1))

    def blocks(self, centres: np.ndarray) -> list[Block]:
        """The blocks that own at least one of these points, row by row."""
        return [Block(int(r), int(c)) for r, c in np.unique(self.owners(centres), axis=0)] if len(centres) else []
