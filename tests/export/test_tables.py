"""Tables for other tools come back as they were."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from wsikit.errors import StoreMismatchError, UsageError
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


def test_parquet_without_its_library_says_what_to_install_and_leaves_nothing(scored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    with pytest.raises(UsageError, match="pip install pyarrow"):
        export_run(scored.folder, tmp_path / "out", "parquet")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_parquet_gets_the_whole_table(scored: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is not among the dependencies, so what it would be given is kept instead."""
    given: list[pd.DataFrame] = []

    def keep(frame: pd.DataFrame, file: io.BufferedIOBase, **options: Any) -> None:
        assert options == {"index": False}
        given.append(frame)
        file.write(b"PAR1")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", keep)
    tables = scored.store("lms").tables()
    assert export_run(scored.folder, tmp_path, "parquet") == len(tables)
    for frame, (name, table) in zip(given, tables.items(), strict=True):
        pd.testing.assert_frame_equal(frame, table.to_pandas())
        assert (tmp_path / f"lms.{name}.parquet").read_bytes() == b"PAR1"


def test_a_folder_without_finished_slides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreMismatchError, match="no finished slides"):
        export_run(tmp_path, tmp_path / "out", "csv")
