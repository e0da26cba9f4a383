"""Where on a slide are mitoses densest, in a window of a stated area and shape, over tissue only?

A window moves over a lattice of about 16 µm; of all its places the best is found exactly. Those of which at least 80 % are tissue come
first; among them the highest count, then the most tissue, then the smaller y and x. Only if there is none, the highest count per tissue
among places with at least half of the most tissue that any has (``partial``). A slide with less tissue than the window counts as a whole
(``insufficient_area``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np

from wsikit.aggregate.rates import poisson_interval
from wsikit.grid import bilinear, summed_area

RASTER_UM = 16.0  # the window moves in steps of about this
MIN_TISSUE_SHARE = 0.8
Shape = Literal["square", "4:3", "circle", "fields"]
SHAPES: tuple[Shape, ...] = ("square", "4:3", "circle", "fields")
Pair = tuple[float, float]


@dataclass(frozen=True)
class Window:
    """Area and shape of what is counted in. ``fields``: so many touching circles that have the area together.

    Examples
    --------
    >>> window = Window.of_fields(0.47, 10, "fields")          # ten fields of a microscope whose field is 0.47 mm wide
    >>> round(window.area_mm2, 3), round(window.field_mm2, 4)
    (1.735, 0.1735)
    """

    area_mm2: float = 2.0
    shape: Shape = "square"
    fields: int = 10

    @classmethod
    def of_fields(cls, diameter_mm: float, fields: int, shape: Shape = "square") -> Window:
        """The window that has the area of so many round fields of a microscope."""
        return cls(fields * math.pi * diameter_mm**2 / 4, shape, fields)

    @property
    def field_mm2(self) -> float:
        """Area of one field."""
        return self.area_mm2 / self.fields


@dataclass(frozen=True)
class Hotspot:
    """The densest window: its box in level-0 px, tissue in it, count, mitoses per mm² of tissue with 95 % limits, flags and shape.

    Flags: ``insufficient_area`` (the slide has less tissue than the window, and all of it was taken, or too little for all fields),
    ``partial`` (less than 80 % of the window is tissue). ``fields`` are the centres x, y (level-0 px) of the fields, in the order taken.
    """

    x: float
    y: float
    w: float
    h: float
    tissue_mm2: float
    count: int
    per_mm2: float
    low: float
    high: float
    flags: tuple[str, ...]
    shape: str = "square"
    area_mm2: float = 0.0
    fields: tuple[Pair, ...] = ()
    field_px: Pair = (0.0, 0.0)

    @classmethod
    def counted(cls, box: tuple[float, float, float, float], tissue_mm2: float, count: int, flags: tuple[str, ...], window: Window, **more: Any) -> Hotspot:
        """With the density and its limits; ``box`` is left, top, right, bottom."""
        low, high = poisson_interval(count, tissue_mm2)
        x, y, x1, y1 = map(float, box)
        shape = "square" if "insufficient_area" in flags and "fields" not in more else window.shape  # all of the tissue has no shape but its box
        return cls(x, y, x1 - x, y1 - y, tissue_mm2, count, count / tissue_mm2, low, high, flags, shape, window.area_mm2, **more)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers with their units in the names."""
        plain: dict[str, Any] = {k: round(getattr(self, k), 2) for k in ("x", "y", "w", "h")}
        plain["centre"] = [round(self.x + self.w / 2, 2), round(self.y + self.h / 2, 2)]
        plain |= {"shape": self.shape, "window_mm2": round(self.area_mm2, 6), "tissue_mm2": round(self.tissue_mm2, 6), "count": self.count}
        plain |= {k: round(getattr(self, k), 6) for k in ("per_mm2", "low", "high")} | {"flags": list(self.flags)}
        if self.fields:
            plain |= {"fields": [[round(v, 2) for v in f] for f in self.fields], "field_px": [round(v, 2) for v in self.field_px]}
        return plain


