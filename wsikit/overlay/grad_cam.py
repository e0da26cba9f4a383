"""Which parts of a slide speak for a class, as a classifier sees it: Grad-CAM of its tiles, put together (`wsikit.models._cam`)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from wsikit.grid import TileGrid
from wsikit.overlay.heat import heat_placement
from wsikit.overlay.picture import blend_clear
from wsikit.store import Overlay, SlideStore
from wsikit.store.image import Placement

_TOP = 0.999  # share of the values that the last colour is above: a single pixel must not darken the slide


def assemble(grid: TileGrid, classes: int, parts: Iterable[tuple[np.ndarray, np.ndarray]], top: float = _TOP) -> tuple[np.ndarray, float]:
    """The maps of all tiles in one: float32 (K, rows · S, columns · S), 0 to 1, NaN where no tile was scored; and how many logits 1 stands for.

    Parameters
    ----------
    parts : cells int64 (N, 2) column, row and maps (N, K, S, S) of some tiles at a time
    top : the share of all values that 1 and what is above it stand over
    """
    columns, rows = grid.shape
    out = np.full((classes, rows, 1, columns, 1), np.nan, np.float32)
    for cells, maps in parts:
        side = maps.shape[-1]
        if out.shape[2] != side:
            out = np.full((classes, rows, side, columns, side), np.nan, np.float32)
        out[:, cells[:, 1], :, cells[:, 0], :] = maps
    flat = out.reshape(classes, rows * out.shape[2], columns * out.shape[4])
    there = flat[~np.isnan(flat)]
    one = float(np.quantile(there, top) or there.max()) if len(there) else 0.0
    return np.clip(flat / np.float32(one or 1.0), 0, 1), one


def placement(grid: TileGrid, side: int) -> Placement:
    """Where the maps lie, with ``side`` px to a cell."""
    whole = heat_placement(grid)
    scale = (whole.scale[0] / side, whole.scale[1] / side)
    first = [t - s / 2 + small / 2 for t, s, small in zip(whole.translation, whole.scale, scale, strict=True)]
    return Placement(scale, (first[0], first[1]))


def over(store: SlideStore, rgb: np.ndarray, extent: tuple[float, float, float, float], heat: Overlay) -> np.ndarray:
    """A map of one class in red over a part of the slide, clear where it is 0: uint8 (H, W, 3).

    Parameters
    ----------
    extent : left, right, bottom and top edge of ``rgb`` in level-0 px, as of `wsikit.overlay.picture.window`
    """
    left, right, bottom, top = extent
    step = ((right - left) / rgb.shape[1], (bottom - top) / rgb.shape[0])
    mpp = store.mpp
    at = ((left + step[0] / 2 - 0.5) * mpp[0], (top + step[1] / 2 - 0.5) * mpp[1])
    return blend_clear(rgb, Placement((step[0] * mpp[0], step[1] * mpp[1]), at), heat)
