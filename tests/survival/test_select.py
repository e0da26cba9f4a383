"""Chosen features: the LASSO's own optimality conditions and scikit-survival's path, and what mRMR must prefer."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from wsikit.survival.cox import fit_cox, gradient, partial_log_likelihood, ridge
from wsikit.survival.folds import event_folds
from wsikit.survival.follow_up import FollowUp
from wsikit.survival.select import lasso, lasso_path, mrmr, relevance

Sksurv = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def cohort() -> tuple[np.ndarray, FollowUp]:
    """Ten features: 0 and 1 matter, 2 is nearly a copy of 0."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(180, 10))
    x[:, 2] = x[:, 0] + 0.05 * rng.normal(size=180)
    time, censored = rng.exponential(30 * np.exp(-1.0 * x[:, 0] - 0.8 * x[:, 1])), rng.uniform(10, 80, 180)
    z = (x - x.mean(0)) / x.std(0)
    return z, FollowUp(np.arange(180).astype(str), np.minimum(time, censored), time <= censored, "OS")


def test_the_gradient_is_that_of_the_likelihood(cohort: tuple[np.ndarray, FollowUp]) -> None:
    z, follow = cohort
    beta = np.linspace(-0.3, 0.4, 10)
    numeric = [(partial_log_likelihood(z @ (beta + d), follow) - partial_log_likelihood(z @ (beta - d), follow)) / 2e-5 for d in np.eye(10) * 1e-5]
    assert gradient(z @ beta, z, follow) == pytest.approx(numeric, rel=1e-5, abs=1e-4)


def test_ridge_is_lifelines_where_nothing_is_tied(cohort: tuple[np.ndarray, FollowUp]) -> None:
    z, follow = cohort
    assert len(set(follow.time_months)) == len(follow)
    for penalty in (0.01, 0.1):
        assert ridge(z, follow, penalty) == pytest.approx(fit_cox(z, [str(i) for i in range(10)], follow, penalty).beta, abs=2e-3), (
            "features 0 and 2 are nearly the same"
        )


def test_the_lasso_is_at_its_optimum(cohort: tuple[np.ndarray, FollowUp]) -> None:
    """Karush–Kuhn–Tucker: the gradient is λ·sign(β) where β is not 0, and at most λ where it is."""
    z, follow = cohort
    penalties = np.array([0.2, 0.1, 0.05])
    for penalty, beta in zip(penalties, lasso_path(z, follow, penalties, steps=3000), strict=True):
        slope = gradient(z @ beta, z, follow) / len(z)
        assert slope[beta != 0] == pytest.approx(penalty * np.sign(beta[beta != 0]), abs=2e-5)
        assert (np.abs(slope[beta == 0]) <= penalty + 2e-5).all()


def test_the_lasso_is_that_of_scikit_survival(cohort: tuple[np.ndarray, FollowUp], sksurv: Sksurv) -> None:
    z, follow = cohort
    penalties = np.array([0.1, 0.05])
    known = sksurv("util").Surv.from_arrays(follow.event, follow.time_months)
    oracle = sksurv("linear_model").CoxnetSurvivalAnalysis(l1_ratio=1.0, alphas=penalties, tol=1e-10, max_iter=1_000_000).fit(z, known)
    assert lasso_path(z, follow, penalties, steps=5000) == pytest.approx(oracle.coef_.T, abs=1e-4)


def test_the_chosen_are_those_that_matter(cohort: tuple[np.ndarray, FollowUp]) -> None:
    z, follow = cohort
    assert set(np.argsort(-relevance(z, follow))[:3]) == {0, 1, 2}
    assert set(mrmr(z, follow, 2).tolist()) in ({0, 1}, {1, 2}), "not a feature and its copy"
    kept = set(lasso(z, follow, event_folds(follow, 5)).tolist())
    assert 1 in kept
    assert kept & {0, 2}
    assert len(kept) <= 5


def test_among_noise_something_is_chosen_still(cohort: tuple[np.ndarray, FollowUp]) -> None:
    _, follow = cohort
    noise = np.random.default_rng(9).normal(size=(180, 30))
    assert 1 <= len(lasso(noise, follow, event_folds(follow, 5))) <= 3
