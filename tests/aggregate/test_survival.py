"""Risk and survival against lifelines, and each reason to give none."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi

from wsikit.aggregate.counting import Counting, counting_behind
from wsikit.aggregate.features import Inputs, read_inputs, together
from wsikit.aggregate.survival import CoxRisk, features_of, load_risk, model_inputs, predict_risk
from wsikit.errors import CardError, WeightsMismatchError
from wsikit.models import Card
from wsikit.models._card import _LATER, Condition, write_model
from wsikit.survival.forward import attention_log_risk, attention_risk, attention_sums

NAMES = ["sts-subtype.p_A", "mitosis.per_mm2", "tissue_mm2"]
COLUMNS = ["age", "prio", "race"]
MODELS = {"sts-subtype": "d" * 64, "mitosis": "e" * 64}
RISK = {"endpoint": "arrest", "features": NAMES, "models": MODELS, "cutoff": 0.0, "cutoff_origin": "a test", "horizons_months": [20.0, 40.0]}


@pytest.fixture(scope="module")
def rossi() -> tuple[pd.DataFrame, CoxPHFitter]:
    """lifelines' own data, standardised, and its fit."""
    frame = load_rossi()[[*COLUMNS, "week", "arrest"]].astype(float)
    return frame, CoxPHFitter(penalizer=0.01).fit(_standard(frame).assign(week=frame.week, arrest=frame.arrest), "week", "arrest")


def _standard(frame: pd.DataFrame) -> pd.DataFrame:
    x = frame[COLUMNS]
    return (x - x.mean()) / x.std(ddof=0)


@pytest.fixture(scope="module")
def model(rossi: tuple[pd.DataFrame, CoxPHFitter], make_card: Callable[..., Card]) -> CoxRisk:
    frame, fitter = rossi
    card = make_card(pipeline="survival", task="risk", classes=[], risk=RISK)
    hazard = fitter.baseline_cumulative_hazard_["baseline cumulative hazard"]
    x = frame[COLUMNS]
    moments = (x.mean().to_numpy(), x.std(ddof=0).to_numpy())
    return CoxRisk(card, fitter.params_[COLUMNS].to_numpy(), *moments, hazard.index.to_numpy(float), hazard.to_numpy(float))


def answers(p: float = 0.3, per_mm2: float = 2.0) -> dict[str, dict[str, Any]]:
    """Results of the two pipelines that the model needs."""
    return {
        "sts-subtype": {"status": "ok", "reason": "", "probability": {"A": p, "B": 1 - p}, "doubt": 0.5, "model": {"name": "s", "digest": "d" * 64}},
        "mitosis": {"status": "ok", "reason": "", "per_mm2": per_mm2, "hotspot": {"per_mm2": 9.0}, "model": {"name": "m", "digest": "e" * 64}},
    }


def test_risk_and_survival_are_those_of_lifelines(model: CoxRisk, rossi: tuple[pd.DataFrame, CoxPHFitter]) -> None:
    frame, fitter = rossi
    rows = frame.iloc[::17]
    log_hazard = fitter.predict_log_partial_hazard(_standard(frame)).loc[rows.index]
    survival = fitter.predict_survival_function(_standard(frame).loc[rows.index], times=[20.0, 40.0])
    for i in rows.index:
        result = predict_risk(model, answers(*frame.loc[i, ["age", "prio"]]), float(frame.loc[i, "race"]))
        assert result["status"] == "ok", result["reason"]
        assert result["risk"] == pytest.approx(log_hazard[i], abs=1e-5)
        assert math.exp(result["risk"]) == pytest.approx(fitter.predict_partial_hazard(_standard(frame).loc[[i]]).iloc[0], rel=1e-4)
        assert list(result["survival"]) == ["20 months", "40 months"]
        assert list(result["survival"].values()) == pytest.approx(survival[i].tolist(), abs=1e-5)
        assert result["group"] == ("high" if log_hazard[i] > 0 else "low")


