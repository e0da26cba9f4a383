"""From a table of patients to a model that a run can apply: what it says it is, and what is refused before anything is trained."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsikit.aggregate.survival import load_risk, predict_risk
from wsikit.errors import LabelsError, UsageError, WeightsMismatchError
from wsikit.models import Card, check_model
from wsikit.train.tasks import survival

PATIENTS = 120


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def patients(n: int = PATIENTS, seed: int = 0, effect: float = 1.0) -> list[dict[str, Any]]:
    """Age and depth act; sex does not; every eighth depth is missing; some die of something else."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        age, deep, sex = rng.normal(60, 10), rng.uniform() < 0.5, rng.choice(["f", "m"])
        time, other, left = rng.exponential(50 / np.exp(effect * ((age - 60) / 10 + deep))), rng.exponential(400), rng.uniform(20, 90)
        first = min(time, other, left)
        row = {
            "patient": f"P{i:03d}",
            "time_months": round(first + 0.01, 2),
            "event": int(first == time),
            "competing": int(first == other),
            "site": "ABC"[i % 3],
        }
        rows.append(row | {"age": round(age, 1), "depth": "" if i % 8 == 0 else ("deep" if deep else "superficial"), "sex": sex})
    return rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Card, list[str]]:
    folder = tmp_path_factory.mktemp("prognosis")
    said: list[str] = []
    card = survival(write(folder / "labels.csv", patients()), folder / "model", None, [], "DSS", log=said.append, groups=3, penalty=0.01)
    return folder / "model", card, said


def test_what_was_trained_is_said_and_written(trained: tuple[Path, Card, list[str]]) -> None:
    folder, card, said = trained
    assert card.risk is not None
    assert card.risk.features == ["age", "depth=superficial", "sex=m", "depth missing"] or card.risk.features[0] == "age"
    assert card.risk.endpoint == "DSS"
    assert card.risk.horizons_months == [12.0, 36.0, 60.0]
    assert card.risk.upper_cutoff is not None
    assert card.trained_on.patients == PATIENTS
    assert any("depth: 12% of its values are missing" in s or "depth: 13% of its values are missing" in s for s in said)
    assert any("competing events are censored" in s for s in said)
    scores = card.metrics["validation"]["of"]["clinic"]
    assert 0.6 < scores["c_index"]["low"] < scores["c_index"]["value"] < scores["c_index"]["high"] < 0.9
    assert scores["c_index"]["value"] < card.metrics["apparent"]["c_index"] + 0.02
    assert "P000" not in (folder / "card.json").read_text(), "patients are not named in a model"
    written = {p.name for p in (folder / "training").iterdir()}
    assert written >= {"coefficients.csv", "formula.txt", "nomogram.png", "nomogram.csv", "predictions.csv", "kaplan_meier.csv", "calibration.csv"}
    assert written >= {"decision.csv", "incidence.csv", "findings.json", "features.csv", "validation-clinic.png"}
    facts = json.loads((folder / "training/findings.json").read_text())
    assert set(facts["calibration"]["clinic"]) == {"12", "36", "60"}
    assert [g["name"] for g in facts["groups"]["clinic"]["groups"]] == ["low", "intermediate", "high"]
    assert set(facts["competing"]["cause_specific_hazard_ratios"]) == set(card.risk.features)


