"""QuPath GeoJSON: tissue and hotspot as annotations, mitoses as detections, in level-0 px as QuPath counts them.

QuPath crops a slide to its bounds (MRXS, SCN), and counts from their corner; so does this file, and says so in ``wsikit.origin``.

QuPath's reader (PathObjectTypeAdapters) wants ``objectType``, ``classification`` with name and colour, numeric ``measurements`` and a
UUID as ``id``. Features are written one by one, so a million detections need no memory.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from shapely import MultiPolygon, Point, box, set_precision
from shapely.affinity import translate
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from wsikit.overlay.shapes import outlines
from wsikit.store import SlideStore
from wsikit.store.durable import atomic_file

COLOURS = {"Tissue": [0, 158, 115], "Hotspot": [230, 159, 0], "Mitosis": [213, 94, 0], "Below threshold": [86, 180, 233]}


def write_geojson(store: SlideStore, path: Path) -> int:
    """Write a slide's shapes; returns how many. The file is the same each time it is written.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    count = 0
    with atomic_file(path) as f:
        f.write(b'{"type":"FeatureCollection",')
        if any(origin_of(store)):
            f.write(b'"wsikit":' + json.dumps({"origin": origin_of(store)}).encode() + b",")
        f.write(b'"features":[')
        for feature in features(store):
            f.write(b",\n" if count else b"\n")
            f.write(json.dumps(feature, separators=(",", ":"), allow_nan=False).encode())
            count += 1
        f.write(b"\n]}\n")
    return count


def origin_of(store: SlideStore) -> list[int]:
    """The level-0 px (x, y) that QuPath calls 0, 0: the corner of the slide's bounds."""
    return list(store.attributes["slide"].get("bounds", (0, 0))[:2])


def features(store: SlideStore) -> Iterator[dict[str, Any]]:
    """A slide's shapes as GeoJSON features."""
    survey = store.attributes["survey"]
    tissue = outlines(store.tissue() == 1, tuple(survey["raster"]["downsample"]))
    if not tissue.is_empty:
        yield _feature(store, "tissue", tissue, "annotation", "Tissue", {"area mm2": survey["tissue_mm2"]})
    for name, result in sorted(store.result["pipelines"].items()):
        if result["status"] == "ok" and result.get("hotspot"):
            yield from _detections(store, name, result)


def _detections(store: SlideStore, name: str, result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    h = result["hotspot"]
    measures = {"count": h["count"], "per mm2": h["per_mm2"], "low": h["low"], "high": h["high"], "tissue mm2": h["tissue_mm2"]}
    label = f"{h['count']} mitoses, {h['per_mm2']:.1f}/mm2"
    yield _feature(store, f"{name}/hotspot", box(h["x"], h["y"], h["x"] + h["w"], h["y"] + h["h"]), "annotation", "Hotspot", measures, label)
    table = store.tables()[name]
    for i, (point, score) in enumerate(zip(table["position"].tolist(), table["score"].tolist(), strict=True)):
        kind = "Mitosis" if score >= np.float32(result["threshold"]) else "Below threshold"
        yield _feature(store, f"{name}/{i}", Point(point), "detection", kind, {"score": round(score, 4)})


def _feature(store: SlideStore, key: str, shape: BaseGeometry, kind: str, name: str, measurements: dict[str, float], label: str = "") -> dict[str, Any]:
    x, y = origin_of(store)
    geometry = _point(shape.x - x, shape.y - y) if isinstance(shape, Point) else mapping(_rounded(translate(shape, -x, -y) if x or y else shape))
    unique = uuid.uuid5(uuid.NAMESPACE_URL, f"wsikit:{store.attributes['slide']['digest']}:{key}")
    properties: dict[str, Any] = {
        "objectType": kind,
        "classification": {"name": name, "color": COLOURS[name]},
        "isLocked": kind == "annotation",
        "measurements": measurements,
    }
    if label:
        properties["name"] = label
    return {"type": "Feature", "id": str(unique), "geometry": geometry, "properties": properties}


def _point(x: float, y: float) -> dict[str, Any]:
    return {"type": "Point", "coordinates": [round(x, 2), round(y, 2)]}


def _rounded(shape: Any) -> Any:
    fixed = set_precision(shape, 0.01)
    return fixed if not isinstance(shape, MultiPolygon) or isinstance(fixed, MultiPolygon) else MultiPolygon([fixed])
