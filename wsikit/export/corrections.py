"""QuPath's GeoJSON read back: as shapes in level-0 px, as labels to train on, as corrections of what a model found.

QuPath's exports are a FeatureCollection (or a bare list of features) whose coordinates count from the corner of the slide's bounds, without
saying where that is; the store knows. A file that was written by wsikit and names another corner is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry import shape as to_shape
from shapely.geometry.base import BaseGeometry

from wsikit.aggregate.searched import counts_of
from wsikit.errors import LabelsError, StoreError
from wsikit.export.geojson import detection_id, origin_of
from wsikit.export.stream import stream_features
from wsikit.store import SlideStore

if TYPE_CHECKING:
    import pandas as pd

COUNTED = "Mitosis"
POINT_LABELS = {"Mitosis": "mitosis", "Below threshold": "lookalike", "Look-alike": "lookalike", "Lookalike": "lookalike"}


@dataclass(frozen=True)
class Shape:
    """One object of QuPath's: ``geometry`` in level-0 px; ``name`` of its class, empty where it has none; ``kind`` annotation, detection, …"""

    id: str
    kind: str
    name: str
    geometry: BaseGeometry
    measurements: Mapping[str, float]

    @property
    def points(self) -> np.ndarray:
        """Where it is, when it stands for things and not areas: the points of a Point or MultiPoint, the centroid of another shape; float64 (n, 2)."""
        parts = shapely.get_parts(self.geometry) if self.geometry.geom_type == "MultiPoint" else [self.geometry.centroid]
        return shapely.get_coordinates(parts)


@dataclass(frozen=True)
class Corrections:
    """What a person made of a pipeline's detections.

    Attributes
    ----------
    position : float64 (K, 2) level-0 px of those that count now: accepted, moved, or added
    row : int64 (K,) their row in the pipeline's table, −1 for added ones
    rejected : int64 (R,) rows that the model counted and the person does not: deleted, or given another class
    """

    position: np.ndarray
    row: np.ndarray
    rejected: np.ndarray


def read_geojson(path: Path, store: SlideStore) -> Iterator[Shape]:
    """The shapes of a file, one by one: a million need no memory.

    Raises
    ------
    LabelsError
        The file cannot be read, is no GeoJSON, or has a shape that is empty, crosses itself, or lies beyond the slide.
    """
    origin = origin_of(store)
    width, height = store.attributes["slide"]["size"]
    head, features = stream_features(path)
    stated = head["wsikit"].get("origin") if isinstance(head.get("wsikit"), dict) else None
    if stated not in (None, origin):
        raise LabelsError(f"{path}: counts from {stated}, this slide's shapes from {origin}: it is of another slide")
    for number, feature in enumerate(features, 1):
        found = _shape(feature, f"{path}: feature {number}", origin)
        x0, y0, x1, y1 = found.geometry.bounds
        if x1 < 0 or y1 < 0 or x0 > width or y0 > height:
            raise LabelsError(f"{path}: feature {number} lies at x {x0:.0f}, y {y0:.0f}, beyond the slide's {width} × {height} px; is it of another?")
        yield found


def corrections(shapes: Iterable[Shape], store: SlideStore, pipeline: str = "mitosis") -> Corrections:
    """What did a person change of a pipeline's detections in QuPath?

    Detections are told by their UUIDs, which QuPath keeps. One that is gone, or of another class than Mitosis, is rejected; a point, or a
    shape, of class Mitosis that was not there is added.

    Raises
    ------
    LabelsError
        None of the store's detections is among the shapes, so that all would count as deleted; or one is there twice.
    StoreError
        The store has no detections of this pipeline.
    """
    tables, result = store.tables(), store.result["pipelines"].get(pipeline, {})
    if pipeline not in tables or "position" not in tables[pipeline] or "threshold" not in result:
        raise StoreError(f"{store.path}: no detections of '{pipeline}' to correct")
    table, digest = tables[pipeline], store.attributes["slide"]["digest"]
    found, score = table["position"], table["score"]
    rows = {detection_id(digest, pipeline, i): i for i in range(len(score))}
    seen = np.zeros(len(score), bool)
    position, row = [np.empty((0, 2))], [np.empty(0, np.int64)]
    for s in shapes:
        at = rows.get(s.id, -1)
        if at >= 0:
            if seen[at]:
                raise LabelsError(f"{store.slide_id}: detection {s.id} is there twice; remove the duplicates in QuPath and export again")
            seen[at] = True
        if s.name == COUNTED:
            position.append(s.points)
            row.append(np.full(len(position[-1]), at))
    if len(score) and not seen.any():
        raise LabelsError(f"{store.slide_id}: none of the store's detections is there; export all objects from QuPath, not only the selected ones")
    kept = np.concatenate(row)
    counted = np.flatnonzero(counts_of(store, result)(found, score))  # as `write_geojson` wrote them: others cannot have been rejected
    return Corrections(np.concatenate(position), kept, np.setdiff1d(counted, kept))


def point_labels(shapes: Iterable[Shape], names: Mapping[str, str] = POINT_LABELS) -> pd.DataFrame:
    """Points as ``wsikit train mitosis`` takes them: columns x, y in level-0 px and label; add ``path`` and ``patient``. Other classes are left out."""
    found = [(x, y, names[s.name]) for s in shapes if s.name in names for x, y in s.points.tolist()]
    import pandas as pd

    return pd.DataFrame(found, columns=["x", "y", "label"])


def mask_of(shapes: Iterable[Shape], name: str, size: tuple[int, int], downsample: tuple[float, float]) -> np.ndarray:
    """Which pixels' centres lie in the annotations of a class? bool (H, W), a pixel covering ``downsample`` level-0 px (x, y); ``size`` is (W, H)."""
    out = np.zeros((size[1], size[0]), bool)
    for s in shapes:
        if s.name != name or s.kind != "annotation":
            continue
        edges = np.array(s.geometry.bounds).reshape(2, 2) / downsample
        (c0, r0), (c1, r1) = np.clip(np.floor(edges).astype(int) + np.array([[0], [1]]), 0, size)
        y, x = np.mgrid[r0:r1, c0:c1] + 0.5
        shapely.prepare(s.geometry)
        out[r0:r1, c0:c1] |= shapely.contains_xy(s.geometry, x * downsample[0], y * downsample[1])
    return out


def _shape(feature: Any, where: str, origin: list[int]) -> Shape:
    try:
        properties = feature.get("properties") or {}
        geometry = to_shape(feature["geometry"])
        bounds = geometry.bounds
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, shapely.errors.ShapelyError) as e:
        raise LabelsError(f"{where} is not one of GeoJSON ({' '.join(str(e).split())[:120]})") from e
    if geometry.is_empty or not all(map(math.isfinite, bounds)):
        raise LabelsError(f"{where} has no geometry; delete it in QuPath")
    if not geometry.is_valid:
        raise LabelsError(f"{where}: {shapely.is_valid_reason(geometry)}; its area has no meaning, so mend or delete it in QuPath")
    moved = shapely.transform(geometry, lambda xy: xy + origin) if any(origin) else geometry
    measurements = {k: float(v) for k, v in (properties.get("measurements") or {}).items() if isinstance(v, int | float)}
    return Shape(str(feature.get("id", "")), str(properties.get("objectType", "annotation")), _class(properties), moved, measurements)


def _class(properties: Mapping[str, Any]) -> str:
    """QuPath writes ``name`` ("Tumor: Positive"), or the parts as ``names``."""
    found = properties.get("classification") or {}
    return ": ".join(map(str, found["names"])) if found.get("names") else str(found.get("name") or "")
