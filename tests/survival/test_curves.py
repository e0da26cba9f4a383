"""Kaplan–Meier, log-rank, restricted mean and Aalen–Johansen against lifelines, scikit-survival, by hand, and in published data."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from lifelines.datasets import load_lung, load_waltons
from lifelines.utils import restricted_mean_survival_time

from wsikit.survival.curves import aalen_johansen, censoring, kaplan_meier, log_rank, median_follow_up, median_time, numbers_at_risk, restricted_mean
from wsikit.survival.follow_up import FollowUp

Sksurv = Callable[[str], ModuleType]


def test_kaplan_meier_is_that_of_lifelines(train: FollowUp) -> None:
    curve = kaplan_meier(train.time_months, train.event)
    fitter = KaplanMeierFitter().fit(train.time_months, train.event)
    expected = fitter.survival_function_.iloc[1:, 0]
    assert curve.time.tolist() == expected.index.tolist()
    assert curve.value == pytest.approx(expected.to_numpy(), abs=1e-12)
    bounds = fitter.confidence_interval_.iloc[1:]
    known = curve.value < 1
    assert curve.low[known] == pytest.approx(bounds.iloc[:, 0].to_numpy()[known], abs=1e-9)
    assert curve.high[known] == pytest.approx(bounds.iloc[:, 1].to_numpy()[known], abs=1e-9)
    assert curve.at_risk.tolist() == fitter.event_table.at_risk.iloc[1:].tolist()
    assert median_time(curve) == fitter.median_survival_time_
    assert numbers_at_risk(train.time_months, [0, 12, 24, 1000]) == [len(train), *[(train.time_months >= t).sum() for t in (12, 24)], 0]


def test_by_hand() -> None:
    """Six patients, a tie of an event and a censoring: 5/6, then 5/6 · 3/4 · ... of those at risk."""
    curve = kaplan_meier(np.array([2.0, 4, 4, 6, 8, 8]), np.array([True, True, False, False, True, False]))
    assert curve.value == pytest.approx([5 / 6, 5 / 6 * 4 / 5, 2 / 3, 1 / 3])
    assert curve.at_risk.tolist() == [6, 5, 3, 2]
    assert curve.at([0, 1.99, 2, 5, 8, 99]) == pytest.approx([1, 1, 5 / 6, 2 / 3, 1 / 3, 1 / 3])
    g = censoring(np.array([2.0, 4, 4, 6, 8, 8]), np.array([True, True, False, False, True, False]))
    assert g.value == pytest.approx([1, 3 / 4, 3 / 4 * 2 / 3, 0]), "at 4 the one with the event is no longer at risk of censoring"


def test_published_curves() -> None:
    """The lung cancer data of R's survival package: median 310 days; men against women chi² 10.3 on 1 degree, p 0.001 (its vignette)."""
    lung = load_lung()
    curve = kaplan_meier(lung.time.to_numpy(float), lung.status.to_numpy(bool))
    assert median_time(curve) == 310
    found = log_rank(lung.time.to_numpy(float), lung.status.to_numpy(bool), lung.sex.to_numpy())
    assert (round(found.chi2, 1), found.degrees, round(found.p, 3)) == (10.3, 1, 0.001)


def test_log_rank_is_that_of_scikit_survival(train: FollowUp, sksurv: Sksurv) -> None:
    group = np.arange(len(train)) % 3
    chi2, p = sksurv("compare").compare_survival(sksurv("util").Surv.from_arrays(train.event, train.time_months), group)
    found = log_rank(train.time_months, train.event, group)
    assert (found.chi2, found.p, found.degrees) == (pytest.approx(chi2, abs=1e-8), pytest.approx(p, abs=1e-8), 2)
    assert np.isnan(log_rank(train.time_months, train.event, np.zeros(len(train))).p)


def test_restricted_mean_is_the_area_below_the_curve(train: FollowUp) -> None:
    mean, low, high = restricted_mean(train.time_months, train.event, 36.0)
    assert mean == pytest.approx(restricted_mean_survival_time(KaplanMeierFitter().fit(train.time_months, train.event), t=36.0), abs=1e-9)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(400):
        rows = rng.integers(0, len(train), len(train))
        draws.append(restricted_mean(train.time_months[rows], train.event[rows], 36.0)[0])
    assert (high - low) / 2 / 1.96 == pytest.approx(np.std(draws), rel=0.12), "Greenwood's variance is the bootstrap's"


def test_published_restricted_mean() -> None:
    """Without censoring it is the mean of min(T, t)."""
    data = load_waltons()
    time = data["T"].to_numpy(float)
    assert restricted_mean(time, np.ones(len(time), bool), 50.0)[0] == pytest.approx(np.minimum(time, 50).mean())


def test_median_follow_up_is_by_reverse_kaplan_meier() -> None:
    time, event = np.array([1.0, 2, 10, 20, 30]), np.array([True, True, False, False, False])
    assert median_follow_up(time, event) == 20


@pytest.fixture(scope="module")
def competing() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    times = rng.exponential([30.0, 45.0, 60.0], (150, 3))
    return np.round(times.min(1), 0) + 1, times.argmin(1).astype(np.int64)


def test_aalen_johansen_is_that_of_scikit_survival(competing: tuple[np.ndarray, np.ndarray], sksurv: Sksurv) -> None:
    time, cause = competing
    at, expected, interval = sksurv("nonparametric").cumulative_incidence_competing_risks(cause, time, conf_type="log-log", var_type="Aalen")
    for which in (1, 2):
        curve = aalen_johansen(time, cause, which)
        assert curve.time.tolist() == at.tolist()
        assert curve.value == pytest.approx(expected[which], abs=1e-12)
        inside = (curve.value > 0.02) & (curve.at_risk > curve.events + 1)
        assert curve.low[inside] == pytest.approx(interval[which][0][inside], abs=1e-9)
        assert curve.high[inside] == pytest.approx(interval[which][1][inside], abs=1e-9)


def test_incidence_has_its_interval_where_the_last_patient_is_censored_alone(competing: tuple[np.ndarray, np.ndarray]) -> None:
    time, cause = np.r_[competing[0], 500.0], np.r_[competing[1], 0]
    curve = aalen_johansen(time, cause, 1)
    known = curve.value > 0
    assert np.isfinite(curve.low).all()
    assert ((curve.low <= curve.value) & (curve.value <= curve.high))[known].all()
    assert curve.at_risk[-1] == 1


def test_incidences_and_survival_are_everybody(competing: tuple[np.ndarray, np.ndarray]) -> None:
    time, cause = competing
    together = aalen_johansen(time, cause, 1).value + aalen_johansen(time, cause, 2).value + kaplan_meier(time, cause > 0).value
    assert together == pytest.approx(1, abs=1e-12)
    naive = 1 - kaplan_meier(time, cause == 1).value
    assert (aalen_johansen(time, cause, 1).value <= naive + 1e-12).all()
    alone = pd.Series(np.where(cause == 1, 1, 0)).to_numpy()
    assert aalen_johansen(time, alone).value == pytest.approx(naive, abs=1e-12), "without a competing cause it is one minus Kaplan–Meier"
