"""What a run measured of its patients, read from its tables and stores, and joined by name."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from wsikit.errors import LabelsError
from wsikit.run import Run
from wsikit.train.study import read_study


@pytest.fixture
def run(scored: Run, tmp_path: Path) -> Path:
    """The scored phantom as two slides of patient A, and as one of B."""
    folder = tmp_path / "run"
    (folder / "slides").mkdir(parents=True)
    models = json.loads((scored.folder / "run.json").read_text())["job"]["models"]
    (folder / "run.json").write_text(json.dumps({"job": {"models": models}}))
    for name in ("a1", "a2", "b1"):
        shutil.copytree(scored.folder / "slides/lms.zarr", folder / f"slides/{name}.zarr")
        shutil.copy(scored.folder / "slides/lms.json", folder / f"slides/{name}.json")
    with (folder / "slides.csv").open("w", newline="") as f:
        csv.writer(f).writerows([("slide_id", "patient", "status"), ("a1", "A", "ok"), ("a2", "A", "ok"), ("b1", "B", "ok"), ("c1", "C", "failed")])
    with (folder / "patients.csv").open("w", newline="") as f:
        csv.writer(f).writerows([("patient", "mitosis.per_mm2", "sts-subtype.call"), ("A", "4.5", "LMS"), ("B", "", "UPS"), ("C", "", "")])
    return folder


def labels(path: Path, patients: str = "AB") -> Path:
    path.write_text("patient,time_months,event,age\n" + "".join(f"{p},{10 + i},1,{60 + i}\n" for i, p in enumerate(patients)))
    return path


def test_features_come_from_tables_and_stores(run: Path, scored: Run, tmp_path: Path) -> None:
    wanted = ["mitosis.per_mm2", "sts-subtype.f1?", "sts-subtype.share_LMS", "pathomics.eosin", "quality.fold"]
    study = read_study(labels(tmp_path / "l.csv"), run, wanted, "OS", tiles_of="sts-subtype")
    store = scored.store("lms")
    table = store.tables()["sts-subtype"]
    assert study.patients.follow.patient.tolist() == ["A", "B"]
    assert study.image == ["mitosis.per_mm2", *(f"sts-subtype.f{i}" for i in range(10, 20)), "sts-subtype.share_LMS", "pathomics.eosin", "quality.fold"]
    row = study.patients.table.loc["A"]
    assert row["mitosis.per_mm2"] == 4.5
    assert np.isnan(study.patients.table.loc["B", "mitosis.per_mm2"])
    assert row["sts-subtype.f12"] == pytest.approx(table["feature"][:, 12].astype(float).mean())
    assert row["sts-subtype.share_LMS"] == store.result["pipelines"]["sts-subtype"]["tile_share"]["LMS"]
    assert row["pathomics.eosin"] > 0
    assert study.patients.bags is not None
    assert [len(b) for b in study.patients.bags] == [2 * len(table["feature"]), len(table["feature"])]
    assert study.calls["sts-subtype"] == {"A": "LMS", "B": "UPS", "C": ""}
    assert study.left_out == 1
    assert study.notes == ["1 patients are left out, as labels does not have them: C"]


def test_what_a_run_does_not_have_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"the run has no feature 'mitosis\.radius'; there are, among others"):
        read_study(labels(tmp_path / "l.csv"), run, ["mitosis.radius"], "OS")
    with pytest.raises(LabelsError, match="patient C has no tile of pipeline 'sts-subtype'"):
        read_study(labels(tmp_path / "l.csv", "ABC"), run, [], "OS", tiles_of="sts-subtype")
    with pytest.raises(LabelsError, match="nothing joins"):
        read_study(labels(tmp_path / "l.csv", "XYZ"), run, ["mitosis.per_mm2"], "OS")
