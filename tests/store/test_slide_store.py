"""`open_store`: what it reads, and what it says of a store that is not one, not finished, or not whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

import wsikit as wk
from wsikit.errors import DamagedStoreError, StoreError, StoreMismatchError
from wsikit.run import Run


def test_what_a_store_says_of_its_slide(scored: Run) -> None:
    store = scored.store("lms")
    assert store.slide_id == "lms"
    assert store.mpp == (0.5, 0.5)
    assert store.attributes["slide"]["size"] == [2560, 2048]
    assert store.overlays() == ["mitosis", "quality", "rms-subtype", "sts-subtype", "survival"]
    assert sorted(store.tables()) == ["mitosis", "quality", "rms-subtype", "sts-subtype", "tiles"]
    assert store.result == scored.results["lms"]


@pytest.mark.parametrize(("mpp", "width"), [(None, 2560), (0.25, 2560), (0.5, 2560), (1.9, 2560), (2.0, 640), (7.8, 640), (7.9, 160), (8.0, 160), (99.0, 160)])
def test_an_image_is_as_fine_as_asked_within_2_percent(scored: Run, mpp: float | None, width: int) -> None:
    assert scored.store("lms").image(mpp).shape[2] == width


def test_tables_have_the_columns_that_the_design_promises(scored: Run) -> None:
    tables = scored.store("lms").tables()
    tiles, found = tables["sts-subtype"], tables["mitosis"]
    assert {k: tiles[k].dtype.str for k in tiles} == {"feature": "<f2", "origin": "<i8", "probability": "<f4", "size": "<f8", "tissue": "<f4"}
    assert {k: found[k].dtype.str for k in found} == {"class": "<i8", "position": "<f8", "score": "<f4", "size": "<f4"}
    assert tiles["probability"].sum(1) == pytest.approx(1, abs=1e-5)
    assert tiles["probability"].shape[1] == len(tiles.attributes["classes"])
    assert (tiles["size"] == 224).all() or (tiles["size"] == 448).all()
    inside = (found["position"] >= 0) & (found["position"] < np.array([2560, 2048]))
    assert inside.all()


def test_an_overlay_that_is_not_there_lists_what_is(scored: Run) -> None:
    with pytest.raises(StoreError, match="no overlay 'heat'; there are: mitosis, quality, rms-subtype, sts-subtype"):
        scored.store("lms").overlay("heat")


@pytest.mark.parametrize("what", ["nothing", "file", "empty", "other zarr", "torn"])
def test_what_is_no_store_is_named(tmp_path: Path, lean_store: Path, what: str) -> None:
    path = tmp_path / "x.zarr"
    if what == "file":
        path.write_bytes(b"x")
    elif what == "empty":
        path.mkdir()
    elif what == "other zarr":
        zarr.open_group(str(path), mode="w")
    elif what == "torn":
        shutil.copytree(lean_store, path)
        (path / "zarr.json").write_bytes((path / "zarr.json").read_bytes()[:-100])
    with pytest.raises(StoreMismatchError, match=r"x\.zarr: not a wsikit slide store"):
        wk.open_store(path)


def test_a_store_of_another_schema_is_refused(lean_store: Path) -> None:
    group = zarr.open_group(str(lean_store), mode="a")
    group.attrs["wsikit"] = dict(group.attrs["wsikit"]) | {"schema": 999}
    with pytest.raises(StoreMismatchError, match=r"store schema 999, this wsikit reads 1"):
        wk.open_store(lean_store)


def test_a_slide_that_is_not_finished_has_no_result(lean_store: Path) -> None:
    lean_store.with_suffix(".json").unlink()
    with pytest.raises(StoreError, match=r"small\.json: the slide has no result yet"):
        _ = wk.open_store(lean_store).result


def test_a_damaged_result_is_named(lean_store: Path) -> None:
    path = lean_store.with_suffix(".json")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DamagedStoreError, match=r"small\.json: damaged"):
        _ = wk.open_store(lean_store).result


def read_everything(path: Path) -> None:
    store = wk.open_store(path)
    store.tissue()
    for name in store.overlays():
        store.overlay(name)
    for table in store.tables().values():
        for column in table:
            table[column]


def test_a_flipped_byte_in_any_data_file_is_an_error_that_names_it(lean_store: Path, flip: Callable[[Path, int], None]) -> None:
    """Columns, heat maps and the tissue label; the image levels are zarr arrays that their reader opens itself."""
    files = [p for part in ("tables", "overlays", "labels/tissue/0") for p in (lean_store / part).rglob("*") if p.is_file() and p.name != "zarr.json"]
    assert len(files) > 10
    read_everything(lean_store)
    for file in files:
        array = file.relative_to(lean_store).as_posix().split("/c/")[0]
        flip(file, file.stat().st_size // 3)
        with pytest.raises(DamagedStoreError, match=f"{array}: damaged"):
            read_everything(lean_store)
        flip(file, file.stat().st_size // 3)


def test_a_missing_array_is_named(lean_store: Path) -> None:
    shutil.rmtree(lean_store / "labels/tissue/0")
    with pytest.raises(DamagedStoreError, match=r"labels/tissue/0 is missing; run wsikit verify"):
        wk.open_store(lean_store).tissue()


@pytest.mark.parametrize("name", ["labels/tissue/0", "overlays/mitosis", "overlays", "tables/mitosis", "tables"])
def test_torn_metadata_are_named(lean_store: Path, name: str) -> None:
    path = lean_store / name / "zarr.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedStoreError, match=rf"the metadata (of array|below) {name.split('/')[0]}.* are damaged; run wsikit verify"):
        read_everything(lean_store)


def test_a_viewer_is_told_of_rot_by_zarr_itself(scored: Run, tmp_path: Path, flip: Callable[[Path, int], None]) -> None:
    """Pixels are read by others with plain zarr, so the checksum must be inside the file."""
    path = tmp_path / "lms.zarr"
    shutil.copytree(scored.store("lms").path, path)
    for level in ("0", "1", "2"):
        shard = next(p for p in (path / level / "c").rglob("*") if p.is_file())
        flip(shard, shard.stat().st_size // 2)
        with pytest.raises((ValueError, RuntimeError)):
            np.asarray(zarr.open_array(str(path / level), mode="r"))


def test_attributes_are_plain_json(lean: Run) -> None:
    attributes = lean.store("small").attributes
    assert json.loads(json.dumps(attributes, allow_nan=False)) == attributes
    assert {"schema", "statement", "slide", "survey", "stain", "stages"} <= attributes.keys()
