"""Tables of a run say what the results say, of every slide and patient, and of no patient by halves."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest

from wsikit.aggregate.counting import Counting
from wsikit.aggregate.rates import poisson_interval
from wsikit.errors import DamagedStoreError
from wsikit.models import find_model, read_card
from wsikit.run.cases import Case
from wsikit.run.finish import _no_columns
from wsikit.run.job import Job, read_run
from wsikit.run.results import failed_result, read_result, write_csv, write_results


@pytest.fixture
def result(undisturbed_lean: Path) -> dict[str, Any]:
    """The result of the small slide, as it lies in a run."""
    value: dict[str, Any] = json.loads((undisturbed_lean / "slides/small.json").read_text())
    return value


@pytest.fixture
def job(undisturbed_lean: Path) -> Job:
    """That run's job, for slides a and b of patient P, c of Q and d of nobody."""
    cases = [Case(slide_id=s, path=f"/{s}.svs", patient=p) for s, p in (("a", "P"), ("b", "P"), ("c", "Q"), ("d", ""))]
    return Job.model_validate(read_run(undisturbed_lean)["job"]).model_copy(update={"slides": cases})


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as f:
        found = list(csv.DictReader(f))
    return {next(iter(r.values())): r for r in found}


def other(result: dict[str, Any], slide_id: str, **changes: Any) -> dict[str, Any]:
    """The result of another slide; ``changes`` are of its mitosis answer."""
    made = copy.deepcopy(result) | {"slide_id": slide_id}
    made["pipelines"]["mitosis"] |= changes
    return made


def test_a_row_says_what_the_result_says(job: Job, result: dict[str, Any], tmp_path: Path) -> None:
    write_results(tmp_path, job, {s: other(result, s) for s in "dcba"})
    found = rows(tmp_path / "slides.csv")
    assert list(found) == ["a", "b", "c", "d"], "the order of the input"
    row, counted, called = found["c"], result["pipelines"]["mitosis"], result["pipelines"]["sts-subtype"]
    assert (row["path"], row["patient"], row["status"], row["reason"]) == ("/c.svs", "Q", "ok", "")
    assert [float(row[k]) for k in ("mpp", "mpp_y", "tissue_mm2", "n_tiles")] == [0.5, 0.5, result["tissue_mm2"], result["n_tiles"]]
    assert (row["reader"], row["mpp_source"]) == (result["slide"]["reader"], "tiff resolution")
    for key in ("count", "area_mm2", "per_mm2", "low", "high"):
        assert float(row[f"mitosis.{key}"]) == counted[key]
    assert [float(row[f"mitosis.hotspot_{k}"]) for k in "xy"] == counted["hotspot"]["centre"]
    assert float(row["mitosis.hotspot_per_mm2"]) == counted["hotspot"]["per_mm2"]
    assert (row["sts-subtype.call"], row["sts-subtype.status"]) == (called["call"], called["status"])
    assert {k.removeprefix("sts-subtype.p_"): float(v) for k, v in row.items() if k.startswith("sts-subtype.p_")} == called["probability"]


def test_a_failed_slide_has_its_reason_and_no_numbers(job: Job, result: dict[str, Any], tmp_path: Path) -> None:
    results = {"a": failed_result("a", "truncated, near the end"), **{s: other(result, s) for s in "bcd"}}
    write_results(tmp_path, job, results)
    row = rows(tmp_path / "slides.csv")["a"]
    assert (row["status"], row["reason"], row["mitosis.status"], row["mitosis.reason"]) == ("failed", "truncated, near the end") * 2
    told = {"slide_id", "path", "patient", "status", "reason", *(k for k in row if k.endswith((".status", ".reason")))}
    assert not [k for k, v in row.items() if v and k not in told]


def test_a_withheld_number_is_an_empty_cell(job: Job, result: dict[str, Any], tmp_path: Path) -> None:
    made = other(result, "c")
    made["pipelines"]["mitosis"] = {"status": "abstained", "reason": "the slide has no tissue", "count": None, "area_mm2": 0.0, "model": {}}
    write_results(tmp_path, job, {"c": made})
    row = rows(tmp_path / "slides.csv")["c"]
    assert (row["mitosis.status"], row["mitosis.count"], row["mitosis.per_mm2"], row["mitosis.hotspot_x"]) == ("abstained", "", "", "")


def test_a_patient_is_all_slides_together(job: Job, result: dict[str, Any], tmp_path: Path) -> None:
    hotspot = result["pipelines"]["mitosis"]["hotspot"]
    dense = other(result, "b", count=30, area_mm2=2.0, hotspot=hotspot | {"count": 99, "per_mm2": 410.25})
    write_results(tmp_path, job, {"a": other(result, "a", count=3, area_mm2=1.0), "b": dense, "c": other(result, "c"), "d": other(result, "d")})
    found = rows(tmp_path / "patients.csv")
    assert list(found) == ["P", "Q"], "a slide without a patient is nobody's"
    row = found["P"]
    assert (row["slides"], row["slides_failed"]) == ("2", "0")
    assert float(row["tissue_mm2"]) == pytest.approx(2 * result["tissue_mm2"], abs=1e-6)
    assert float(row["mitosis.count"]) == 33
    assert float(row["mitosis.per_mm2"]) == pytest.approx(11.0)
    assert [float(row["mitosis.low"]), float(row["mitosis.high"])] == pytest.approx(poisson_interval(33, 3.0), abs=1e-6)
    assert float(row["mitosis.hotspot_per_mm2"]) == 410.25
    assert float(found["Q"]["mitosis.count"]) == result["pipelines"]["mitosis"]["count"]


