"""A survival model on patients of somebody else: the figures are those of its own predictions, and another endpoint is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsikit.aggregate.survival import load_risk, predict_risk
from wsikit.errors import LabelsError, UsageError
from wsikit.evaluate.survival import evaluate_survival
from wsikit.metrics import concordance_index
from wsikit.run import Run
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


def test_what_cannot_be_compared_is_refused(model: Path, tmp_path: Path, scored: Run) -> None:
    with pytest.raises(LabelsError, match="the model is of OS, and the labels have RFS"):
        evaluate_survival(model, labels(tmp_path / "r.csv", 3, extra="RFS"), None)
    (tmp_path / "no-age.csv").write_text("patient,time_months,event\nA,3,1\nB,5,0\n")
    with pytest.raises(LabelsError, match="gives none of these patients a risk; the first: no value for age"):
        evaluate_survival(model, tmp_path / "no-age.csv", None)
    from wsikit.models import find_model

    with pytest.raises(UsageError, match="give the run's folder with --features"):
        evaluate_survival(find_model("phantom-survival"), labels(tmp_path / "l.csv", 3), None)
    with pytest.raises(LabelsError, match="nothing joins"):
        evaluate_survival(find_model("phantom-survival"), labels(tmp_path / "l.csv", 3), scored.folder)
