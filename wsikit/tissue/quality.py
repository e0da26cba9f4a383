"""What share of each tile is tissue, ink, fold, black or glass, how sharp is it, and why is it left out? Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numba
import numpy as np

from wsikit import threads
from wsikit.grid import TileGrid
from wsikit.tissue._parts import strips
from wsikit.tissue.mask import DARK, FOLD, GLASS, INKS, OTHER, TISSUE

MPP, TILE_PX = 1.0, 256  # the scale that blur is stated at, and the tiles
MIN_TISSUE = 0.5  # share of a tile, as in the cards of most models; what is below is left out, for a reason
MIN_MEASURED = 0.1  # tiles with less tissue are not read for blur
BLURRED = 0.15  # a tile is called blurred below this share of the slide's median: our default, not calibrated on any scanner
REASONS = ("used", "too little tissue", "pen or dense blood", "scanner black", "glass")
USED, LITTLE, PEN, SCANNER, EMPTY = range(len(REASONS))
PENS = tuple(f"pen_{colour}" for colour in INKS)
_LEVELS = 16  # luminance is kept in 1/16 grey levels
_MIN_PX = 1024


def tile_shares(kind: np.ndarray, downsample: tuple[float, float], grid: TileGrid) -> dict[str, np.ndarray]:
    """What share of every tile is what?

    Parameters
    ----------
    kind : uint8 (H, W), as in `TissueMask`, a pixel covering ``downsample`` level-0 px (x, y)

    Returns
    -------
    ``tissue`` (folds are part of it), ``fold``, ``pen_green``, ``pen_blue``, ``pen_red``, ``black``, ``white`` (glass) and ``other``
    (specks, dust, rims of ink): float64 (N,) each, in the order of ``grid.all_cells()``. What lies beyond the slide is nothing.
    """
    values = {f"pen_{colour}": value for colour, value in INKS.items()} | {"fold": FOLD, "black": DARK, "white": GLASS, "other": OTHER}

    def share(mask: np.ndarray) -> np.ndarray:
        return grid.covered(mask, downsample) if mask.any() else np.zeros(grid.shape[0] * grid.shape[1])

    return {"tissue": share((kind == TISSUE) | (kind == FOLD)), **{name: share(kind == value) for name, value in values.items()}}


def slide_shares(kind: np.ndarray) -> dict[str, float]:
    """What share of the slide is what, as in `tile_shares`; ``fold`` is the share of its tissue."""
    count = np.zeros(OTHER + 1, np.int64)
    for rows in strips(kind.shape):
        count += np.bincount(kind[rows].ravel(), minlength=OTHER + 1)
    tissue = int(count[TISSUE] + count[FOLD])
    parts = {"tissue": tissue, **{f"pen_{colour}": count[value] for colour, value in INKS.items()}, "black": count[DARK], "white": count[GLASS]}
    shares = {name: round(float(n) / kind.size, 6) for name, n in parts.items()}
    return shares | {"fold": round(float(count[FOLD]) / max(1, tissue), 6)}


def left_out(shares: Mapping[str, np.ndarray]) -> np.ndarray:
    """Why is each tile left out? uint8 (N,), the place in `REASONS`.

    A tile is left out for ink, or for black, when there would be enough tissue if that were tissue too.
    """
    tissue, pen, black = shares["tissue"], sum(shares[p] for p in PENS), shares["black"]
    something = tissue + pen + black + shares["other"] > 0
    cases = [tissue >= MIN_TISSUE, tissue + pen >= MIN_TISSUE, tissue + pen + black >= MIN_TISSUE, something]
    return np.select(cases, [USED, PEN, SCANNER, LITTLE], EMPTY).astype(np.uint8)


def median_blur(table: Mapping[str, np.ndarray]) -> float | None:
    """The median blur of the tiles in use, of ``blur`` float32 (N,) and ``reason`` uint8 (N,); None where it was not measured."""
    found = table["blur"][(table["reason"] == USED) & ~np.isnan(table["blur"])]
    return float(np.median(found)) if len(found) else None


def blurred(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which tiles are blurred, next to the slide's median? bool (N,), of ``blur`` and ``reason``; none where it was not measured.

    >>> blurred({"blur": np.array([90.0, 100.0, 110.0, 5.0, np.nan]), "reason": np.zeros(5, np.uint8)}).tolist()
    [False, False, False, True, False]
    """
    middle = median_blur(table)
    return table["blur"] < BLURRED * middle if middle is not None else np.zeros(len(table["blur"]), bool)  # NaN is not less