def test_the_baseline_is_a_step_function(make_card: Callable[..., Card]) -> None:
    card = make_card(pipeline="survival", task="risk", classes=[], risk=RISK)
    model = CoxRisk(card, *(np.ones(3),) * 3, np.array([10.0, 20.0]), np.array([0.1, 0.5]))
    assert [model.survival(0.0, t) for t in (0, 9.99, 10, 19.9, 20, 99)] == pytest.approx([1, 1, *[math.exp(-0.1)] * 2, *[math.exp(-0.5)] * 2])
    assert model.survival(math.log(2), 20) == pytest.approx(math.exp(-1.0))


def test_the_mean_patient_has_risk_0_and_is_in_the_low_group(model: CoxRisk) -> None:
    age, prio, race = model.mean
    result = predict_risk(model, answers(age, prio), race)
    assert (result["risk"], result["group"], result["cutoff_origin"]) == (0, "low", "a test")


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"mitosis": None}, "refused", "pipeline 'mitosis'; score it in the same run"),
        ({"mitosis": {"model": {"name": "other", "digest": "f" * 64}}}, "refused", "trained on 'mitosis' results of model eeeeeeeeeeee, these are of other"),
        ({"sts-subtype": {"status": "refused", "reason": "too coarse"}}, "refused", "'sts-subtype' was refused: too coarse"),
        ({"sts-subtype": {"probability": {}}}, "abstained", "no value for sts-subtype.p_A"),
        ({"mitosis": {"per_mm2": None}}, "abstained", "no value for mitosis.per_mm2"),
        ({"mitosis": {"per_mm2": 1e4}}, "abstained", "mitosis.per_mm2 is far outside"),
        ({"mitosis": {"per_mm2": float("nan")}}, "abstained", "mitosis.per_mm2 is far outside"),
    ],
)
def test_no_risk_is_given_without_its_grounds(model: CoxRisk, change: dict[str, Any], status: str, words: str) -> None:
    given = {k: v | (change.get(k) or {}) for k, v in answers(25, 2).items() if k not in change or change[k] is not None}
    result = predict_risk(model, given, 1.0)
    assert (result["status"], result["risk"], result["group"]) == (status, None, "")
    assert words in result["reason"]


def test_features_are_named_after_their_pipeline() -> None:
    found = features_of(answers(0.25, 3.0), 7.5)
    assert found == {
        "tissue_mm2": 7.5, "sts-subtype.p_A": 0.25, "sts-subtype.p_B": 0.75, "sts-subtype.doubt": 0.5, "mitosis.per_mm2": 3.0, "mitosis.hotspot_per_mm2": 9.0,
    }  # fmt: skip
    assert model_inputs(found, ["mitosis.per_mm2", "tissue_mm2"], ["mitosis.per_mm2"]).tolist() == [math.log(4), 7.5]


def write(folder: Path, **tensors: Any) -> Path:
    about = {"domain": "histology", "description": "nothing"}
    fields = {"name": "r", "pipeline": "survival", "task": "risk", "licence": "none", "trained_on": about, "risk": RISK}
    ones = {k: torch.ones(3, dtype=torch.float64) for k in ("beta", "mean", "sd")}
    steps = {k: torch.arange(2.0) for k in ("time_months", "cumulative_hazard")}
    write_model(folder, fields, ones | steps | tensors)
    return folder


def test_a_written_model_comes_back(tmp_path: Path) -> None:
    model = load_risk(write(tmp_path, beta=torch.tensor([0.5, -1, 2], dtype=torch.float64)))
    assert model.beta.tolist() == [0.5, -1, 2]
    assert model.card.risk is not None
    assert model.card.risk.features == NAMES


@pytest.mark.parametrize("tensors", [{"beta": torch.ones(2)}, {"sd": torch.ones(3, 1)}, {"extra": torch.ones(1)}, {"time_months": torch.arange(3.0)}])
def test_coefficients_that_are_not_the_cards_are_refused(tmp_path: Path, tensors: dict[str, Any]) -> None:
    with pytest.raises(WeightsMismatchError, match="not those of the 3 features"):
        load_risk(write(tmp_path, **tensors))


