"""The Cox model against lifelines, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index

from wsikit.aggregate.survival import load_risk, model_inputs, predict_risk
from wsikit.errors import LabelsError
from wsikit.models import check_model
from wsikit.train.survival import train_cox
from wsikit.train.tasks import survival

NAMES = ["mitosis.per_mm2", "sts-subtype.p_UPS"]
DIGESTS = {"mitosis": "a" * 64, "sts-subtype": "b" * 64}
Cohort = tuple[list[dict[str, float]], np.ndarray, np.ndarray]


def cohort(n: int = 60, last: float = 120.0) -> Cohort:
    """Patients whose hazard rises with log(1 + density) and with p, some censored, some tied."""
    rng = np.random.default_rng(2)
    density, p = rng.gamma(2, 5, n), rng.uniform(size=n)
    hazard = np.exp(1.2 * np.log1p(density) + 1.0 * p) / 600
    time, censored = rng.exponential(1 / hazard), rng.uniform(0.3 * last, last, n)
    rows = [{NAMES[0]: float(d), NAMES[1]: float(q)} for d, q in zip(density, p, strict=True)]
    return rows, np.minimum(time, censored).clip(0.2).round(0) + 0.5, time <= censored


def fields(**risk: Any) -> dict[str, Any]:
    spec = {"endpoint": "OS", "features": NAMES, "log1p": NAMES[:1], "models": DIGESTS, "cutoff": 0.0, "cutoff_origin": ""}
    about = {"domain": "histology", "description": "a test"}
    return {"name": "cox", "pipeline": "survival", "task": "risk", "architecture": {"name": "cox"}, "licence": "none", "trained_on": about, "risk": spec | risk}


def answers(row: dict[str, float]) -> dict[str, dict[str, Any]]:
    call = {"status": "ok", "probability": {"UPS": row[NAMES[1]]}, "doubt": 0.0, "model": {"name": "s", "digest": DIGESTS["sts-subtype"]}}
    count = {"status": "ok", "per_mm2": row[NAMES[0]], "hotspot": {"per_mm2": 0.0}, "model": {"name": "m", "digest": DIGESTS["mitosis"]}}
    return {"sts-subtype": call, "mitosis": count}


def test_the_written_model_is_lifelines_fit(tmp_path: Path) -> None:
    rows, time, event = cohort()
    card = train_cox(rows, time, event, tmp_path, fields())
    x = np.array([model_inputs(r, NAMES, NAMES[:1]) for r in rows])
    frame = pd.DataFrame((x - x.mean(0)) / x.std(0), columns=NAMES)
    oracle = CoxPHFitter(penalizer=0.01).fit(frame.assign(t=time, e=event.astype(int)), "t", "e")
    model = load_risk(tmp_path)
    assert card.risk is not None
    assert check_model(tmp_path) == card
    assert model.beta == pytest.approx(oracle.params_[NAMES].to_numpy())
    assert (model.beta > 0.2).all(), "both were made to matter"
    expected = oracle.predict_log_partial_hazard(frame).to_numpy()
    steps = oracle.predict_survival_function(frame)  # asked for other times, lifelines interpolates between the steps
    survivals = pd.concat([steps[steps.index <= t].iloc[-1] for t in (24.0, 60.0)], axis=1)
    for i in range(0, 60, 7):
        result = predict_risk(model, answers(rows[i]), 10.0)
        assert result["risk"] == pytest.approx(expected[i], abs=1e-5)
        assert list(result["survival"].values()) == pytest.approx(survivals.loc[i].tolist(), abs=1e-5)
        assert result["group"] == ("high" if expected[i] > np.median(expected) + 1e-6 else "low")
    assert (card.risk.cutoff, card.risk.cutoff_origin) == (pytest.approx(np.median(expected), abs=1e-6), "median of the training patients")
    apparent = card.metrics["apparent"]
    assert (apparent["patients"], apparent["events"]) == (60, int(event.sum()))
    assert apparent["c_index"] == pytest.approx(concordance_index(time, -expected, event), abs=1e-4)
    assert apparent["low"] < apparent["c_index"] < apparent["high"]
    assert card.metrics["coefficients"][NAMES[0]]["se"] == pytest.approx(oracle.standard_errors_[NAMES[0]], abs=1e-4)


def test_the_same_patients_give_the_same_model(tmp_path: Path) -> None:
    for name in "ab":
        train_cox(*cohort(), tmp_path / name, fields())
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert (tmp_path / "a/card.json").read_bytes() == (tmp_path / "b/card.json").read_bytes()


def test_survival_is_not_stated_beyond_the_last_follow_up(tmp_path: Path) -> None:
    rows, time, event = cohort(last=40.0)
    card = train_cox(rows, time, event, tmp_path, fields(horizons_months=[24.0, 60.0]))
    assert card.risk is not None
    assert card.risk.horizons_months == [24.0]
    assert list(predict_risk(load_risk(tmp_path), answers(rows[0]), 1.0)["survival"]) == ["24 months"]


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    rows, time, event = cohort(20)

    def refused(words: str, rows: Any = rows, time: Any = time, event: Any = event, **risk: Any) -> None:
        with pytest.raises(LabelsError, match=words):
            train_cox(rows, time, event, tmp_path / "m", fields(**risk))

    refused("above 0 months", time=np.r_[0.0, time[1:]])
    refused("above 0 months", time=np.r_[np.nan, time[1:]])
    refused("above 0 months", time=np.r_[np.inf, time[1:]])
    refused("features numbers", rows=[rows[0] | {NAMES[0]: float("nan")}, *rows[1:]])
    refused("1 events", event=np.arange(20) == 3)
    refused("0 events", event=np.zeros(20, bool))
    refused("patient 3 has no value for mitosis.per_mm2", rows=[*rows[:2], {NAMES[1]: 0.5}, *rows[3:]])
    refused("sts-subtype.p_UPS is the same for every patient", rows=[r | {NAMES[1]: 0.5} for r in rows])
    assert not (tmp_path / "m").exists()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The tables of a run of 30 patients."""
    folder = tmp_path / "run"
    folder.mkdir()
    models = {k: {"name": k, "folder": "x", "digest": v} for k, v in (DIGESTS | {"rms-subtype": "c" * 64}).items()}
    (folder / "run.json").write_text(json.dumps({"job": {"models": models}}))
    rows, _, _ = cohort(30)
    with (folder / "patients.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, ["patient", "slides", "mitosis.status", *NAMES])
        writer.writeheader()
        writer.writerows({"patient": f"P{i:02d}", "slides": 1, "mitosis.status": "ok"} | r for i, r in enumerate(rows))
    return folder


def labels(folder: Path, *, event: str = "", extra: str = "") -> Path:
    _, time, happened = cohort(30)
    lines = [f"P{i:02d},{t},{event if event and i == 4 else int(e)}" for i, (t, e) in enumerate(zip(time, happened, strict=True))]
    path = folder.parent / "labels.csv"
    path.write_text("\n".join(["patient,time_months,event", *lines[::-1], *([extra] if extra else [])]) + "\n")
    return path


def test_the_task_joins_patients_by_name_and_names_the_models_it_needs(run: Path, tmp_path: Path) -> None:
    card = survival(labels(run), tmp_path / "m", run, NAMES, "OS", penalty=0.01)
    assert card.risk is not None
    assert card.risk.models == DIGESTS, "the models whose results are features, and no other"
    assert card.risk.log1p == NAMES[:1]
    rows, time, event = cohort(30)
    direct = train_cox(rows, time, event, tmp_path / "direct", fields())
    assert {k: card.metrics[k] for k in direct.metrics} == direct.metrics, "rows in another order are joined by patient"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"event": "2"}, "event '2' must be 1"),
        ({"event": "nan"}, "event 'nan' must be 1"),
        ({"event": "yes"}, "event 'yes' must be 1"),
        ({"extra": "P03,12,1"}, "a patient is in more than one row"),
    ],
)
def test_wrong_follow_up_is_refused(run: Path, tmp_path: Path, change: dict[str, str], words: str) -> None:
    with pytest.raises(LabelsError, match=words):
        survival(labels(run, **change), tmp_path / "m", run, NAMES, "OS")


