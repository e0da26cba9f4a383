"""How alike are two regions? Overlap, and the distance of their borders in µm, with empty ones defined."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """2 |A ∩ B| / (|A| + |B|) of two masks; 1 where both are empty, 0 where one is.

    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def hausdorff_um(a: np.ndarray, b: np.ndarray, mpp: tuple[float, float], percentile: float = 100.0) -> float:
    """The largest distance from the border of one mask to that of the other, either way, in µm; with ``percentile`` 95, HD95.

    0 where both are empty, and NaN where one is: there is no border to be far from.

    Parameters
    ----------
    a, b : bool (H, W)
    mpp : µm per pixel (x, y), which may differ
    """
    if not a.any() and not b.any():
        return 0.0
    if not a.any() or not b.any():
        return float("nan")
    borders = [m & ~binary_erosion(m) for m in (a, b)]
    distances = [distance_transform_edt(~border, sampling=(mpp[1], mpp[0])) for border in borders]
    return max(float(np.percentile(distances[1][borders[0]], percentile)), float(np.percentile(distances[0][borders[1]], percentile)))
