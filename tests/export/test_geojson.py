"""GeoJSON for QuPath: valid, in level-0 px, and the same numbers as the tables and results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from geojson_pydantic import FeatureCollection
from shapely import contains_xy
from shapely.geometry import shape

from wsikit.export import export_run
from wsikit.export.geojson import write_geojson
from wsikit.run import Run


@pytest.fixture(scope="module")
def features(scored: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((scored.folder / "slides/lms.geojson").read_text())["features"]
    return found


def of_kind(features: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [f for f in features if f["properties"]["classification"]["name"] == name]


def test_it_is_geojson_as_qupath_reads_it(scored: Run, features: list[dict[str, Any]]) -> None:
    FeatureCollection.model_validate_json((scored.folder / "slides/lms.geojson").read_bytes())
    ids = [f["id"] for f in features]
    assert len(set(ids)) == len(ids)
    for f in features:
        p = f["properties"]
        assert p["objectType"] in ("annotation", "detection")
        assert isinstance(p["classification"]["name"], str)
        assert all(isinstance(c, int) and 0 <= c <= 255 for c in p["classification"]["color"])
        assert all(isinstance(v, int | float) and np.isfinite(v) for v in p["measurements"].values())
        assert p["isLocked"] == (p["objectType"] == "annotation")


def test_polygons_are_valid_closed_and_on_the_slide(scored: Run, features: list[dict[str, Any]]) -> None:
    width, height = scored.results["lms"]["slide"]["size"]
    for f in of_kind(features, "Tissue"):
        geometry = shape(f["geometry"])
        assert geometry.is_valid
        x0, y0, x1, y1 = geometry.bounds
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        polygons = f["geometry"]["coordinates"] if f["geometry"]["type"] == "MultiPolygon" else [f["geometry"]["coordinates"]]
        for ring in (r for polygon in polygons for r in polygon):
            assert ring[0] == ring[-1]
            assert len(ring) >= 4
    for f in features:
        assert shape(f["geometry"]).is_valid


def test_the_tissue_outline_is_the_phantoms(phantom: Any, features: list[dict[str, Any]]) -> None:
    (tissue,) = of_kind(features, "Tissue")
    geometry, truth = shape(tissue["geometry"]), phantom.truth
    assert geometry.area * 0.25 / 1e6 == pytest.approx(tissue["properties"]["measurements"]["area mm2"], rel=0.03)
    assert geometry.area * 0.25 / 1e6 == pytest.approx(truth.tissue_mm2, rel=0.1)
    y, x = np.mgrid[: truth.tissue.shape[0], : truth.tissue.shape[1]] * 16 + 8
    assert (contains_xy(geometry, x, y) == truth.tissue).mean() > 0.95


def test_detections_are_those_of_the_table(scored: Run, features: list[dict[str, Any]]) -> None:
    table = scored.store("lms").tables()["mitosis"]
    points = [f for f in features if f["properties"]["objectType"] == "detection"]
    assert [f["geometry"]["coordinates"] for f in points] == pytest.approx(table["position"].round(2))
    assert [f["properties"]["measurements"]["score"] for f in points] == pytest.approx(table["score"].round(4), abs=1e-6)
    result = scored.results["lms"]["pipelines"]["mitosis"]
    assert len(of_kind(features, "Mitosis")) == result["count"] > 0
    assert len(of_kind(features, "Below threshold")) == result["below_threshold"]
    assert all(f["properties"]["measurements"]["score"] >= round(result["threshold"], 4) for f in of_kind(features, "Mitosis"))


def test_detections_lie_on_the_phantoms_mitoses(phantom: Any, features: list[dict[str, Any]]) -> None:
    found = np.array([f["geometry"]["coordinates"] for f in of_kind(features, "Mitosis")])
    distance_um = np.hypot(*(phantom.truth.mitoses[:, None] - found[None]).transpose(2, 0, 1)).min(1) * 0.5
    assert np.mean(distance_um < 3) > 0.85


def test_the_hotspot_is_the_results(scored: Run, features: list[dict[str, Any]]) -> None:
    (f,) = of_kind(features, "Hotspot")
    spot = scored.results["lms"]["pipelines"]["mitosis"]["hotspot"]
    assert shape(f["geometry"]).bounds == pytest.approx((spot["x"], spot["y"], spot["x"] + spot["w"], spot["y"] + spot["h"]), abs=0.01)
    measured = f["properties"]["measurements"]
    assert (measured["count"], measured["per mm2"], measured["low"], measured["high"]) == (spot["count"], spot["per_mm2"], spot["low"], spot["high"])


def test_writing_again_gives_the_same_bytes(scored: Run, tmp_path: Path) -> None:
    store = scored.store("lms")
    n = write_geojson(store, tmp_path / "a.geojson")
    assert (tmp_path / "a.geojson").read_bytes() == (scored.folder / "slides/lms.geojson").read_bytes()
    assert n == len(json.loads((tmp_path / "a.geojson").read_text())["features"])
    assert len(export_run(scored.folder, tmp_path / "out", "geojson").files) == 1
    assert (tmp_path / "out/lms.geojson").read_bytes() == (tmp_path / "a.geojson").read_bytes()
