"""Scores against scikit-survival and lifelines on the same patients, with ties; and what their numbers must mean."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from lifelines import CoxPHFitter
from sklearn.metrics import brier_score_loss, roc_auc_score

from wsikit.errors import LabelsError
from wsikit.metrics import concordance_index
from wsikit.survival.curves import kaplan_meier
from wsikit.survival.follow_up import FollowUp
from wsikit.survival.scores import auc_at, brier, calibration, integrated_brier, net_benefit, null_survival, resample, uno_c

Sksurv = Callable[[str], ModuleType]
Surv = Callable[[FollowUp], np.ndarray]

Tested = tuple[np.ndarray, FollowUp]
TIMES = np.array([8.0, 15.0, 24.0, 36.0, 50.0])


@pytest.fixture
def oracle(sksurv: Sksurv) -> ModuleType:
    return sksurv("metrics")


@pytest.fixture
def surv(sksurv: Sksurv) -> Callable[[FollowUp], np.ndarray]:
    return lambda f: sksurv("util").Surv.from_arrays(f.event, f.time_months)


def survival(risk: np.ndarray) -> np.ndarray:
    """Predicted survival of an exponential model."""
    return np.exp(-np.outer(np.exp(risk / 2) / 50, TIMES))


def test_harrell_is_that_of_scikit_survival(test: Tested, oracle: ModuleType) -> None:
    risk, f = test
    assert concordance_index(f.time_months, f.event, risk).c_index == pytest.approx(
        oracle.concordance_index_censored(f.event, f.time_months, risk)[0], abs=1e-12
    )


@pytest.mark.parametrize("tau", [None, 24.0, 36.0])
def test_uno_is_that_of_scikit_survival(train: FollowUp, test: Tested, tau: float | None, oracle: ModuleType, surv: Surv) -> None:
    risk, f = test
    expected = oracle.concordance_index_ipcw(surv(train), surv(f), risk, tau)[0]
    assert uno_c(train, f, risk, np.inf if tau is None else tau) == pytest.approx(expected, abs=1e-9)


def test_uno_needs_no_weights_where_nobody_is_censored(test: Tested) -> None:
    risk, f = test
    all_dead = FollowUp(f.patient, f.time_months, np.ones(len(f), bool), "OS")
    assert uno_c(all_dead, all_dead, risk) == pytest.approx(concordance_index(f.time_months, all_dead.event, risk).c_index, abs=1e-12)


def test_auc_is_that_of_scikit_survival(train: FollowUp, test: Tested, oracle: ModuleType, surv: Surv) -> None:
    risk, f = test
    each, _ = oracle.cumulative_dynamic_auc(surv(train), surv(f), risk, TIMES)
    assert [auc_at(train, f, risk, t) for t in TIMES] == pytest.approx(each.tolist(), abs=1e-9)


def test_brier_is_that_of_scikit_survival(train: FollowUp, test: Tested, oracle: ModuleType, surv: Surv) -> None:
    risk, f = test
    _, expected = oracle.brier_score(surv(train), surv(f), survival(risk), TIMES)
    assert brier(train, f, survival(risk), TIMES) == pytest.approx(expected, abs=1e-9)
    for predicted in (survival(risk), null_survival(train, len(f), TIMES)):
        expected = oracle.integrated_brier_score(surv(train), surv(f), predicted, TIMES)
        assert integrated_brier(train, f, predicted, TIMES) == pytest.approx(expected, abs=1e-9)


def test_yes_or_no_is_follow_up_without_censoring(test: Tested) -> None:
    """A yes/no outcome as an event at 1, or none until 2: at 1, the scores are the plain ones."""
    risk, f = test
    yes = f.event
    plain = FollowUp(f.patient, np.where(yes, 1.0, 2.0), np.ones(len(f), bool), "recurrence")
    p = 1 / (1 + np.exp(-risk))
    assert auc_at(plain, plain, risk, 1.0) == pytest.approx(roc_auc_score(yes, risk), abs=1e-12)
    assert brier(plain, plain, (1 - p)[:, None], np.array([1.0]))[0] == pytest.approx(brier_score_loss(yes, p), abs=1e-12)
    curve = net_benefit(plain, p, 1.0, np.array([0.3]))
    chosen = p >= 0.3
    assert curve.model[0] == pytest.approx(((chosen & yes).sum() - (chosen & ~yes).sum() * 0.3 / 0.7) / len(f), abs=1e-12)


def test_a_risk_is_not_a_survival(train: FollowUp, test: Tested) -> None:
    with pytest.raises(LabelsError, match="they may be risks"):
        brier(train, test[1], test[0][:, None] * np.ones(5), TIMES)


def test_nothing_to_compare_is_no_number(train: FollowUp, test: Tested) -> None:
    risk, f = test
    assert np.isnan(auc_at(train, f, risk, 0.1))
    assert np.isnan(auc_at(train, f, risk, 1e6))
    assert np.isnan(uno_c(train, f, risk, 0.1))


def test_calibration_of_the_truth_is_right_and_of_extremes_is_not() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=3000)
    time, censored = rng.exponential(40 * np.exp(-x)), rng.uniform(10, 120, 3000)
    f = FollowUp(np.arange(3000).astype(str), np.minimum(time, censored), time <= censored, "OS")
    true = np.exp(-24 / 40 * np.exp(x))
    found = calibration(f, true, 24.0)
    assert len(found.groups) == 5
    assert found.slope_low < 1 < found.slope_high
    assert (found.observed_to_expected, found.ici) == (pytest.approx(1, abs=0.06), pytest.approx(0, abs=0.02))
    assert sum(g.low < g.predicted < g.high for g in found.groups) >= 4
    extreme = calibration(f, np.exp(-24 / 40 * np.exp(2 * x)), 24.0)
    assert (extreme.slope, extreme.ici > 0.05) == (pytest.approx(0.5, abs=0.05), True)
    assert calibration(f, np.exp(-48 / 40 * np.exp(x)), 24.0).observed_to_expected < 0.85


def test_the_calibration_slope_is_a_cox_coefficient(test: Tested) -> None:
    import pandas as pd

    risk, f = test
    s = survival(risk)[:, 2]
    fitted = CoxPHFitter().fit(pd.DataFrame({"z": np.log(-np.log(s)), "t": f.time_months, "e": f.event}), "t", "e")
    found = calibration(f, s, 24.0)
    assert found.slope == pytest.approx(fitted.params_["z"], abs=1e-8)
    assert len(found.groups) == 3, "fewer than 150 patients"
    assert sum(g.n for g in found.groups) == len(f)


def test_net_benefit_of_treating_all_is_the_models_where_all_are_above(test: Tested) -> None:
    _, f = test
    curve = net_benefit(f, np.full(len(f), 0.99), 24.0)
    assert curve.model == pytest.approx(curve.treat_all)
    died = 1 - kaplan_meier(f.time_months, f.event).at(24.0)
    assert curve.treat_all[np.argmin(np.abs(curve.threshold - 0.5))] == pytest.approx(2 * died - 1, abs=1e-9)
    assert (net_benefit(f, np.zeros(len(f)), 24.0).model == 0).all()


def test_intervals_are_over_patients(test: Tested) -> None:
    risk, f = test
    c = resample(lambda rows: concordance_index(f.time_months[rows], f.event[rows], risk[rows]).c_index, f, 300)
    assert c.low < c.value < c.high
    assert 0.05 < c.high - c.low < 0.2
