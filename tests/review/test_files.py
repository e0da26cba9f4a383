"""``wsikit review``: corrections from a table and from QuPath, labels for training, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import box, mapping

from wsikit.cli.main import main
from wsikit.report import write_reports
from wsikit.run.again import verify_run
from wsikit.run.reviewed import open_review
from wsikit.train.tasks import read_points


def review(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["review", *map(str, arguments)])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def test_a_table_is_taken_in_once(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = open_review(folder, "lms").objects("mitosis").position[0]
    table = tmp_path / "said.csv"
    lines = ["slide_id,x,y,label,pipeline,call,comment", f"lms,{x + 1},{y},lookalike,,,pyknotic", "lms,1500,1000,mitosis,,,", "lms,,,,sts-subtype,MFS,=myxoid"]
    table.write_text("\n".join(lines))
    code, out, _ = review(capsys, folder, "--apply", table, "--by", "AB")
    assert code == 0
    assert "3 changes of 1 slides" in out
    assert "MFS" in out
    code, out, _ = review(capsys, folder, "--apply", table, "--by", "AB", "--json")
    assert json.loads(out)["applied"] == {}, "again changes nothing"
    summary = json.loads(out)["slides"]["lms"]["pipelines"]
    assert summary["mitosis"]["people"]["rejected"] == summary["mitosis"]["people"]["added"] == 1
    assert summary["sts-subtype"]["call"] == "MFS"
    assert list(verify_run(folder)) == []
    page = write_reports(folder).with_name("lms.html").read_text()
    assert "overruled as MFS (the model said LMS) by AB" in page
    assert "1 rejected, 1 added" in page
    assert '<div class="big">LMS</div>' in page, "the model's own answer stays"


def test_labels_come_out_as_training_takes_them(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = open_review(folder, "lms", "AB")
    places = said.objects("mitosis").position[:3]
    for place, label in zip(places, ("mitosis", "apoptosis", "unsure"), strict=True):
        said.label("mitosis", (place[0], place[1]), label)
    said.verdict("sts-subtype", "LMS")
    code, out, _ = review(capsys, folder, "--labels", tmp_path / "labels")
    assert (code, "2 labels in" in out, "1 labels in" in out) == (0, True, True)
    with (tmp_path / "labels/mitosis.csv").open() as f:
        points = list(csv.DictReader(f))
    assert [(p["label"], p["said"]) for p in points] == [("mitosis", "mitosis"), ("lookalike", "apoptosis")]
    np.testing.assert_allclose([[float(p["x"]), float(p["y"])] for p in points], places[:2], atol=0.006)
    (taken,) = read_points(tmp_path / "labels/mitosis.csv")  # training's own reader
    assert (len(taken.objects), len(taken.lookalikes)) == (1, 1)
    with (tmp_path / "labels/sts-subtype.csv").open() as f:
        assert next(csv.DictReader(f))["label"] == "LMS"


def in_qupath(folder: Path, tmp_path: Path, edit: Any) -> Path:
    """What QuPath exports of the run's GeoJSON after a person edited it."""
    features = json.loads((folder / "slides/lms.geojson").read_text())["features"]
    detections = [f for f in features if f["properties"]["objectType"] == "detection"]
    others = [f for f in features if f not in detections]
    out = tmp_path / "lms.geojson"
    out.write_text(json.dumps({"type": "FeatureCollection", "features": others + edit(detections)}))
    return out


def drawn(name: str, geometry: Any, kind: str = "annotation") -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": kind, "classification": {"name": name}}}


def test_qupath_and_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
        _, other, moved, *rest = detections
        other["properties"]["classification"] = {"name": "Apoptosis"}
        moved["geometry"]["coordinates"][0] += 20.0
        added = drawn("Mitosis", {"type": "Point", "coordinates": [1500.25, 1000.5]})
        return [other, moved, *rest, added, drawn("Ignore*", mapping(box(1600, 1200, 2400, 2000)))]

    before = open_review(folder, "lms")
    n, tissue = before.answer("mitosis")["count"], before.tissue_mm2
    path = in_qupath(folder, tmp_path, edit)
    code, out, _ = review(capsys, folder, "--apply", path, "--by", "AB")
    assert (code, "5 changes of 1 slides" in out) == (0, True)
    after = open_review(folder, "lms", "AB")
    found = after.objects("mitosis")
    people = after.answer("mitosis")["people"]
    assert (people["rejected"], people["added"]) == (2, 1)
    assert found.position[-1].tolist() == [1500.25, 1000.5]
    assert found.position[2, 0] == pytest.approx(before.objects("mitosis").position[2, 0] + 20, abs=0.006)
    assert after.tissue_mm2 < tissue
    inside = (found.position > [1600, 1200]).all(1) & (found.position < [2400, 2000]).all(1)
    assert after.answer("mitosis")["count"] == n - 2 + 1 - (inside & found.counts).sum()
    assert "0 changes of 0 slides" in review(capsys, folder, "--apply", path, "--by", "AB")[1], "again changes nothing"
    at = after.objects("mitosis").position[5]
    after.label("mitosis", (at[0], at[1]), "lookalike", "in napari")
    assert "0 changes of 0 slides" in review(capsys, folder, "--apply", path, "--by", "AB")[1], "the file knows nothing of that"
    restored = in_qupath(folder, tmp_path, lambda detections: detections)
    assert "3 changes of 1 slides" in review(capsys, folder, "--apply", restored, "--by", "AB")[1], "taken back in QuPath: two are there again, one is back"
    found = open_review(folder, "lms").objects("mitosis")
    assert found.counts[:3].all()
    assert not found.counts[5]


def test_what_cannot_be_used_is_said_and_nothing_is_taken(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, why in (
        ("x,y,label\n1500,1000,mitosis\n1,1,cell", "line 3: no label is called 'cell'"),
        ("x,y,label\n1500,1000,mitosis\n1,99999,mitosis", "line 3: lms: x 1, y 99999 lies beyond"),
        ("x,y,label\n1500,,mitosis", "line 2: x '1500' and y '' must be numbers"),
        ("slide_id,x,y,label\nother,1,1,mitosis", "no reviewable slide of this run is called 'other'"),
        ("pipeline,call\ngrade,3", "no pipeline 'grade' was scored"),
        ("x,y,label\n1,1,\x00", "line"),
    ):
        (tmp_path / "a.csv").write_text(text)
        code, out, err = review(capsys, folder, "--apply", tmp_path / "a.csv", "--by", "AB")
        assert (code, out, why in err) == (2, "", True), err
    assert review(capsys, folder, "--apply", tmp_path / "gone.csv", "--by", "AB")[0] == 2
    (tmp_path / "a.csv").write_text("x,y,label\n1500,1000,mitosis")
    assert "--by INITIALS" in review(capsys, folder, "--apply", tmp_path / "a.csv")[2]
    assert review(capsys, folder, "--apply", tmp_path / "a.csv", "--by", "<script>")[0] == 2
    assert open_review(folder, "lms").entries == []
    assert "nobody has reviewed anything yet" in review(capsys, folder)[1]