def test_patients_of_another_run_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("patient,time_months,event\nQ1,5,1\n")
    with pytest.raises(LabelsError, match="none of its patients"):
        survival(tmp_path / "labels.csv", tmp_path / "m", run, NAMES, "OS")
    with pytest.raises(LabelsError, match=r"patients\.csv of a run"):
        survival(labels(run), tmp_path / "m", tmp_path / "nowhere", NAMES, "OS")


def test_a_model_of_one_class_is_trained_on_that_class(run: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader((run / "patients.csv").open()))
    with (run / "patients.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, [*rows[0], "rms-subtype.call"])
        writer.writeheader()
        writer.writerows(r | {"rms-subtype.call": "ARMS" if i % 3 == 0 else "ERMS"} for i, r in enumerate(rows))
    said: list[str] = []
    card = survival(labels(run), tmp_path / "m", run, NAMES[:1], "EFS", condition="rms-subtype=ERMS", penalty=0.01, log=said.append)
    assert card.risk is not None
    assert card.risk.condition is not None
    assert (card.risk.condition.pipeline, card.risk.condition.call) == ("rms-subtype", "ERMS")
    assert card.risk.models == {"mitosis": DIGESTS["mitosis"], "rms-subtype": "c" * 64}
    assert (card.metrics["apparent"]["patients"], card.metrics["patients_left_out"]) == (20, 10)
    assert "note: 10 patients are left out, as rms-subtype does not call them ERMS" in said
    with pytest.raises(LabelsError, match="calls no patient SPINDLE; it calls ARMS, ERMS"):
        survival(labels(run), tmp_path / "m2", run, NAMES[:1], "EFS", condition="rms-subtype=SPINDLE")