def test_the_formula_and_the_nomogram_are_the_model(trained: tuple[Path, Card, list[str]]) -> None:
    """The printed formula, evaluated by hand, is what a run would say; and points go with the coefficients."""
    folder, card, _ = trained
    assert card.risk is not None
    facts = {"age": "71", "depth": "deep", "sex": "m"}
    result = predict_risk(load_risk(folder), {}, 0.0, None, facts)
    values = {"age": 71.0, "depth=superficial": 0.0, "depth=deep": 1.0, "sex=m": 1.0, "sex=f": 0.0, "depth missing": 0.0}
    rows = list(csv.DictReader((folder / "training/coefficients.csv").open()))
    by_hand = sum(float(r["beta"]) * (values[r["column"]] - float(r["mean"])) / float(r["sd"]) for r in rows)
    assert result["risk"] == pytest.approx(by_hand, abs=1e-4)
    text = (folder / "training/formula.txt").read_text()
    at_36 = float(text.split("P(no event by 36 months) = ")[1].split(" ^")[0])
    assert result["survival"]["36 months"] == pytest.approx(at_36 ** np.exp(by_hand), abs=1e-4)
    low, high = result["survival_interval"]["36 months"]
    assert low < result["survival"]["36 months"] < high
    assert high - low < 0.6
    assert result["group"] in ("low", "intermediate", "high")
    points = [float(r["points"]) for r in csv.DictReader((folder / "training/nomogram.csv").open())]
    assert (min(points), max(points)) == (pytest.approx(0, abs=1e-6), pytest.approx(100))


def test_a_fact_that_is_missing_or_unknown_is_no_risk(trained: tuple[Path, Card, list[str]]) -> None:
    model = load_risk(trained[0])
    for facts, words in {
        "no value for age: give it as a column 'age'": {"depth": "deep", "sex": "m"},
        "depth 'bone' is none of the kinds": {"age": "60", "depth": "bone", "sex": "m"},
        "age 'old' is not a number": {"age": "old", "depth": "deep", "sex": "m"},
        "age is far outside": {"age": "600", "depth": "deep", "sex": "m"},
    }.items():
        result = predict_risk(model, {}, 0.0, None, words)
        assert (result["status"], result["risk"]) == ("abstained", None)
        assert facts in result["reason"]


def test_a_card_that_says_other_coefficients_is_refused(trained: tuple[Path, Card, list[str]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained[0], tmp_path / "m"))
    assert check_model(folder).name == "model"
    card = json.loads((folder / "card.json").read_text())
    card["metrics"]["coefficients"]["age"]["beta"] += 0.001
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(WeightsMismatchError, match="the card says that the coefficient of age is"):
        check_model(folder)
    with pytest.raises(WeightsMismatchError, match="the weights say"):
        load_risk(folder)


@pytest.mark.parametrize("method", ["deepsurv", "discrete"])
def test_networks_are_applied_as_they_were_trained(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsikit.survival.nets.EPOCHS", 25)  # enough for one line of effect
    rows = [{k: v for k, v in r.items() if k not in ("depth", "competing")} for r in patients()]
    card = survival(write(tmp_path / "l.csv", rows), tmp_path / "m", None, [], "OS", method=method)
    assert card.risk is not None
    assert card.risk.features == ["signature"]
    assert check_model(tmp_path / "m") == card
    model = load_risk(tmp_path / "m")
    young, old = (predict_risk(model, {}, 0.0, None, {"age": a, "sex": "f"}) for a in ("45", "75"))
    assert young["risk"] < old["risk"]
    assert young["survival"]["36 months"] > old["survival"]["36 months"]


def test_yes_and_no_and_sites(tmp_path: Path) -> None:
    rows = [r | {"metastasis": int(r["event"] and r["time_months"] < 30), "radiomics": float(i % 7)} for i, r in enumerate(patients())]
    extra = write(tmp_path / "radiomics.csv", [{"patient": r["patient"], "texture": r["age"] + 3 * (i % 5)} for i, r in enumerate(rows[:-1])])
    said: list[str] = []
    options: dict[str, Any] = {"outcome": "metastasis", "clinical": ["age"], "columns": extra, "by_site": True, "log": said.append}
    card = survival(write(tmp_path / "l.csv", rows), tmp_path / "m", None, [], "", **options)
    assert card.risk is not None
    assert (card.risk.outcome, card.risk.endpoint, card.risk.features) == ("yes-no", "metastasis", ["age", "texture"])
    assert "1 patients are left out, as elsewhere does not have them: P119" in said[0]
    assert card.metrics["patients_left_out"] == 1
    assert "P119" not in (tmp_path / "m/card.json").read_text(), "patients are not named in a model"
    assert set(card.metrics["validation"]["of"]) == {"clinic and elsewhere", "clinic"}
    assert "clinic and elsewhere less clinic" in card.metrics["validation"]["differences"]
    result = predict_risk(load_risk(tmp_path / "m"), {}, 0.0, None, {"age": "80", "texture": "85"})
    low, high = result["event_probability_interval"]
    assert 0 < low < result["event_probability"] < high < 1
    by_time = survival(tmp_path / "l.csv", tmp_path / "m2", None, [], "OS", by_months=24.0, clinical=["age"])
    assert by_time.risk is not None
    assert by_time.risk.endpoint == "OS by 24 months"


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, {"clinical": ["grade"]}, "no column is called grade"),
        ({"sex": "f"}, {}, "feature sex is the same for every patient"),
        ({"age": 50}, {}, "feature age is the same for every patient"),
        ({"time_months": 60, "event": 1, "competing": 0}, {}, "all 120 events are at 60 months"),
        ({"event": 0}, {}, "^0 events"),
        ({"time_months": -1}, {}, "must be above 0 months; that of patient P000 is -1"),
        ({}, {"by_site": True, "clinical": ["age"], "endpoint": ""}, "of what is 'event' the event"),
        ({"site": "A"}, {"by_site": True}, "there must be two or more"),
        ({}, {"condition": "rms-subtype=ERMS"}, "the run has no pipeline 'rms-subtype'"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tmp_path: Path, change: dict[str, Any], options: dict[str, Any], words: str) -> None:
    labels = write(tmp_path / "l.csv", [r | change for r in patients()])
    with pytest.raises(LabelsError, match=words):
        survival(labels, tmp_path / "m", None, [], **{"endpoint": "OS"} | options)
    assert not (tmp_path / "m").exists()


