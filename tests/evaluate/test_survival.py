"""A survival model on patients of somebody else: the figures are those of its own predictions, and another endpoint is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from wsikit.aggregate.features import Inputs
from wsikit.aggregate.survival import CoxRisk, load_risk, predict_risk
from wsikit.errors import LabelsError, UsageError
from wsikit.evaluate.survival import _run_results, evaluate_survival
from wsikit.metrics import concordance_index
from wsikit.models import Card, find_model, read_card
from wsikit.models._risk import networks_of
from wsikit.run import Run
from wsikit.run.inputs import tile_inputs
from wsikit.run.job import update_run
from wsikit.survival.forward import attention_risk
from wsikit.testing.cohort import draw_patients
from wsikit.train.tasks import survival

EFFECTS = {"age": 0.9}


def labels(path: Path, seed: int, n: int = 150, extra: str = "") -> Path:
    p = draw_patients(n, seed, EFFECTS)
    rows = [f"{i},{t:.3f},{int(e)},{a:.2f}{',' + extra if extra else ''}" for i, t, e, a in zip(p.names, p.time_months, p.event, p.columns["age"], strict=True)]
    path.write_text("\n".join(["patient,time_months,event,age" + (",endpoint" if extra else ""), *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("risk")
    survival(labels(folder / "train.csv", 1), folder / "model", None, [], "OS", penalty=0.01)
    return folder / "model"


def test_the_figures_are_those_of_its_predictions(model: Path, tmp_path: Path) -> None:
    table = labels(tmp_path / "test.csv", 2)
    facts = evaluate_survival(model, table, None, draws=100)
    p, risk = draw_patients(150, 2, EFFECTS), load_risk(model)
    answers = [predict_risk(risk, {}, 0.0, None, {"age": f"{a:.2f}"}) for a in p.columns["age"]]
    c = concordance_index(p.time_months.round(3), p.event, np.array([a["risk"] for a in answers])).c_index
    assert facts["c_index"].value == pytest.approx(c)
    assert (facts["patients"], facts["events"], facts["without a risk"]) == (150, int(p.event.sum()), {})
    assert set(facts) >= {"uno_c", "ibs", "ipa", "auc at 36", "brier at 36", "calibration at 36", "groups"}
    assert facts["groups"]["cut at"] == "median of the training patients"
    high = sum(a["group"] == "high" for a in answers)
    assert f" of {high}; " in facts["groups"]["high"], "cut where the training patients were, not here"


@pytest.fixture
def attention(scored: Run) -> CoxRisk:
    """A model whose only feature is what its own network makes of the tiles of sts-subtype."""
    d = scored.store("lms").tables()["sts-subtype"]["feature"].shape[1]
    spec = {"endpoint": "OS", "features": ["signature"], "models": {}, "cutoff": 0.0, "cutoff_origin": "a test"}
    spec |= {"signature": {"kind": "attention", "pipeline": "sts-subtype", "networks": 1}}
    about = {"name": "a", "pipeline": "survival", "task": "risk", "licence": "none", "trained_on": {"domain": "phantom", "description": "a test"}}
    shapes = {"project.weight": (3, d), "project.bias": (3,), "v.weight": (2, 3), "v.bias": (2,), "u.weight": (2, 3), "u.bias": (2,), "w.weight": (1, 2)}
    rng = np.random.default_rng(5)
    net = {k: rng.normal(size=s) for k, s in shapes.items()} | {"head.weight": rng.normal(size=(1, 3)), "mean": np.zeros(d), "sd": np.ones(d)}
    more = {f"signature.0.{k}": v for k, v in net.items()}
    return CoxRisk(Card(**about, risk=spec, weights={"sha256": "0" * 64}), np.ones(1), np.zeros(1), np.full(1, 1e3), *(np.ones(1),) * 2, more)


def test_the_tiles_are_seen_by_the_networks_of_the_model_that_is_asked(scored: Run, tmp_path: Path, attention: CoxRisk) -> None:
    """The run's results hold what another survival model measured: its sums of attention are numbers too, and those of another model."""
    folder = Path(shutil.copytree(scored.folder, tmp_path / "run"))
    job = json.loads((folder / "run.json").read_text())["job"]
    job["slides"][0]["patient"] = "P"
    update_run(folder, job=job)
    result = json.loads((folder / "slides/lms.json").read_text())
    (folder / "slides/lms.json").write_text(json.dumps(result | {"survival_inputs": Inputs(attention=[(0.0, 1.0, 99.0)]).to_json()}))
    answers, tissue_mm2, inputs = _run_results(folder, attention)["P"]
    tiles = scored.store("lms").tables()["sts-subtype"]["feature"]
    said = predict_risk(attention, answers, tissue_mm2, inputs)
    assert said["features"]["signature"] == pytest.approx(attention_risk(networks_of(dict(attention.more))[0], [tiles])[0], abs=1e-5)


def test_nothing_is_measured_on_a_slide_whose_colours_are_unknown(scored: Run, attention: CoxRisk) -> None:
    cards, store = {"sts-subtype": read_card(find_model("phantom-sts-subtype"))}, scored.store("lms")
    known = tile_inputs(store, attention, cards)
    assert known is not None
    assert len(known.attention) == 1
    store.attributes["stain"] |= {"trusted": False, "reason": "the pixels have one colour"}
    unknown = tile_inputs(store, attention, cards)
    assert unknown is not None
    assert (list(unknown.attention), unknown.features) == ([], {})
    said = predict_risk(attention, {}, 1.0, unknown)
    assert said["status"] == "abstained"
    assert said["reason"].startswith("no value for signature: the model was trained on stain-normalised tissue")


def test_what_cannot_be_compared_is_refused(model: Path, tmp_path: Path, scored: Run) -> None:
    with pytest.raises(LabelsError, match="the model is of OS, and the labels have RFS"):
        evaluate_survival(model, labels(tmp_path / "r.csv", 3, extra="RFS"), None)
    (tmp_path / "no-age.csv").write_text("patient,time_months,event\nA,3,1\nB,5,0\n")
    with pytest.raises(LabelsError, match="gives none of these patients a risk; the first: no value for age"):
        evaluate_survival(model, tmp_path / "no-age.csv", None)
    with pytest.raises(UsageError, match="give the run's folder with --features"):
        evaluate_survival(find_model("phantom-survival"), labels(tmp_path / "l.csv", 3), None)
    with pytest.raises(LabelsError, match="nothing joins"):
        evaluate_survival(find_model("phantom-survival"), labels(tmp_path / "l.csv", 3), scored.folder)
