"""QuPath GeoJSON: tissue and hotspot as annotations, mitoses as detections, in level-0 px as QuPath counts them.

QuPath crops a slide to its bounds (MRXS, SCN), and counts from their corner; so does this file, and says so in ``wsikit.origin``.

QuPath's reader (PathObjectTypeAdapters) wants ``objectType``, ``classification`` with name and colour, numeric ``measurements`` and a
UUID as ``id``. Detections are written as they are read, some thousands at a time, so a million of them need no memory.
`wsikit.export.corrections` reads what QuPath writes.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from shapely import MultiPolygon, box, set_precision, unary_union
from shapely.affinity import translate
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from wsikit.aggregate.searched import counts_of, without_flaws
from wsikit.errors import DamagedStoreError
from wsikit.overlay.shapes import hotspot_outlines, outlines
from wsikit.store import SlideStore
from wsikit.store.durable import atomic_file

COLOURS = {
    "Tissue": [0, 158, 115],
    "Tumour": [0, 114, 178],
    "Hotspot": [230, 159, 0],
    "Mitosis": [213, 94, 0],
    "Below threshold": [86, 180, 233],
    "Outside the region": [150, 150, 150],
    "Damaged": [204, 121, 167],
    "Blurred": [120, 120, 120],
}


def write_geojson(store: SlideStore, path: Path) -> int:
    """Write a slide's shapes; returns how many. The file is the same each time it is written.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    DamagedStoreError
        The store's columns differ from what was written.
    """
    count = 0
    with atomic_file(path) as f:
        f.write(b'{"type":"FeatureCollection",')
        if any(origin_of(store)):
            f.write(b'"wsikit":' + json.dumps({"origin": origin_of(store)}).encode() + b",")
        f.write(b'"features":[')
        for lines in _lines(store):
            f.write((",\n" if count else "\n").encode() + ",\n".join(lines).encode())
            count += len(lines)
        f.write(b"\n]}\n")
    return count


def origin_of(store: SlideStore) -> list[int]:
    """The level-0 px (x, y) that QuPath calls 0, 0: the corner of the slide's bounds."""
    return list(store.attributes["slide"].get("bounds", (0, 0))[:2])


def detection_id(digest: str, pipeline: str, row: int) -> str:
    """The UUID of a detection: the same whenever the slide is scored, so that what a person changed in QuPath can be told."""
    return _unique(digest, f"{pipeline}/{row}")


def _unique(digest: str, key: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"wsikit:{digest}:{key}"))


def _lines(store: SlideStore) -> Iterator[list[str]]:
    """A slide's shapes as JSON, some at a time."""
    survey = store.attributes["survey"]
    tissue = outlines(store.tissue() == 1, tuple(survey["raster"]["downsample"]))
    if not tissue.is_empty:
        yield [_feature(store, "tissue", tissue, "Tissue", {"area mm2": survey["tissue_mm2"]})]
    for name, result in sorted(store.result["pipelines"].items()):
        if result["status"] == "ok" and "region_mm2" in result and (mask := store.region(name)) is not None and mask.any():
            shape = outlines(mask, tuple(survey["raster"]["downsample"]))
            yield [_feature(store, f"{name}/region", shape, "Tumour", {"area mm2": result["region_mm2"], "share of tissue": result["share"]})]
    if gone := store.result.get("damaged", {}).get("boxes"):
        yield [_feature(store, "damaged", unary_union([box(x, y, x + w, y + h) for x, y, w, h in gone]), "Damaged", {"squares": len(gone)})]
    if (dull := without_flaws(store).blurred).any():
        mm2 = float(dull.sum()) * math.prod(survey["raster"]["mpp"]) / 1e6
        yield [_feature(store, "blurred", outlines(dull, tuple(survey["raster"]["downsample"])), "Blurred", {"area mm2": round(mm2, 6)})]
    for name, result in sorted(store.result["pipelines"].items()):
        if result["status"] == "ok" and result.get("hotspot"):
            yield [_hotspot(store, name, result["hotspot"])]
            yield from _detections(store, name, result)


def _hotspot(store: SlideStore, name: str, h: dict[str, Any]) -> str:
    measures = {"count": h["count"], "per mm2": h["per_mm2"], "low": h["low"], "high": h["high"], "tissue mm2": h["tissue_mm2"]}
    label = f"{h['count']} mitoses, {h['per_mm2']:.1f}/mm2"
    parts = hotspot_outlines(h)
    shape = parts[0] if len(parts) == 1 else MultiPolygon(parts)
    return _feature(store, f"{name}/hotspot", shape, "Hotspot", measures, label)


def _detections(store: SlideStore, name: str, result: Mapping[str, Any]) -> Iterator[list[str]]:
    """Points; their JSON is put together by hand, which is several times as fast as from dictionaries."""
    digest, origin = store.attributes["slide"]["digest"], np.array(origin_of(store))
    # a detection that would count, but lies outside the region that the count is confined to, is no mitosis here, and no look-alike to learn from
    classes = [_json({"name": kind, "color": COLOURS[kind]}) for kind in ("Below threshold", "Outside the region", "Mitosis")]
    ends = [f']}},"properties":{{"objectType":"detection","classification":{c},"isLocked":false,"measurements":{{"score":' for c in classes]
    counts, row = counts_of(store, result), 0
    for position, score in store.tables()[name].batches("position", "score"):
        xy = (position - origin).round(2).tolist()
        kind = (score >= np.float32(result["threshold"])).astype(int) + counts(position, score)
        kinds, rounded = kind.tolist(), score.astype(np.float64).round(4).tolist()
        if not (np.isfinite(position).all() and np.isfinite(score).all()):
            raise DamagedStoreError(f"{store.path}: a detection of {name} has no position or score; run wsikit verify on the run folder")
        yield [
            f'{{"type":"Feature","id":"{detection_id(digest, name, row + i)}","geometry":{{"type":"Point","coordinates":[{x},{y}{ends[c]}{s}}}}}}}'
            for i, ((x, y), c, s) in enumerate(zip(xy, kinds, rounded, strict=True))
        ]
        row += len(xy)


def _feature(store: SlideStore, key: str, shape: BaseGeometry, name: str, measurements: dict[str, float], label: str = "") -> str:
    x, y = origin_of(store)
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "classification": {"name": name, "color": COLOURS[name]},
        "isLocked": True,
        "measurements": measurements,
    }
    if label:
        properties["name"] = label
    geometry = mapping(_rounded(translate(shape, -x, -y) if x or y else shape))
    return _json({"type": "Feature", "id": _unique(store.attributes["slide"]["digest"], key), "geometry": geometry, "properties": properties})


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _rounded(shape: Any) -> Any:
    fixed = set_precision(shape, 0.01)
    return fixed if not isinstance(shape, MultiPolygon) or isinstance(fixed, MultiPolygon) else MultiPolygon([fixed])
