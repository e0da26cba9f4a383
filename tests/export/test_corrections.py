"""QuPath's GeoJSON read back: not a pixel off, whatever the slide's bounds and resolution; what a person changed, and what is refused."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import LabelsError, StoreError
from wsikit.export.corrections import corrections, mask_of, point_labels, read_geojson
from wsikit.export.geojson import write_geojson
from wsikit.export.stream import stream_features
from wsikit.run import Run
from wsikit.store import SlideStore, open_store
from wsikit.store.columns import write_table

BOUNDS, DOWNSAMPLE = (1371, 911), (16.37, 15.89)


def change(path: Path, bounds: tuple[int, int] | None = None, detections: np.ndarray | None = None) -> SlideStore:
    """A store with other bounds, pixels that are not square, and downsamples that are not whole; or with other detections."""
    if bounds:
        root = zarr.open_group(str(path), mode="r+")
        a: Any = root.attrs["wsikit"]
        a["slide"] |= {"bounds": [*bounds, 40000, 30000], "size": [45000, 35000], "mpp": [0.5, 0.27]}
        a["survey"]["raster"]["downsample"] = list(DOWNSAMPLE)
        root.attrs["wsikit"] = a
    if detections is not None:
        table = open_store(path).tables()["mitosis"]
        attributes = table.attributes
        shutil.rmtree(path / "tables/mitosis")
        n = len(detections)
        score = np.where(np.arange(n) % 3 > 0, 0.9, 0.1).astype(np.float32)
        columns = {"position": detections, "score": score, "class": np.zeros(n, np.int64), "size": np.full((n, 2), 50, np.float32)}
        write_table(path / "tables/mitosis", columns, attributes)
    return open_store(path)


@pytest.fixture
def copy(scored: Run, tmp_path: Path) -> Path:
    shutil.copytree(scored.folder / "slides/lms.zarr", tmp_path / "lms.zarr")
    shutil.copy(scored.folder / "slides/lms.json", tmp_path)
    return tmp_path / "lms.zarr"


def as_qupath_writes(path: Path, change: Any = lambda features: features) -> Path:
    """What QuPath exports after importing a file: it keeps ids, classes and geometry, and drops what is not GeoJSON's or its own."""
    features = json.loads(path.read_text())["features"]
    out = path.with_name("qupath.geojson")
    out.write_text(json.dumps({"type": "FeatureCollection", "features": change(features)}))
    return out


@pytest.mark.parametrize("bounds", [None, BOUNDS])
def test_nothing_moves_there_and_back(copy: Path, bounds: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(3)
    store = change(copy, bounds, rng.random((4_000, 2)) * [2500, 2000] + (bounds or (0, 0)))
    write_geojson(store, copy.with_name("a.geojson"))
    first = json.loads(copy.with_name("a.geojson").read_text())["features"][2]["geometry"]["coordinates"]
    assert first == pytest.approx(store.tables()["mitosis"]["position"][0] - (bounds or (0, 0)), abs=0.006), "QuPath counts from the bounds' corner"
    for path in (copy.with_name("a.geojson"), as_qupath_writes(copy.with_name("a.geojson"))):
        shapes = list(read_geojson(path, store))
        points = np.concatenate([s.points for s in shapes if s.kind == "detection"])
        assert np.abs(points - store.tables()["mitosis"]["position"]).max() <= 0.0051
        downsample = tuple(store.attributes["survey"]["raster"]["downsample"])
        tissue = store.tissue() == 1
        assert (mask_of(shapes, "Tissue", tissue.shape[::-1], downsample) == tissue).all(), "not one pixel"
        spot, box = store.result["pipelines"]["mitosis"]["hotspot"], next(s for s in shapes if s.name == "Hotspot").geometry.bounds
        assert box == pytest.approx((spot["x"], spot["y"], spot["x"] + spot["w"], spot["y"] + spot["h"]), abs=0.01)
        back = corrections(shapes, store)
        assert len(back.rejected) == 0
        assert (back.row == np.flatnonzero(store.tables()["mitosis"]["score"] > 0.5)).all()


def test_what_a_person_changed_is_told(copy: Path) -> None:
    store = change(copy, BOUNDS, np.random.default_rng(0).random((30, 2)) * 2000 + BOUNDS)
    write_geojson(store, copy.with_name("a.geojson"))
    score = store.tables()["mitosis"]["score"]
    counted, below = np.flatnonzero(score > 0.5), np.flatnonzero(score < 0.5)

    def edit(features: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = features[2:]
        rows[counted[1]]["properties"]["classification"] = {"names": ["Below threshold"], "color": [1, 2, 3]}
        rows[below[0]]["properties"]["classification"] = {"name": "Mitosis"}
        rows[counted[2]]["geometry"]["coordinates"] = [7.25, 8.5]
        for gone in (counted[0], below[2]):
            rows[gone] = {}
        drawn = {"type": "MultiPoint", "coordinates": [[100, 200], [300.5, 400.25]]}
        added = {"type": "Feature", "geometry": drawn, "properties": {"objectType": "annotation", "classification": {"name": "Mitosis"}}}
        unclassed = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}, "properties": {"objectType": "annotation"}}
        return [*features[:2], *(f for f in rows if f), added, unclassed]

    path = as_qupath_writes(copy.with_name("a.geojson"), edit)
    back = corrections(read_geojson(path, store), store)
    assert sorted(back.rejected) == sorted(counted[:2])
    assert set(back.row) == {*counted[2:], below[0], -1}
    assert back.position[back.row == -1] == pytest.approx(np.array([[100, 200], [300.5, 400.25]]) + BOUNDS)
    assert back.position[back.row == counted[2]] == pytest.approx(np.array([[7.25, 8.5]]) + BOUNDS)
    labels = point_labels(read_geojson(path, store))
    assert (labels.label == "mitosis").sum() == len(back.position)
    assert (labels.label == "lookalike").sum() == len(below) - 2 + 1


