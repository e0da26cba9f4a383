"""Tables for other tools come back as they were."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import wsikit as wk
from wsikit.cli.export import KINDS as CLI_KINDS
from wsikit.cli.main import main
from wsikit.errors import StoreMismatchError, UsageError
from wsikit.export import KINDS, export_run
from wsikit.run import Run

CLASSES = ("DDLPS", "LMS", "MFS", "SS", "UPS")


def exit_code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as left:
        main([*arguments])
    return left.value.code


def test_csv_comes_back_bit_for_bit(scored: Run, tmp_path: Path) -> None:
    store = scored.store("lms")
    assert len(export_run(scored.folder, tmp_path, "csv").files) == len(store.tables())
    for name, table in store.tables().items():
        frame = pd.read_csv(tmp_path / f"lms.{name}.csv", float_precision="round_trip")
        expected = table.to_pandas()
        assert list(frame) == list(expected)
        for column in frame:
            back = frame[column].to_numpy().astype(expected[column].dtype)
            assert (back == expected[column].to_numpy()).all(), column


def test_columns_are_named_after_classes_and_axes(scored: Run, tmp_path: Path) -> None:
    export_run(scored.folder, tmp_path, "csv")
    tiles, found = pd.read_csv(tmp_path / "lms.sts-subtype.csv"), pd.read_csv(tmp_path / "lms.mitosis.csv")
    tables = scored.store("lms").tables()
    assert {"origin_x", "origin_y", "size_w", "size_h", "tissue", *(f"p_{c}" for c in CLASSES)} == set(tiles)
    assert tiles["p_LMS"].to_numpy(np.float32) == pytest.approx(tables["sts-subtype"]["probability"][:, 1])
    assert tiles["origin_y"].tolist() == tables["sts-subtype"]["origin"][:, 1].tolist()
    assert {"position_x", "position_y", "score", "size_w", "size_h", "class"} == set(found)
    assert set(found["class"]) == {"mitosis"}
    assert found["position_x"].to_numpy() == pytest.approx(tables["mitosis"]["position"][:, 0])


def test_hdf5_is_in_the_layout_of_clam(scored: Run, tmp_path: Path) -> None:
    store = scored.store("lms")
    classifiers = [name for name, table in store.tables().items() if "feature" in table]
    assert len(export_run(scored.folder, tmp_path, "hdf5").files) == len(classifiers) == 2
    for name in classifiers:
        table = store.tables()[name]
        with h5py.File(tmp_path / f"lms.{name}.h5") as h5:
            assert h5["coords"].dtype == np.int64
            assert (h5["coords"][...] == table["origin"]).all()
            assert h5["features"].dtype == np.float32
            assert (h5["features"][...] == table["feature"].astype(np.float32)).all()
            facts = dict(h5["coords"].attrs)
        assert (facts["level0_width"], facts["level0_height"]) == (2560, 2048)
        assert facts["patch_size_level0"] == round(table["size"][0, 0])
        assert facts["name"] == "lms"
        assert (facts["patch_size"], facts["overlap"], facts["patch_level"]) == ({"sts-subtype": 224, "rms-subtype": 299}[name], 0, 0)
        stage = scored.results["lms"]["provenance"]["stages"][name]
        assert (facts["level0_magnification"], facts["target_magnification"]) == (20, round(10 / stage["raster"]["mpp"][0]))


def test_parquet_holds_the_whole_table(scored: Run, tmp_path: Path) -> None:
    tables = scored.store("lms").tables()
    assert len(export_run(scored.folder, tmp_path, "parquet").files) == len(tables)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"lms.{name}.parquet"), table.to_pandas())


def test_tiles_that_are_no_squares_have_no_place_in_clams_layout(scored: Run, tmp_path: Path) -> None:
    shutil.copytree(scored.folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.parts"))
    path = tmp_path / "run/slides/lms.json"
    result = json.loads(path.read_text())
    result["provenance"]["stages"]["sts-subtype"]["raster"]["downsample"] = [2.0, 3.7]
    path.write_text(json.dumps(result))
    done = export_run(tmp_path / "run", tmp_path / "out", "hdf5")
    assert "its pixels are not square" in done.skipped["lms"]
    assert not (tmp_path / "out/lms.sts-subtype.h5").exists()


def test_anndata_holds_the_tiles(scored: Run, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    assert len(export_run(scored.folder, tmp_path, "anndata").files) == 2
    for name in ("sts-subtype", "rms-subtype"):
        found, table = anndata.read_h5ad(tmp_path / f"lms.{name}.h5ad"), scored.store("lms").tables()[name]
        assert (table["probability"] == found.X).all()
        assert list(found.var_names) == table.attributes["classes"]
        assert (found.obsm["spatial"] == table["origin"] + table["size"] / 2).all()
        assert (found.obsm["features"] == table["feature"].astype(np.float32)).all()
        assert (found.obs["origin_x"] == table["origin"][:, 0]).all()
        assert found.uns["wsikit"]["mpp"].tolist() == [0.5, 0.5]
        assert json.loads(found.uns["wsikit"]["provenance"])["slide"] == scored.results["lms"]["slide"]["digest"]
        assert found.uns["wsikit"]["statement"] == wk.RESEARCH_USE_ONLY


@pytest.mark.parametrize(("library", "kind", "extra"), [("anndata", "anndata", "anndata"), ("highdicom", "dicom", "dicom")])
def test_a_library_that_is_missing_is_named_with_how_to_get_it(
    scored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, kind: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"wsikit.export.{kind}", raising=False)
    with pytest.raises(UsageError, match=rf"need {library}; .* uv sync --extra {extra}, or pip install '.\[{extra}\]'"):
        export_run(scored.folder, tmp_path, kind)


def test_kinds_and_slides_that_cannot_be(scored: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert KINDS == CLI_KINDS
    with pytest.raises(UsageError, match="--to xml: there are geojson, csv, parquet, hdf5, dicom, anndata"):
        export_run(scored.folder, tmp_path, "xml")
    shutil.copytree(scored.folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.parts"))
    shutil.copytree(tmp_path / "run/slides/lms.zarr", tmp_path / "run/slides/bad.zarr")
    (tmp_path / "run/slides/bad.json").write_text("{")
    assert exit_code("export", str(tmp_path / "run"), "--to", "csv", "-o", str(tmp_path / "out")) == 1
    assert "skipped: bad: " in capsys.readouterr().err
    pytest.importorskip("highdicom")
    assert exit_code("export", str(scored.folder), "--to", "dicom", "-o", str(tmp_path / "out")) == 2
    assert "is no DICOM slide" in capsys.readouterr().err


def test_a_folder_without_finished_slides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreMismatchError, match="no finished slides"):
        export_run(tmp_path, tmp_path / "out", "csv")