def test_a_crumb_of_tissue_is_not_a_patients_hotspot(job: Job, result: dict[str, Any], tmp_path: Path) -> None:
    """Two figures in 0.05 mm² are 40 per mm², and would be a score of 3; on the same slide as the tumour such a place never comes first."""
    spot = result["pipelines"]["mitosis"]["hotspot"]

    def graded(count: float, score: str, *flags: str) -> dict[str, Any]:
        return {"fnclcc": {"status": "ok", "score": score, "count_in_area": count, "flags": list(flags), "probability": {score: 0.9}}}

    whole = {"hotspot": spot | {"count": 12, "per_mm2": 6.0, "flags": []}, "grading": graded(10.4, "2")}
    crumb = {"hotspot": spot | {"count": 2, "per_mm2": 40.0, "flags": ["insufficient_area"]}, "grading": graded(69.4, "3", "insufficient_area", "rescaled")}
    asked = job.model_copy(update={"counting": Counting(grading=("fnclcc",))})
    for a, b in ((whole, crumb), (crumb, whole)):
        write_results(tmp_path, asked, {"a": other(result, "a", **a), "b": other(result, "b", **b), "c": other(result, "c", **crumb), "d": other(result, "d")})
        found = rows(tmp_path / "patients.csv")
        assert [found["P"][f"mitosis.{k}"] for k in ("hotspot_per_mm2", "fnclcc_score", "fnclcc_count")] == ["6.0", "2", "10.4"]
        assert [found["Q"][f"mitosis.{k}"] for k in ("hotspot_per_mm2", "fnclcc_score")] == ["40.0", "3"], "where there is nothing else, with its flags"


def test_a_patient_with_a_failed_slide_says_so(job: Job, result: dict[str, Any], tmp_path: Path) -> None:
    write_results(tmp_path, job, {"a": failed_result("a", "gone"), "b": other(result, "b"), "c": failed_result("c", "gone"), "d": other(result, "d")})
    found = rows(tmp_path / "patients.csv")
    assert (found["P"]["slides"], found["P"]["slides_failed"], found["P"]["mitosis.status"]) == ("2", "1", "ok")
    assert float(found["P"]["tissue_mm2"]) == result["tissue_mm2"]
    assert (found["Q"]["mitosis.status"], found["Q"]["mitosis.reason"]) == ("failed", "no slide of this patient could be used")
    assert found["Q"]["mitosis.count"] == ""


def test_no_patient_by_halves(job: Job, result: dict[str, Any], tmp_path: Path) -> None:
    """While a run goes on, or after it was stopped, a patient with a slide still to do has no row."""
    write_results(tmp_path, job, {"a": other(result, "a"), "c": other(result, "c")})
    assert list(rows(tmp_path / "slides.csv")) == ["a", "c"]
    assert list(rows(tmp_path / "patients.csv")) == ["Q"]


def test_a_slide_that_withholds_does_not_count(job: Job, result: dict[str, Any], tmp_path: Path) -> None:
    withheld = other(result, "b")
    withheld["pipelines"] = {n: {"status": "abstained", "reason": "not what it was trained on", "model": r["model"]} for n, r in result["pipelines"].items()}
    write_results(tmp_path, job, {"a": other(result, "a", count=3, area_mm2=1.0), "b": withheld, "c": withheld, "d": withheld})
    found = rows(tmp_path / "patients.csv")
    assert float(found["P"]["mitosis.per_mm2"]) == 3.0
    assert (found["Q"]["mitosis.status"], found["Q"]["mitosis.reason"]) == ("abstained", "not what it was trained on")


@pytest.mark.parametrize(("name", "more"), [("mitosis", {"atypical"}), ("phantom-mitosis", set())])
def test_a_slide_without_tissue_has_the_columns_of_others(name: str, more: set[str]) -> None:
    columns = _no_columns(read_card(find_model(name)))
    assert set(columns) == {"row", "position", "score", "class", "size"} | more
    assert {len(v) for v in columns.values()} == {0}


def test_without_patients_there_is_no_table_of_them(undisturbed: Path) -> None:
    assert not (undisturbed / "patients.csv").exists()
    assert "patient" not in (undisturbed / "slides.csv").read_text().splitlines()[0].split(",")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_spreadsheet_computes_nothing(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "t.csv", ["a", "b"], [{"a": text, "b": -1.5}])
    with (tmp_path / "t.csv").open(newline="") as f:
        assert list(csv.reader(f)) == [["a", "b"], ["'" + text, "-1.5"]]


def test_commas_quotes_and_lines_round_trip(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ["a"], [{"a": 'a "slide",\nwith\rµm', "unknown": 1}])
    assert list(rows(tmp_path / "t.csv")) == ['a "slide",\nwith µm']


@pytest.mark.parametrize("text", ["", "{", "[]", '{"status": "ok"}', "null", "\0"])
def test_a_result_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "slides").mkdir()
    assert read_result(tmp_path, "a") is None
    (tmp_path / "slides/a.json").write_text(text)
    with pytest.raises(DamagedStoreError, match=r"a\.json: damaged, it is not"):
        read_result(tmp_path, "a")
