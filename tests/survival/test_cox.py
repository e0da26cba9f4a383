"""The Cox model against lifelines, scikit-survival and R's published figures; its interval and its check of proportional hazards by simulation."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.datasets import load_rossi
from lifelines.statistics import proportional_hazard_test

from wsikit.survival.cox import choose_penalty, fit_cox, partial_log_likelihood
from wsikit.survival.folds import event_folds
from wsikit.survival.follow_up import FollowUp

Sksurv = Callable[[str], ModuleType]

COLUMNS = ["fin", "age", "race", "wexp", "mar", "paro", "prio"]


@pytest.fixture(scope="module")
def rossi() -> tuple[np.ndarray, FollowUp]:
    frame = load_rossi()
    return frame[COLUMNS].to_numpy(float), FollowUp(np.arange(len(frame)).astype(str), frame.week.to_numpy(float), frame.arrest.to_numpy(bool), "arrest")


def test_published_coefficients(rossi: tuple[np.ndarray, FollowUp]) -> None:
    """Rossi et al. 1980 as Fox & Weisberg's appendix on Cox regression prints them (Efron's ties): β and standard errors."""
    found = fit_cox(*_arguments(rossi), penalty=0.0)
    assert found.beta.round(3).tolist() == [-0.379, -0.057, 0.314, -0.150, -0.434, -0.085, 0.091]
    assert found.se.round(3).tolist() == [0.191, 0.022, 0.308, 0.212, 0.382, 0.196, 0.029]
    hr, low, high, p = found.hazard_ratios()["fin"]
    assert (round(hr, 3), round(low, 2), round(high, 2), round(p, 3)) == (0.684, 0.47, 1.0, 0.047)


def _arguments(rossi: tuple[np.ndarray, FollowUp]) -> tuple[np.ndarray, list[str], FollowUp]:
    return rossi[0], COLUMNS, rossi[1]


def test_efron_is_that_of_scikit_survival_and_survival_that_of_lifelines(rossi: tuple[np.ndarray, FollowUp], sksurv: Sksurv) -> None:
    x, follow = rossi
    z = (x - x.mean(0)) / x.std(0)
    found = fit_cox(z, COLUMNS, follow, penalty=0.0)
    oracle = sksurv("linear_model").CoxPHSurvivalAnalysis(ties="efron").fit(z, sksurv("util").Surv.from_arrays(follow.event, follow.time_months))
    assert found.beta == pytest.approx(oracle.coef_, abs=1e-6)
    frame = pd.DataFrame(z, columns=COLUMNS).assign(t=follow.time_months, e=follow.event)
    fitter = CoxPHFitter().fit(frame, "t", "e")
    expected = fitter.predict_survival_function(frame.iloc[:20], times=[10.0, 30.0, 52.0]).T.to_numpy()
    assert found.survival(z[:20], np.array([10.0, 30.0, 52.0])) == pytest.approx(expected, abs=1e-6)
    assert partial_log_likelihood(found.risk(z), follow) < 0


def test_proportional_hazards_are_tested_as_lifelines_does_and_together(rossi: tuple[np.ndarray, FollowUp]) -> None:
    """R's survival (cox.zph of this model, rank) finds age (p about 0.01) and wexp not proportional, and little for all together."""
    x, follow = rossi
    found = fit_cox(x, COLUMNS, follow, penalty=0.0)
    frame = pd.DataFrame(x, columns=COLUMNS).assign(t=follow.time_months, e=follow.event)
    test = proportional_hazard_test(CoxPHFitter().fit(frame, "t", "e"), frame, time_transform="rank")
    assert [found.proportional_p[c] for c in COLUMNS] == pytest.approx(np.atleast_1d(test.p_value).tolist(), abs=1e-9)
    assert found.proportional_p["age"] < 0.01
    one = fit_cox(x[:, 1:2], ["age"], follow, penalty=0.0)
    assert one.proportional_p["global"] == pytest.approx(one.proportional_p["age"], rel=0.02), "of one column it is that column's"


def test_an_effect_that_wanes_is_found() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=600)
    early = rng.exponential(10 * np.exp(-1.5 * x))
    time = np.where(early < 5, early, 5 + rng.exponential(20, 600))  # after 5 months x does not matter any more
    found = fit_cox(x[:, None], ["x"], FollowUp(np.arange(600).astype(str), time, np.ones(600, bool), "OS"), penalty=0.0)
    assert found.proportional_p["global"] < 1e-6


def test_intervals_of_survival_hold_the_truth() -> None:
    """95 % intervals of S(24 | x) hold it in about 95 % of cohorts."""
    z = np.array([[-1.0, 0.5], [0.0, 0.0], [1.5, 1.0]])
    beta, hits, n = np.array([0.8, -0.4]), 0, 100
    true = np.exp(-24 / 50 * np.exp(z @ beta))
    for seed in range(n):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(120, 2))
        time, censored = rng.exponential(50 * np.exp(-x @ beta)), rng.uniform(12, 80, 120)
        found = fit_cox(x, ["a", "b"], FollowUp(np.arange(120).astype(str), np.minimum(time, censored), time <= censored, "OS"), penalty=0.0)
        low, high = found.interval(z, np.array([24.0]))
        hits += ((low[:, 0] <= true) & (true <= high[:, 0])).sum()
    assert 0.92 < hits / (3 * n) < 0.98


def test_noise_is_penalised_and_signal_is_not() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(100, 12))
    time = rng.exponential(20, 100)
    noise = FollowUp(np.arange(100).astype(str), time, rng.uniform(size=100) < 0.5, "OS")
    assert choose_penalty(x, noise, event_folds(noise, 5)) == 1.0
    strong = FollowUp(noise.patient, rng.exponential(20 * np.exp(-2 * x[:, 0])), np.ones(100, bool), "OS")
    assert choose_penalty(x[:, :2], strong, event_folds(strong, 5)) < 0.1
