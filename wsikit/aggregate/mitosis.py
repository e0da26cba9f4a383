"""How many mitoses, per how much tissue, and where are they densest?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import gammaincinv

from wsikit.grid import bilinear, summed_area

RASTER_UM = 16.0  # the hotspot window moves in these steps
MIN_TISSUE_SHARE = 0.8
DENSITY_MM2 = 0.2


def merge(position: np.ndarray, score: np.ndarray, mpp: tuple[float, float], radius_um: float) -> np.ndarray:
    """Which detections remain when those within ``radius_um`` are one object, the best of them?

    Parameters
    ----------
    position : float64 (M, 2) x, y in level-0 px
    score : float32 (M,)

    Returns
    -------
    int64 (R,)
        Indices of the kept detections, in the order y, x. Ties in score go to the smaller y, then x, so the answer does
        not depend on the order of the input.
    """
    if len(position) == 0:
        return np.empty(0, np.int64)
    order = np.lexsort((position[:, 0], position[:, 1], -score.astype(np.float64)))
    um = position[order] * np.array(mpp)
    neighbours = cKDTree(um).query_pairs(radius_um, output_type="ndarray")
    suppressed = np.zeros(len(order), bool)
    # pairs are (better, worse) once sorted; walking them by the better one is the greedy rule
    for better, worse in neighbours[np.lexsort((neighbours[:, 1], neighbours[:, 0]))]:
        if not suppressed[better]:
            suppressed[worse] = True
    kept = order[~suppressed]
    return np.asarray(kept[np.lexsort((position[kept, 0], position[kept, 1]))])


def poisson_interval(count: int, area_mm2: float, level: float = 0.95) -> tuple[float, float]:
    """Exact (Garwood) interval of a rate per mm² from a count.

    >>> [round(v, 1) for v in poisson_interval(10, 1.0)]
    [4.8, 18.4]
    """
    tail = (1 - level) / 2
    low = gammaincinv(count, tail) if count else 0.0
    return float(low / area_mm2), float(gammaincinv(count + 1, 1 - tail) / area_mm2)


@dataclass(frozen=True)
class Hotspot:
    """The densest window: level-0 px box, tissue in it, count, mitoses per mm² of tissue with interval, and flags.

    Flags: ``insufficient_area`` (the slide has less tissue than the window, and all of it was taken), ``partial`` (less than
    80 % of the window is tissue).
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

    def to_json(self) -> dict[str, Any]:
        """Plain numbers with their units in the names."""
        return {
            "x": round(self.x, 2),
            "y": round(self.y, 2),
            "w": round(self.w, 2),
            "h": round(self.h, 2),
            "centre": [round(self.x + self.w / 2, 2), round(self.y + self.h / 2, 2)],
            "tissue_mm2": round(self.tissue_mm2, 6),
            "count": self.count,
            "per_mm2": round(self.per_mm2, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "flags": list(self.flags),
        }


def find_hotspot(position: np.ndarray, tissue: np.ndarray, tissue_downsample: tuple[float, float], mpp: tuple[float, float], area_mm2: float) -> Hotspot | None:
    """The square of ``area_mm2`` with the most mitoses, moved in steps of 16 µm; None without tissue.

    Parameters
    ----------
    position : float64 (M, 2) x, y of counted mitoses, level-0 px
    tissue : bool (H, W), a pixel covering ``tissue_downsample`` level-0 px (x, y)
    mpp : µm per level-0 px (x, y)

    Notes
    -----
    Windows of which at least 80 % are tissue come first; among them the highest count, then the most tissue, then the smaller
    y and x. Only if there is none, the highest count per tissue among windows with at least half of the most tissue any
    window has. A slide with less tissue than the window counts as a whole.
    """
    px_mm2 = tissue_downsample[0] * tissue_downsample[1] * mpp[0] * mpp[1] / 1e6
    total = float(tissue.sum()) * px_mm2
    if total == 0:
        return None
    if total < area_mm2:
        y, x = np.nonzero(tissue)
        box = (x.min() * tissue_downsample[0], y.min() * tissue_downsample[1], (x.max() + 1) * tissue_downsample[0], (y.max() + 1) * tissue_downsample[1])
        return _hotspot(box, total, len(position), ("insufficient_area",))
    counts, areas, step, n = _windows(position, tissue, tissue_downsample, mpp, area_mm2)
    valid = areas >= MIN_TISSUE_SHARE * area_mm2 - 1e-8
    flags: tuple[str, ...] = ()
    if not valid.any():
        flags = ("partial",)
        valid = areas >= areas.max() / 2
        merit = np.where(valid, counts / np.maximum(areas, 1e-12), -1.0)
    else:
        merit = np.where(valid, counts, -1)
    tied = np.argwhere(merit == merit.max())
    row, column = tied[np.lexsort((tied[:, 1], tied[:, 0], -areas[tuple(tied.T)]))[0]]
    x, y = column * step[0], row * step[1]
    return _hotspot((x, y, x + n * step[0], y + n * step[1]), float(areas[row, column]), int(counts[row, column]), flags)


def _hotspot(box: tuple[float, float, float, float], tissue_mm2: float, count: int, flags: tuple[str, ...]) -> Hotspot:
    low, high = poisson_interval(count, tissue_mm2)
    x, y, x1, y1 = map(float, box)
    return Hotspot(x, y, x1 - x, y1 - y, tissue_mm2, count, count / tissue_mm2, low, high, flags)


def _windows(
    position: np.ndarray, tissue: np.ndarray, downsample: tuple[float, float], mpp: tuple[float, float], area_mm2: float, pad: bool = False
) -> tuple[np.ndarray, np.ndarray, tuple[float, float], int]:
    """Count and tissue area (mm²) of every window, level-0 px between windows (x, y), and the window's side in steps.

    With ``pad``, windows also reach half their side beyond the slide, so that there is one centred on every cell.
    """
    n = max(1, round(np.sqrt(area_mm2) * 1000 / RASTER_UM))
    cell_um = np.sqrt(area_mm2) * 1000 / n  # so that n cells are the window exactly
    step = (cell_um / mpp[0], cell_um / mpp[1])
    columns = max(n, int(np.ceil(tissue.shape[1] * downsample[0] / step[0])))
    rows = max(n, int(np.ceil(tissue.shape[0] * downsample[1] / step[1])))
    cell = np.floor(position / np.array(step)).astype(int)
    count = np.zeros((rows, columns))
    np.add.at(count, (cell[:, 1].clip(0, rows - 1), cell[:, 0].clip(0, columns - 1)), 1)
    share = _onto_cells(tissue, downsample, step, (rows, columns))
    if pad:
        around = ((n // 2, n - 1 - n // 2),) * 2
        count, share = np.pad(count, around), np.pad(share, around)
    # to 0.01 µm², so that windows with the same tissue tie, and position decides
    return _box_sum(count, n).round().astype(int), np.round(_box_sum(share, n) * cell_um**2 / 1e6, 8), step, n


def _onto_cells(tissue: np.ndarray, downsample: tuple[float, float], step: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """Share of each cell that is tissue, by exact areas: float64 (rows, columns)."""
    y = np.clip(np.arange(shape[0] + 1) * step[1] / downsample[1], 0, tissue.shape[0])
    x = np.clip(np.arange(shape[1] + 1) * step[0] / downsample[0], 0, tissue.shape[1])
    cells = np.diff(np.diff(bilinear(summed_area(tissue), y, x), axis=0), axis=1)
    return np.asarray(np.round(cells * downsample[0] * downsample[1] / (step[0] * step[1]), 9))


def _box_sum(values: np.ndarray, n: int) -> np.ndarray:
    t = summed_area(values)
    return np.asarray(t[n:, n:] - t[:-n, n:] - t[n:, :-n] + t[:-n, :-n])


def density_map(position: np.ndarray, tissue: np.ndarray, downsample: tuple[float, float], mpp: tuple[float, float]) -> tuple[np.ndarray, tuple[float, float]]:
    """Mitoses per mm² of tissue in the 0.2 mm² (about a high-power field) around each cell.

    Returns float32 (H, W), NaN where the cell has no tissue nearby, and level-0 px of a cell (x, y); cells start at the slide's origin.
    """
    counts, areas, step, _ = _windows(position, tissue, downsample, mpp, DENSITY_MM2, pad=True)
    value = np.where(areas >= DENSITY_MM2 / 4, counts / np.maximum(areas, 1e-12), np.nan)
    return value.astype(np.float32), step


def count_slide(count: int, below_threshold: int, threshold: float, tissue_mm2: float, hotspot: Hotspot | None) -> dict[str, Any]:
    """The mitotic count of a slide: ``count`` merged detections at or above the model's threshold, per mm² of tissue."""
    if tissue_mm2 <= 0 or hotspot is None:
        return {"status": "abstained", "reason": "the slide has no tissue", "count": None, "area_mm2": 0.0}
    low, high = poisson_interval(count, tissue_mm2)
    return {
        "status": "ok",
        "reason": "",
        "count": count,
        "area_mm2": round(tissue_mm2, 6),
        "per_mm2": round(count / tissue_mm2, 6),
        "low": round(low, 6),
        "high": round(high, 6),
        "below_threshold": below_threshold,
        "threshold": threshold,
        "hotspot": hotspot.to_json(),
    }