def test_one_event_separation_and_copies(tmp_path: Path) -> None:
    rows = patients()
    one = [r | {"event": int(i == 3), "competing": 0} for i, r in enumerate(rows)]
    leak = [r | {"died": r["event"]} for r in rows]
    copies = [r | {"age_days": r["age"] * 365} for r in rows]
    for table, words in ((one, "^1 events"), (leak, "died separates perfectly"), (copies, "are copies of each other")):
        with pytest.raises(LabelsError, match=words):
            survival(write(tmp_path / "l.csv", table), tmp_path / "m", None, [], "OS")
    assert not (tmp_path / "m").exists()


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    labels = write(tmp_path / "l.csv", patients())
    wrong: dict[str, dict[str, Any]] = {
        "method 'svm'": {"method": "svm"},
        "4 groups": {"groups": 4},
        "write PIPELINE=CLASS": {"condition": "ERMS"},
        "networks are trained on times": {"method": "deepsurv", "by_months": 24.0},
        "horizons must be above 0": {"horizons": [0.0]},
    }
    for words, options in wrong.items():
        with pytest.raises(UsageError, match=words):
            survival(labels, tmp_path / "m", None, [], "OS", **options)


def test_too_few_events_are_trained_on_and_not_validated(tmp_path: Path) -> None:
    rows = [r | {"event": int(i % 20 == 0), "competing": 0} for i, r in enumerate(patients())]
    said: list[str] = []
    card = survival(write(tmp_path / "l.csv", rows), tmp_path / "m", None, [], "OS", clinical=["age"], log=said.append)
    assert card.metrics["validation"]["of"] == {}
    assert "too few to hold any out" in said[-1]


def test_densities_are_on_a_log_scale_from_any_table(tmp_path: Path) -> None:
    rows = patients()
    dense = [{"patient": r["patient"], "mitosis.per_mm2": round(float(np.exp(r["age"] / 20)), 3)} for r in rows]
    labels, more = write(tmp_path / "l.csv", rows), write(tmp_path / "c.csv", dense)
    card = survival(labels, tmp_path / "m", None, [], "OS", clinical=[], columns=more, penalty=0.01)
    assert card.risk is not None
    assert card.risk.log1p == ["mitosis.per_mm2"]
    assert load_risk(tmp_path / "m").mean[0] == pytest.approx(np.mean([np.log1p(d["mitosis.per_mm2"]) for d in dense]))