class Ground:
    """All places of a window on a slide, and the tissue in each: made once, asked for any set of mitoses.

    Parameters
    ----------
    tissue : bool (H, W), a pixel covering ``downsample`` level-0 px (x, y)
    mpp : µm per level-0 px (x, y)
    step_um : about how far the window moves at a time

    Attributes
    ----------
    areas : float64 (R, C) mm² of tissue at each place, rounded to 0.01 µm² so that equal ones tie and position decides
    step : level-0 px (x, y) from place to place; place (row, column) of a rectangle has its corner at column · step, of a circle its centre half a step on
    """

    def __init__(self, tissue: np.ndarray, downsample: Pair, mpp: Pair, window: Window, step_um: float = RASTER_UM) -> None:
        self.window, self.mpp = window, mpp
        self.place_mm2 = window.field_mm2 if window.shape == "fields" else window.area_mm2
        self.total_mm2 = float(tissue.sum()) * downsample[0] * downsample[1] * mpp[0] * mpp[1] / 1e6
        self._box = _bounds(tissue, downsample) if self.total_mm2 else (0.0, 0.0, 0.0, 0.0)
        self._cells = _footprint(window, step_um)
        (across, down), cell_um = self._cells.size, self._cells.side_um
        self.step = (cell_um / mpp[0], cell_um / mpp[1])
        columns = max(across, math.ceil(tissue.shape[1] * downsample[0] / self.step[0]))
        rows = max(down, math.ceil(tissue.shape[0] * downsample[1] / self.step[1]))
        self.share = onto_cells(tissue, downsample, self.step, (rows, columns))
        if window.shape in ("square", "4:3"):
            found = box_sum(self.share, across, down) * cell_um**2 / 1e6
        else:
            found = _disc_sum(self.share, self._cells.half) / self._cells.half_cells * self.place_mm2
        self.areas = np.round(found, 8)

    def counts(self, position: np.ndarray) -> np.ndarray:
        """Mitoses (M, 2; x, y in level-0 px) in the window at each place: whole numbers (R, C)."""
        rows, columns = self.share.shape
        if self.window.shape in ("square", "4:3"):
            cells = np.zeros((rows, columns))
            cell = np.floor(position / np.array(self.step)).astype(int)
            np.add.at(cells, (cell[:, 1].clip(0, rows - 1), cell[:, 0].clip(0, columns - 1)), 1)
            return box_sum(cells, *self._cells.size).round().astype(np.int64)
        k = self._cells.size[0] // 2
        um = np.asarray(position, np.float64)[np.argsort(position[:, 1])] * np.array(self.mpp)  # sorted: neighbours in memory one after the other
        return np.asarray(_in_discs(um, self._cells.side_um, self._cells.radius_um, rows, columns)[k : rows - k, k : columns - k])

    def box(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the window at a place, level-0 px."""
        (across, down), (dx, dy) = self._cells.size, self.step
        if self.window.shape in ("square", "4:3"):
            return (column * dx, row * dy, (column + across) * dx, (row + down) * dy)
        x, y = self.centre(row, column)
        rx, ry = (self._cells.radius_um / m for m in self.mpp)
        return (x - rx, y - ry, x + rx, y + ry)

    def centre(self, row: int, column: int) -> Pair:
        """Of the window at a place, level-0 px."""
        across, down = self._cells.size
        return ((column + across / 2) * self.step[0], (row + down / 2) * self.step[1])

    def hotspot(self, position: np.ndarray) -> Hotspot | None:
        """The densest window, or the consecutive fields, for these mitoses, float64 (M, 2) x, y in level-0 px; None without tissue."""
        if self.window.shape != "fields":
            return self.densest(position)
        from wsikit.aggregate.fields import consecutive_fields

        return consecutive_fields(position, self)

    def densest(self, position: np.ndarray) -> Hotspot | None:
        """The best place for one window; all of the tissue where that is less than the window; None without tissue."""
        if self.total_mm2 == 0:
            return None
        if self.total_mm2 < self.window.area_mm2:
            return Hotspot.counted(self._box, self.total_mm2, len(position), ("insufficient_area",), self.window)
        counts = self.counts(position)
        row, column, flags = best_place(counts, self.areas, self.window.area_mm2)
        return Hotspot.counted(self.box(row, column), float(self.areas[row, column]), int(counts[row, column]), flags, self.window)


def best_place(counts: np.ndarray, areas: np.ndarray, area_mm2: float) -> tuple[int, int, tuple[str, ...]]:
    """Row and column of the best of all places, and its flags."""
    valid = areas >= MIN_TISSUE_SHARE * area_mm2 - 1e-8
    if valid.any():
        merit, flags = np.where(valid, counts, -1), ()
    else:
        valid = areas >= areas.max() / 2
        merit, flags = np.where(valid, counts / np.maximum(areas, 1e-12), -1.0), ("partial",)  # type: ignore[assignment]
    tied = np.flatnonzero(merit == merit.max())  # in the order y, x
    best = tied[np.argmax(areas.ravel()[tied])]
    row, column = divmod(int(best), areas.shape[1])
    return row, column, flags


def expected_maximum(n: int, ground: Ground, observed: int, draws: int = 200, seed: int = 0) -> dict[str, Any]:
    """How many would the densest window hold if ``n`` mitoses lay at random over the tissue?

    The maximum over windows is above the mean of the slide even then. ``ground`` should have coarse steps (a twelfth of the window, say), and
    ``observed`` be its maximum, so that both are looked for in the same places. ``share_as_high`` is the Monte Carlo p-value
    (1 + draws as high) / (1 + draws).
    """
    rng = np.random.default_rng(seed)
    weight = np.cumsum(ground.share.ravel())
    valid = ground.areas >= MIN_TISSUE_SHARE * ground.window.area_mm2 - 1e-8
    maxima = np.empty(draws, np.int64)
    for i in range(draws):
        cell = np.searchsorted(weight, rng.random(n) * weight[-1], side="right")
        row, column = np.divmod(cell, ground.share.shape[1])
        at = (np.stack([column, row], 1) + rng.random((n, 2))) * np.array(ground.step)
        maxima[i] = ground.counts(at)[valid].max(initial=0)
    return {
        "expected": round(float(maxima.mean()), 3),
        "high": int(np.percentile(maxima, 95, method="inverted_cdf")),
        "share_as_high": round((1 + int((maxima >= observed).sum())) / (1 + draws), 4),
        "draws": draws,
    }


@dataclass(frozen=True)
class _Footprint:
    """A window as cells: columns and rows, µm of a cell; of a circle its radius and half its width in each row of cells."""

    size: tuple[int, int]
    side_um: float
    radius_um: float = 0.0
    half: tuple[int, ...] = ()

    @property
    def half_cells(self) -> int:
        return sum(2 * h + 1 for h in self.half)


def _footprint(window: Window, step_um: float) -> _Footprint:
    if window.shape == "square":
        n = max(1, round(math.sqrt(window.area_mm2) * 1000 / step_um))
        return _Footprint((n, n), math.sqrt(window.area_mm2) * 1000 / n)
    if window.shape == "4:3":
        height_um = math.sqrt(window.area_mm2 * 3 / 4) * 1000
        n = max(1, round(height_um / 3 / step_um))
        return _Footprint((4 * n, 3 * n), height_um / 3 / n)
    radius_um = math.sqrt((window.field_mm2 if window.shape == "fields" else window.area_mm2) / math.pi) * 1000  # of one field
    k = max(1, round(radius_um / step_um))
    side = radius_um / k
    return _Footprint((2 * k + 1, 2 * k + 1), side, radius_um, tuple(math.floor(math.sqrt(k * k - dy * dy)) for dy in range(-k, k + 1)))


def _bounds(tissue: np.ndarray, downsample: Pair) -> tuple[float, float, float, float]:
    y, x = np.flatnonzero(tissue.any(1)), np.flatnonzero(tissue.any(0))
    return (x[0] * downsample[0], y[0] * downsample[1], (x[-1] + 1) * downsample[0], (y[-1] + 1) * downsample[1])


def onto_cells(tissue: np.ndarray, downsample: Pair, step: Pair, shape: tuple[int, int]) -> np.ndarray:
    """Share of each cell that is tissue, by exact areas: float64 (rows, columns)."""
    y = np.clip(np.arange(shape[0] + 1) * step[1] / downsample[1], 0, tissue.shape[0])
    x = np.clip(np.arange(shape[1] + 1) * step[0] / downsample[0], 0, tissue.shape[1])
    cells = np.diff(np.diff(bilinear(summed_area(tissue), y, x), axis=0), axis=1)
    return np.asarray(np.round(cells * downsample[0] * downsample[1] / (step[0] * step[1]), 9))


def box_sum(values: np.ndarray, across: int, down: int) -> np.ndarray:
    """Sum over each rectangle of so many columns and rows: float64."""
    t = summed_area(values)
    return np.asarray(t[down:, across:] - t[:-down, across:] - t[down:, :-across] + t[:-down, :-across])


def _disc_sum(values: np.ndarray, half: tuple[int, ...]) -> np.ndarray:
    """Sum over each disc that lies inside; ``half`` is how far it reaches left and right in each of its rows."""
    k = len(half) // 2
    rows = np.zeros((values.shape[0], values.shape[1] + 1))
    np.cumsum(values, 1, out=rows[:, 1:])
    return np.asarray(_add_spans(rows, np.array(half), values.shape[0] - 2 * k, values.shape[1] - 2 * k))


@numba.njit(cache=True)
def _add_spans(rows: np.ndarray, half: np.ndarray, height: int, width: int) -> np.ndarray:
    out = np.zeros((height, width))
    k = len(half) // 2
    for r in range(height):
        for d in range(len(half)):
            h = half[d]
            for c in range(width):
                out[r, c] += rows[r + d, c + k + h + 1] - rows[r + d, c + k - h]
    return out


@numba.njit(cache=True)
def _in_discs(um: np.ndarray, side: float, radius: float, rows: int, columns: int) -> np.ndarray:
    """Points (M, 2) within the radius of each cell's centre, the edge included: int32 (rows, columns)."""
    change = np.zeros((rows, columns + 1), np.int32)
    reach = int(radius / side) + 1
    for i in range(len(um)):
        x, y = um[i]
        row = math.floor(y / side)
        for r in range(max(0, row - reach), min(rows, row + reach + 1)):
            dy = (r + 0.5) * side - y
            if abs(dy) <= radius:
                dx = math.sqrt(radius * radius - dy * dy)
                first, last = math.ceil((x - dx) / side - 0.5), math.floor((x + dx) / side - 0.5)
                if last >= 0 and first < columns and first <= last:
                    change[r, max(0, first)] += 1
                    change[r, min(columns, last + 1)] -= 1
    for r in range(rows):
        for c in range(1, columns + 1):
            change[r, c] += change[r, c - 1]
    return change[:, :columns]