@given(st.integers(0, 2**32 - 1), st.floats(0.7, 40), st.floats(0.7, 40))
@settings(max_examples=40, deadline=None)
def test_any_mask_comes_back_whole(seed: int, dx: float, dy: float) -> None:
    from wsikit.export.corrections import Shape
    from wsikit.overlay.shapes import outlines

    mask = np.random.default_rng(seed).random((17, 23)) < 0.6
    shape = outlines(mask, (dx, dy))
    if not shape.is_empty:
        assert (mask_of([Shape("", "annotation", "A", shape, {})], "A", (23, 17), (dx, dy)) == mask).all()


def polygon(*ring: tuple[float, float]) -> str:
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [list(ring)]}, "properties": {}}
    return json.dumps({"type": "FeatureCollection", "features": [feature]})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read as GeoJSON"),
        ('{"type": "FeatureCollection", "features": [{"type": "Fea', "cannot be read as GeoJSON"),
        ('{"a": 1}', "has no features"),
        ('{"features": [{"geometry": {"type": "Point", "coordinates": ["a", 1]}}]}', "feature 1 is not one of GeoJSON"),
        ('{"features": [{"geometry": {"type": "Nonsense", "coordinates": [1, 1]}}]}', "feature 1 is not one of GeoJSON"),
        ('{"features": [{"geometry": null}]}', "feature 1 is not one of GeoJSON"),
        ('{"features": [7]}', "feature 1 is not one of GeoJSON"),
        ('{"features": [{"geometry": {"type": "Polygon", "coordinates": []}}]}', "has no geometry"),
        ('{"features": [{"geometry": {"type": "Point", "coordinates": [1e999, 1]}}]}', "cannot be read|has no geometry"),
        (polygon((0, 0), (10, 10), (10, 0), (0, 10), (0, 0)), "Self-intersection"),
        (polygon((90000, 0), (90010, 0), (90010, 10), (90000, 0)), "beyond the slide"),
        ('{"wsikit": {"origin": [5, 6]}, "features": []}', "it is of another slide"),
        ("[" * 100_000, "cannot be read"),
        ('{"a":' * 100_000, "cannot be read"),
        ('{"features": [{}] "b"', "feature 1 is not one of GeoJSON"),
        ('[{"geometry": {"type": "Point", "coordinates": [1, 2]}} {}]', "'{' where one of , ]"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(scored: Run, tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(LabelsError, match=reason):
        list(read_geojson(tmp_path / "a.geojson", scored.store("lms")))


def test_a_file_without_the_detections_is_no_correction(scored: Run, tmp_path: Path) -> None:
    store = scored.store("lms")
    path = tmp_path / "a.geojson"
    write_geojson(store, path)
    shapes = list(read_geojson(path, store))
    with pytest.raises(LabelsError, match="export all objects"):
        corrections([s for s in shapes if s.kind == "annotation"], store)
    with pytest.raises(LabelsError, match="twice"):
        corrections([*shapes, shapes[-1]], store)
    with pytest.raises(StoreError, match="no detections of 'sts-subtype'"):
        corrections(shapes, store, "sts-subtype")
    with pytest.raises(LabelsError, match="No such file"):
        list(read_geojson(tmp_path / "nosuch.geojson", store))


def test_a_bare_list_of_features_is_read_too(scored: Run, tmp_path: Path) -> None:
    store = scored.store("lms")
    write_geojson(store, tmp_path / "a.geojson")
    (tmp_path / "b.geojson").write_text(json.dumps(json.loads((tmp_path / "a.geojson").read_text())["features"]))
    assert [s.id for s in read_geojson(tmp_path / "b.geojson", store)] == [s.id for s in read_geojson(tmp_path / "a.geojson", store)]


@pytest.mark.slow
def test_a_million_detections_take_no_memory(copy: Path) -> None:
    def write(n: int) -> float:
        store = change(copy, None, np.random.default_rng(0).random((n, 2)) * 2000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert write_geojson(store, copy.with_name("a.geojson")) == n + 2
        assert sum(1 for _ in read_geojson(copy.with_name("a.geojson"), store)) == n + 2
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    write(10_000)
    assert write(1_000_000) < 64, "MiB"


@given(
    st.lists(
        st.recursive(st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)), max_size=8
    )
)
@settings(max_examples=40, deadline=None)
def test_features_are_streamed_as_json_reads_them_wherever_the_file_is_cut(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    path = tmp_path_factory.mktemp("s") / "a.json"
    for read, indent in ((1, 1), (3, None), (2**20, 1), (2**20, None)):
        path.write_text(json.dumps({"a": [1], "features": values}, indent=indent, ensure_ascii=False), encoding="utf-8")
        with pytest.MonkeyPatch.context() as m:
            m.setattr("wsikit.export.stream._READ", read)
            head, features = stream_features(path)
            assert (head, list(features)) == ({"a": [1]}, values)
