"""Masks in level-0 px: their outlines, and which points lie on them."""

from __future__ import annotations

import numpy as np
from shapely import MultiPolygon, Polygon, build_area, make_valid, union_all
from skimage.measure import find_contours


def outlines(mask: np.ndarray, downsample: tuple[float, float]) -> MultiPolygon:
    """The outline of a mask, holes cut out.

    Parameters
    ----------
    mask : bool (H, W), a pixel covering ``downsample`` level-0 px (x, y)

    Returns
    -------
    MultiPolygon in level-0 px; its area is that of the mask's pixels less the corners that contours cut.
    """
    padded = np.pad(mask.astype(np.uint8), 1)
    rings = []
    for ring in find_contours(padded, 0.5):
        xy = (ring[:, ::-1] - 0.5) * np.array(downsample)  # a pixel's centre is at + 0.5, the padding adds 1
        if len(xy) >= 4:
            rings.append(Polygon(np.clip(xy, 0, np.array(mask.shape[::-1]) * np.array(downsample))))
    # a ring inside tissue is a hole, one inside a hole is tissue again
    shape = build_area(union_all([make_valid(ring).boundary for ring in rings]))
    parts = [g for g in getattr(shape, "geoms", [shape]) if isinstance(g, Polygon) and g.area > 0]
    return MultiPolygon(parts)


def on_mask(position: np.ndarray, mask: np.ndarray, downsample: tuple[float, float]) -> np.ndarray:
    """Which points (M, 2) in level-0 px lie on a mask? bool (M,)"""
    cell = np.floor(position / np.array(downsample)).astype(int)
    inside = ((cell >= 0) & (cell < mask.shape[::-1])).all(1)
    out = np.zeros(len(position), bool)
    out[inside] = mask[cell[inside, 1], cell[inside, 0]]
    return out
