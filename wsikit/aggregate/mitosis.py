"""Which detections are one mitosis, and how dense are mitoses around each place?"""

from __future__ import annotations

import math

import numba
import numpy as np
from scipy.spatial import cKDTree

from wsikit.aggregate.hotspot import RASTER_UM, box_sum, onto_cells

DENSITY_MM2 = 0.2  # about a high-power field


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
    # pairs are (better, worse); walking them by the better one is the greedy rule
    kept = order[~_suppressed(neighbours[np.argsort(neighbours[:, 0])], len(order))]
    return np.asarray(kept[np.lexsort((position[kept, 0], position[kept, 1]))])


@numba.njit(cache=True)
def _suppressed(pairs: np.ndarray, n: int) -> np.ndarray:
    """Which of n are taken away by a better one that stays? Pairs in the order of the better one."""
    out = np.zeros(n, np.bool_)
    for i in range(len(pairs)):
        if not out[pairs[i, 0]]:
            out[pairs[i, 1]] = True
    return out


def density_map(position: np.ndarray, tissue: np.ndarray, downsample: tuple[float, float], mpp: tuple[float, float]) -> tuple[np.ndarray, tuple[float, float]]:
    """Mitoses per mm² of tissue in the 0.2 mm² (about a high-power field) around each cell.

    Returns float32 (H, W), NaN where the cell has no tissue nearby, and level-0 px of a cell (x, y); cells start at the slide's origin.
    """
    side_um = math.sqrt(DENSITY_MM2) * 1000
    n = round(side_um / RASTER_UM)
    cell_um = side_um / n
    step = (cell_um / mpp[0], cell_um / mpp[1])
    rows, columns = (max(n, math.ceil(tissue.shape[axis] * downsample[1 - axis] / step[1 - axis])) for axis in (0, 1))
    cell = np.floor(position / np.array(step)).astype(int)
    count = np.zeros((rows, columns))
    np.add.at(count, (cell[:, 1].clip(0, rows - 1), cell[:, 0].clip(0, columns - 1)), 1)
    around = ((n // 2, n - 1 - n // 2),) * 2  # windows reach beyond the slide, so that there is one centred on every cell
    counts = box_sum(np.pad(count, around), n, n).round()
    areas = np.round(box_sum(np.pad(onto_cells(tissue, downsample, step, (rows, columns)), around), n, n) * cell_um**2 / 1e6, 8)
    value = np.where(areas >= DENSITY_MM2 / 4, counts / np.maximum(areas, 1e-12), np.nan)
    return value.astype(np.float32), step