def test_other_files_and_other_cards_are_refused(tmp_path: Path) -> None:
    import pickle

    folder = write(tmp_path)
    data = pickle.dumps({"beta": [1.0]})
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(WeightsMismatchError, match="the card says"):
        load_risk(folder)
    card = json.loads((folder / "card.json").read_text())
    card["weights"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(WeightsMismatchError, match="not a safetensors file"):
        load_risk(folder)
    card |= {"task": "classify", "risk": None, "classes": ["A"], "pipeline": "sts-subtype"}
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(CardError, match="not of a survival model"):
        load_risk(folder)


def test_a_model_for_one_class_says_nothing_of_others(model: CoxRisk) -> None:
    spec = model.spec.model_copy(update={"condition": Condition(pipeline="sts-subtype", call="A")})
    only = CoxRisk(model.card.model_copy(update={"risk": spec}), model.beta, model.mean, model.sd, model.time_months, model.cumulative_hazard)
    given = answers(25, 2)
    called = {c: predict_risk(only, given | {"sts-subtype": given["sts-subtype"] | {"call": c, "reason": "too few tiles"}}, 1.0) for c in ("A", "B", "")}
    assert called["A"]["status"] == "ok"
    assert (called["B"]["status"], called["B"]["risk"]) == ("abstained", None)
    assert called["B"]["reason"] == "not applicable: it is for A only, and sts-subtype calls B"
    assert called[""]["reason"] == "not applicable: it is for A only, and sts-subtype makes no call (too few tiles)"


def test_answers_counted_otherwise_than_the_training_patients_are_refused(model: CoxRisk) -> None:
    def risk_of(features: list[str], counting: Counting, trained: Counting | None = None) -> dict[str, Any]:
        spec = model.spec.model_copy(update={"features": features, "counting": counting_behind(features, trained or Counting())})
        one = CoxRisk(model.card.model_copy(update={"risk": spec}), *(m[: len(features)] for m in (model.beta, model.mean, model.sd)), *(np.ones(1),) * 2)
        return predict_risk(one, answers(25, 2), 1.0, None, None, counting)

    dense, small = ["sts-subtype.p_A", "mitosis.hotspot_per_mm2"], Counting(area_mm2=0.5)
    refused = risk_of(dense, small)
    assert (refused["status"], refused["risk"]) == ("refused", None)
    assert "trained on answers counted with: as the models say; these are counted with: area_mm2 0.5" in refused["reason"]
    assert risk_of(dense, Counting(), small)["status"] == "refused"
    assert risk_of(dense, small, small)["status"] == risk_of(["mitosis.per_mm2"], small)["status"] == "ok"
    assert risk_of(["mitosis.per_mm2"], Counting(within="tumour"))["status"] == "refused"
    assert risk_of(["tissue_mm2"], Counting(within="tumour", grading=("fnclcc",)))["status"] == "ok"


def test_a_card_without_the_field_keeps_its_digest(make_card: Callable[..., Card]) -> None:
    card = make_card(pipeline="survival", task="risk", classes=[], risk=RISK)
    said = card.model_dump(mode="json", exclude=set(_LATER))
    del said["risk"]["counting"]
    assert card.digest == hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    assert make_card(pipeline="survival", task="risk", classes=[], risk=RISK | {"counting": {"within": "tumour"}}).digest != card.digest


def test_slides_of_a_patient_are_put_together_as_if_they_were_one() -> None:
    rng = np.random.default_rng(0)
    net = {"mean": np.zeros(4), "sd": np.ones(4), "project.weight": rng.normal(size=(3, 4)), "project.bias": rng.normal(size=3)}
    net |= {"v.weight": rng.normal(size=(2, 3)), "v.bias": rng.normal(size=2), "u.weight": rng.normal(size=(2, 3)), "u.bias": rng.normal(size=2)}
    net |= {"w.weight": 3 * rng.normal(size=(1, 2)), "head.weight": rng.normal(size=(1, 3))}
    slides = [rng.normal(size=(n, 4)) for n in (30, 1, 7)]
    parts = [Inputs({"a.f0": float(s[:, 0].mean())}, float(len(s)), [attention_sums(net, s)]) for s in slides]
    whole = together([read_inputs(json.loads(json.dumps(p.to_json()))) for p in parts])
    tiles = np.concatenate(slides)
    assert whole.features["a.f0"] == pytest.approx(tiles[:, 0].mean())
    assert attention_log_risk(whole.attention[0]) == pytest.approx(attention_risk(net, [tiles])[0])
