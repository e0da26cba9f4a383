"""Tables for other tools come back as they were."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from wsikit.errors import StoreMismatchError
from wsikit.export import export_run
from wsikit.run import Run

CLASSES = ("DDLPS", "LMS", "MFS", "SS", "UPS")


def test_csv_comes_back_bit_for_bit(scored: Run, tmp_path: Path) -> None:
    store = scored.store("lms")
    assert export_run(scored.folder, tmp_path, "csv") == len(store.tables())
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
    assert export_run(scored.folder, tmp_path, "hdf5") == len(classifiers) == 2
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


def test_parquet_holds_the_whole_table(scored: Run, tmp_path: Path) -> None:
    tables = scored.store("lms").tables()
    assert export_run(scored.folder, tmp_path, "parquet") == len(tables)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"lms.{name}.parquet"), table.to_pandas())


def test_a_folder_without_finished_slides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreMismatchError, match="no finished slides"):
        export_run(tmp_path, tmp_path / "out", "csv")