class Window(NamedTuple):
    """Where the pixels of a picture lie on a mask: the mask's rows int64 (H,) and columns (W,), −1 for pixels beyond the slide."""

    mask: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def blur(rgb: np.ndarray, corners: np.ndarray, tile_px: int, factor: int, tissue: Window) -> np.ndarray:
    """How sharp is the tissue of each tile: float32 (N,), low where it is blurred, NaN where there is hardly any tissue.

    The variance of the Laplacian (four neighbours) of luminance, in grey levels squared, over the tissue inside each tile. Sums are of
    integers, so the numbers are the same whichever block, machine or thread makes them; no pixel outside the tile has a part in them.

    Parameters
    ----------
    rgb : uint8 (H, W, 3)
    corners : int64 (N, 2), x, y of the tiles in ``rgb``
    tile_px : side of a tile in px of ``rgb``
    factor : px of ``rgb`` along a side of a pixel that blur is measured at; they are averaged
    """
    out = np.full(len(corners), np.nan, np.float32)
    flat = np.ascontiguousarray(rgb).reshape(len(rgb), -1)

    def one(i: int) -> None:
        x, y = corners[i]
        n, total, squares = _laplacian(flat, x, y, tile_px // factor, factor, *tissue)
        if n >= _MIN_PX:
            out[i] = (n * squares - total * total) / (n * n) / _LEVELS**2

    threads.each(one, range(len(corners)))
    return out


@numba.njit(cache=True, nogil=True)
def _laplacian(flat: np.ndarray, left: int, top: int, side: int, factor: int, mask: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[int, int, int]:
    """How many pixels of tissue a tile has inside, and the sum and the sum of squares of their Laplacians."""
    light = np.empty((3, side), np.int32)  # the row that is measured, and those above and below
    sums, grey = np.empty(side * factor * 3, np.int32), np.empty(side * factor, np.int32)
    inside = np.zeros(side, np.int32)
    n, total, squares = 0, 0, 0
    last = -1
    for y in range(side):
        _luminance(flat, left * 3, top + y * factor, factor, sums, grey, light[y % 3])
        row = rows[top + (y - 1) * factor + factor // 2] if y > 1 else -1
        if row < 0:
            continue
        if row != last:
            last = row
            for x in range(1, side - 1):
                column = columns[left + x * factor + factor // 2]
                inside[x] = column >= 0 and mask[row, max(column, 0)]
        here, above, below = light[(y - 1) % 3], light[(y - 2) % 3], light[y % 3]
        for x in range(1, side - 1):
            value = (4 * here[x] - above[x] - below[x] - here[x - 1] - here[x + 1]) * inside[x]
            n += inside[x]
            total += value
            squares += value * value
    return n, total, squares


@numba.njit(cache=True, nogil=True)
def _luminance(flat: np.ndarray, start: int, top: int, factor: int, sums: np.ndarray, grey: np.ndarray, out: np.ndarray) -> None:
    """The luminance of one row of pixels, each the mean of ``factor × factor``, in 1/16 grey levels."""
    sums[:] = 0
    for k in range(factor):
        sums += flat[top + k, start : start + sums.size]
    for i in range(grey.size):
        grey[i] = np.int32(77) * sums[3 * i] + np.int32(150) * sums[3 * i + 1] + np.int32(29) * sums[3 * i + 2]
    area = 256 // _LEVELS * factor * factor
    out[:] = area // 2
    for k in range(factor):
        for x in range(out.size):
            out[x] += grey[x * factor + k]
    for x in range(out.size):  # exact: these quotients are far from the precision of a float64
        out[x] = np.int32(out[x] / np.float64(area))
