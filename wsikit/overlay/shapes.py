"""The outlines of masks and hotspots in level-0 px."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def hotspot_outlines(hotspot: Mapping[str, Any]) -> list[Polygon]:
    """What was counted in, of a result's ``hotspot``: one rectangle or ellipse, or one for each of its fields."""
    x, y, w, h = (hotspot[k] for k in ("x", "y", "w", "h"))
    shape = hotspot.get("shape", "square")
    if shape == "fields" and "fields" in hotspot:
        return [_ellipse(centre, hotspot["field_px"]) for centre in hotspot["fields"]]
    return [_ellipse((x + w / 2, y + h / 2), (w, h))] if shape == "circle" else [Polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])]


def _ellipse(centre: tuple[float, float], size: tuple[float, float]) -> Polygon:
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    return Polygon(np.stack([np.cos(angle), np.sin(angle)], 1) * np.array(size) / 2 + np.array(centre))
