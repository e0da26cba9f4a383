"""Tables of slides and patients have what people made of the answers beside what the models said, and the risk follows by the model's own formula."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely import box

from wsikit.aggregate.rates import poisson_interval
from wsikit.aggregate.survival import CoxRisk
from wsikit.review import Review
from wsikit.run.again import aggregate_run, verify_run
from wsikit.run.cases import Case
from wsikit.run.job import Job, read_run, update_run
from wsikit.run.results import read_result, write_results
from wsikit.run.reviewed import commit_reviews, open_review


@pytest.fixture
def mine(folder: Path) -> Path:
    """The run, its slide being of patient P."""
    job = read_run(folder)["job"]
    job["slides"][0]["patient"] = "P"
    update_run(folder, job=job)
    return folder


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as f:
        return {next(iter(r.values())): r for r in csv.DictReader(f)}


def reject(review: Review, n: int) -> None:
    for x, y in review.objects("mitosis").position[:n].tolist():
        review.label("mitosis", (x, y), "lookalike")


def by_hand(model: CoxRisk, per_mm2: float, p_ups: float) -> float:
    assert model.spec.features == ["mitosis.per_mm2", "sts-subtype.p_UPS"]
    return float((np.array([np.log1p(per_mm2), p_ups]) - model.mean) / model.sd @ model.beta)


def test_count_and_risk_stand_beside_the_models_own(mine: Path) -> None:
    review = open_review(mine, "lms", "AB")
    own, risk = review.results, review.risk
    assert risk is not None
    reject(review, 20)
    commit_reviews(mine, ["lms"])
    slide, patient = rows(mine / "slides.csv")["lms"], rows(mine / "patients.csv")["P"]
    count, area = own["mitosis"]["count"] - 20, own["mitosis"]["area_mm2"]
    expected = by_hand(risk, count / area, own["sts-subtype"]["probability"]["UPS"])
    assert expected < own["survival"]["risk"] - 0.1, "fewer mitoses, less risk"
    for row in (slide, patient):
        assert (int(row["mitosis.count"]), int(row["mitosis.reviewed_count"])) == (count + 20, count)
        assert [float(row[f"mitosis.reviewed_{k}"]) for k in ("low", "high")] == pytest.approx(poisson_interval(count, area), abs=1e-5)
        assert float(row["survival.risk"]) == own["survival"]["risk"]
        assert float(row["survival.reviewed_risk"]) == pytest.approx(expected, abs=1e-5)
        assert (row["survival.group"], row["survival.reviewed_group"]) == (own["survival"]["group"], "high" if expected > risk.spec.cutoff else "low")
        assert (row["mitosis.reviewed_by"], row["sts-subtype.reviewed_by"]) == ("AB", "")
    assert (patient["reviewed_slides"], patient["mitosis.reviewed_not_looked_at"]) == ("1", str(count))
    assert list(verify_run(mine)) == []
    before = [(mine / name).read_text() for name in ("slides.csv", "patients.csv", "slides/lms.json")]
    aggregate_run(mine)
    assert [(mine / name).read_text() for name in ("slides.csv", "patients.csv", "slides/lms.json")] == before
    while review.undo():
        pass
    commit_reviews(mine, ["lms"])
    assert "reviewed" not in (mine / "patients.csv").read_text()


def test_the_risk_is_withheld_where_it_would_rest_on_what_a_person_denied(mine: Path) -> None:
    review = open_review(mine, "lms", "AB")
    review.verdict("sts-subtype", "LMS")
    assert review.answer("survival")["risk"] == review.results["survival"]["risk"], "agreed: nothing moves"
    review.verdict("sts-subtype", "MFS", "myxoid")
    commit_reviews(mine, ["lms"])
    patient = rows(mine / "patients.csv")["P"]
    assert (patient["sts-subtype.call"], patient["sts-subtype.reviewed_call"], patient["sts-subtype.reviewed_comment"]) == ("LMS", "MFS", "myxoid")
    assert (patient["survival.reviewed_status"], patient["survival.reviewed_risk"]) == ("abstained", "")
    assert "whose call a person overruled" in patient["survival.reviewed_reason"]
    assert float(patient["survival.risk"]) == review.results["survival"]["risk"]


def test_the_risk_is_withheld_where_only_a_person_counted(mine: Path) -> None:
    whole = open_review(mine, "lms", "AB")
    withheld = whole.results | {"mitosis": whole.results["mitosis"] | {"status": "abstained", "reason": "blurred"}}
    review = Review(whole.store, whole.cards, "AB", withheld, risk=whole.risk)
    x, y = review.objects("mitosis").position[0]
    review.label("mitosis", (x, y), "mitosis")
    assert review.answer("mitosis")["count"] == 1
    assert "only what people confirmed" in review.answer("survival")["reason"]


def test_regions_change_tissue_count_and_risk(mine: Path) -> None:
    review = open_review(mine, "lms", "AB")
    assert review.risk is not None
    review.area("exclude", box(0, 0, 1280, 2048))
    commit_reviews(mine, ["lms"])
    said, patient = review.answer("mitosis"), rows(mine / "patients.csv")["P"]
    assert float(patient["reviewed_tissue_mm2"]) == pytest.approx(review.tissue_mm2, abs=1e-5)
    assert float(patient["reviewed_tissue_mm2"]) < float(patient["tissue_mm2"])
    expected = by_hand(review.risk, said["per_mm2"], review.answer("sts-subtype")["probability"]["UPS"])
    assert float(patient["survival.reviewed_risk"]) == pytest.approx(expected, abs=1e-5)


def together(mine: Path, tmp_path: Path, *slides: dict[str, Any]) -> dict[str, str]:
    """The patient's row of slides a, b, …"""
    job = Job.model_validate(read_run(mine)["job"])
    names = [chr(ord("a") + i) for i in range(len(slides))]
    job = job.model_copy(update={"slides": [Case(slide_id=n, path=f"/{n}.svs", patient="P") for n in names]})
    write_results(tmp_path, job, {n: s | {"slide_id": n} for n, s in zip(names, slides, strict=True)})
    return rows(tmp_path / "patients.csv")["P"]


