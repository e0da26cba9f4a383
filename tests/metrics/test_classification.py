"""Metrics against scikit-learn's, to the last digit, and their intervals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from wsikit.metrics import calibration_error
from wsikit.metrics.classification import Answers, Ranked, calibration_of, evaluate_answers, kappa, metrics_of, rates, risk_coverage

LAST_DIGIT = 4e-15  # a few of the last digit of a double near 1: sums are taken in another order
CLASSES = ["A", "B", "C", "D"]


def drawn(seed: int, n: int = 60, k: int = 4, ties: bool = True) -> Answers:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    p = rng.dirichlet(np.ones(k), n) + 0.6 * np.eye(k)[truth] * rng.random((n, 1))
    p = np.round(p / p.sum(1, keepdims=True), 2 if ties else 9)
    return Answers(p, truth, np.array([f"P{i}" for i in rng.integers(0, 20, n)]), np.array([""] * n))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [True, False])
def test_all_metrics_are_scikit_learns(seed: int, ties: bool) -> None:
    a = drawn(seed, ties=ties)
    weight = np.random.default_rng(100 + seed).integers(0, 4, len(a)).astype(float)
    one_hot = np.eye(4, dtype=bool)[a.truth]
    called = a.probability.argmax(1)
    for w in (np.ones(len(a)), weight):
        found = {name: metric(w) for name, metric in metrics_of(a, CLASSES).items()}
        areas = {"AUROC": sk.roc_auc_score, "average precision": sk.average_precision_score}
        for name, area in areas.items():
            each = [area(one_hot[:, i], a.probability[:, i], sample_weight=w) for i in range(4)]
            for c, value in zip(CLASSES, each, strict=True):
                assert found[f"{name} {c}"] == pytest.approx(value, abs=LAST_DIGIT)
            assert found[f"{name} macro"] == pytest.approx(np.mean(each), abs=LAST_DIGIT)
            assert found[f"{name} micro"] == pytest.approx(area(one_hot.ravel(), a.probability.ravel(), sample_weight=np.repeat(w, 4)), abs=LAST_DIGIT)
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(a.truth, called, sample_weight=w), abs=LAST_DIGIT)
        assert found["balanced accuracy"] == pytest.approx(sk.balanced_accuracy_score(a.truth, called, sample_weight=w), abs=LAST_DIGIT)
        assert found["kappa"] == pytest.approx(sk.cohen_kappa_score(a.truth, called, sample_weight=w), abs=LAST_DIGIT)
    binary = Answers(a.probability[:, :2] / a.probability[:, :2].sum(1, keepdims=True).clip(0.01), (a.truth > 0).astype(int), a.patient, a.site)
    brier = sk.brier_score_loss(binary.truth, binary.probability[:, 1])
    keep = np.isclose(binary.probability.sum(1), 1)
    if keep.all():
        assert metrics_of(binary, ["A", "B"])["Brier score"](np.ones(len(a))) == pytest.approx(2 * brier, abs=1e-12)


def test_each_class_by_hand_and_by_scikit_learn() -> None:
    a = drawn(3)
    called = a.probability.argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recall, precision = sk.recall_score(a.truth, called, average=None), sk.precision_score(a.truth, called, average=None)
    for row, r, p in zip(rates(a.truth, called, CLASSES), recall, precision, strict=True):
        assert (row["sensitivity"], row["PPV"]) == (pytest.approx(r), pytest.approx(p))
    hand = rates(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), ["A", "B"])[0]
    assert hand == {"class": "A", "n": 2, "sensitivity": 1 / 2, "specificity": 2 / 3, "PPV": 1 / 2, "NPV": 2 / 3}


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_weights_are_repeated_rows(rows: list[tuple[int, bool, int]]) -> None:
    """A bootstrap draw as weights is the draw itself."""
    score, truth, times = (np.array(v) for v in zip(*rows, strict=True))
    repeated = Ranked(np.repeat(score, times), np.repeat(truth, times).astype(bool))
    weighted = Ranked(score, truth.astype(bool))
    for area in (Ranked.roc_auc, Ranked.average_precision):
        assert area(weighted, times.astype(float)) == pytest.approx(area(repeated), abs=1e-12, nan_ok=True)


def test_a_class_that_nobody_has_has_no_number_and_leaves_the_mean_alone() -> None:
    a = drawn(1)
    known = a.only(a.truth != 3)
    found = evaluate_answers(known, CLASSES, draws=20)
    assert np.isnan(found["AUROC D"].value)
    assert found["AUROC D"].degenerate == 20
    assert found["AUROC macro"].value == pytest.approx(np.mean([found[f"AUROC {c}"].value for c in "ABC"]))
    assert np.isnan(kappa(np.array([[5, 0], [0, 0]])))


def test_intervals_resample_patients() -> None:
    """Copies of one patient's tiles are no more patients: the interval stays as wide, and a row's own would shrink."""
    a = drawn(5, n=40)
    by_patient = Answers(a.probability, a.truth, np.array([f"P{i}" for i in range(40)]), a.site)
    copies = np.repeat(np.arange(40), 25)
    widths = [np.ptp([i.low, i.high]) for i in (evaluate_answers(x, CLASSES, 300)["accuracy"] for x in (by_patient, by_patient.only(copies)))]
    assert widths[1] == pytest.approx(widths[0], rel=1e-9)
    one = evaluate_answers(a, CLASSES, 200)
    again = evaluate_answers(a, CLASSES, 200)
    assert one == again
    assert all(i.low <= i.value <= i.high for i in one.values())


def test_calibration_by_hand() -> None:
    p = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.65, 0.35]])
    a = Answers(p, np.array([0, 1, 0, 0]), np.array([*"abcd"]), np.array([""] * 4))
    found = calibration_of(a)
    assert found["ECE"] == pytest.approx(0.5 * abs(0.95 - 0.5) + 0.5 * abs(0.65 - 1))
    assert found["negative log likelihood"] == pytest.approx(-np.log([0.95, 0.05, 0.65, 0.65]).mean())
    assert np.isnan(calibration_error(np.empty(0), np.empty(0, bool)))
    rng = np.random.default_rng(0)
    said = rng.uniform(0.2, 1, 20_000)
    assert calibration_error(said, rng.random(20_000) < said) < 0.02


def test_risk_falls_when_only_sure_calls_are_made() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.55, 0.45]])
    coverage, risk, area = risk_coverage(Answers(p, np.array([0, 0, 1, 0]), np.array([*"abcd"]), np.array([""] * 4)))
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk.tolist() == [0, 0, 1 / 3, 1 / 4]
    assert area == pytest.approx((1 / 3 + 1 / 4) / 4)