def test_slides_that_nobody_reviewed_go_in_as_the_models_have_them(mine: Path, tmp_path: Path) -> None:
    other = read_result(mine, "lms")
    assert other is not None
    other = copy.deepcopy(other)
    other["pipelines"]["mitosis"] |= {"count": 7, "area_mm2": 2.0}
    review = open_review(mine, "lms", "AB")
    reject(review, 3)
    commit_reviews(mine, ["lms"])
    reviewed = read_result(mine, "lms")
    assert reviewed is not None
    row = together(mine, tmp_path, reviewed, other)
    n = reviewed["pipelines"]["mitosis"]["count"]
    assert [int(row[f"mitosis.{k}"]) for k in ("count", "reviewed_count", "reviewed_not_looked_at")] == [n + 7, n - 3 + 7, n - 3 + 7]
    assert row["reviewed_slides"] == "1"
    area = reviewed["pipelines"]["mitosis"]["area_mm2"] + 2.0
    assert float(row["mitosis.reviewed_per_mm2"]) == pytest.approx((n - 3 + 7) / area, abs=1e-5)


def test_people_who_differ_about_a_patient_make_no_call(mine: Path, tmp_path: Path) -> None:
    review, said = open_review(mine, "lms", "AB"), []
    for call in ("MFS", "SS"):
        review.verdict("sts-subtype", call)
        commit_reviews(mine, ["lms"])
        said.append(json.loads((mine / "slides/lms.json").read_text()))
    row = together(mine, tmp_path, *said)
    assert (row["sts-subtype.reviewed_status"], row["sts-subtype.reviewed_call"], row["sts-subtype.call"]) == ("abstained", "", "LMS")
    assert row["sts-subtype.reviewed_reason"] == "people called slides of this patient differently: MFS, SS"
    agreed = together(mine, tmp_path, said[0], said[0])
    assert (agreed["sts-subtype.reviewed_call"], agreed["reviewed_slides"]) == ("MFS", "2")
