"""Did it happen, yes or no? A penalised logistic model, and the follow-up that a yes or no amounts to."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from wsikit.errors import LabelsError
from wsikit.survival.curves import Z95
from wsikit.survival.follow_up import FollowUp

ASKED_AT = 1.0  # the "time" of a yes/no outcome


def yes_or_no(patient: np.ndarray, yes: np.ndarray, outcome: str, site: np.ndarray | None = None) -> FollowUp:
    """A yes/no outcome as follow-up: the event at 1, or none until 2. At time 1 AUC, Brier score, calibration and net benefit are the plain ones."""
    return FollowUp(patient, np.where(yes, ASKED_AT, 2 * ASKED_AT), yes.astype(bool), outcome, None, site)


def by_time(follow: FollowUp, months: float) -> tuple[FollowUp, list[str]]:
    """Did it happen by then? And who cannot be asked, having been followed for less.

    Raises
    ------
    LabelsError
        Nobody is left, or all of one kind.
    """
    known = follow.event & (follow.time_months <= months) | (follow.time_months >= months)
    rows = np.flatnonzero(known)
    yes = (follow.event & (follow.time_months <= months))[rows]
    if yes.all() or not yes.any():
        raise LabelsError(
            f"by {months:g} months, {follow.endpoint} is known to have happened to {int(yes.sum())} of {len(yes)} patients: nothing to tell apart"
        )
    name = f"{follow.endpoint} by {months:g} months"
    return yes_or_no(follow.patient[rows], yes, name, None if follow.site is None else follow.site[rows]), follow.patient[~known].tolist()


@dataclass(frozen=True)
class Logistic:
    """A fitted logistic model: ``P(yes) = 1 / (1 + exp(−(intercept + z · β)))``.

    ``beta``, ``se`` float64 (F,); ``covariance`` float64 (F + 1, F + 1), the intercept first.
    """

    names: list[str]
    intercept: float
    beta: np.ndarray
    se: np.ndarray
    covariance: np.ndarray
    penalty: float

    def risk(self, z: np.ndarray) -> np.ndarray:
        """Log odds ratio to z = 0: float64 (n,)."""
        return np.asarray(z @ self.beta)

    def survival(self, z: np.ndarray, months: np.ndarray) -> np.ndarray:
        """Probability of no: float64 (n, T), 1 before the outcome is asked for."""
        no = 1 / (1 + np.exp(self.intercept + self.risk(z)))
        return np.where(months[None] >= ASKED_AT, no[:, None], 1.0)

    def interval(self, z: np.ndarray, months: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """95 % interval of `survival`, on the scale of log odds."""
        x = np.concatenate([np.ones((len(z), 1)), z], 1)
        odds, half = self.intercept + self.risk(z), Z95 * np.sqrt(np.einsum("nf,fg,ng->n", x, self.covariance, x))
        low, high = (np.where(months[None] >= ASKED_AT, (1 / (1 + np.exp(odds + h)))[:, None], 1.0) for h in (half, -half))
        return low, high

    def hazard_ratios(self) -> dict[str, tuple[float, float, float, float]]:
        """Odds ratio per standard deviation of each column, low, high, and Wald's p."""
        rows = zip(self.names, self.beta, self.se, chdtrc(1, (self.beta / self.se) ** 2), strict=True)
        return {n: (float(np.exp(b)), float(np.exp(b - Z95 * s)), float(np.exp(b + Z95 * s)), float(p)) for n, b, s, p in rows}


def fit_logistic(z: np.ndarray, names: Sequence[str], yes: np.ndarray, penalty: float = 0.01) -> Logistic:
    """Ridge: λ/2 · Σ β² is taken from the mean log likelihood; the intercept is not penalised. By scikit-learn.

    Parameters
    ----------
    z : float64 (n, F), standardised, without gaps

    Raises
    ------
    LabelsError
        The fit does not converge, or all patients are of one kind.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if yes.all() or not yes.any():
        raise LabelsError(f"the outcome is {'yes' if yes.all() else 'no'} for all {len(yes)} training patients: nothing to tell apart")
    n = len(z)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            fitted = LogisticRegression(C=1 / (n * max(penalty, 1e-10)), max_iter=1000, tol=1e-8).fit(z, yes)
    except ConvergenceWarning as e:
        raise LabelsError("the logistic model does not converge: features may be copies of each other, or separate the patients; use fewer") from e
    beta, intercept = fitted.coef_[0].astype(np.float64), float(fitted.intercept_[0])
    x = np.concatenate([np.ones((n, 1)), z], 1)
    p = 1 / (1 + np.exp(-(intercept + z @ beta)))
    information = (x * (p * (1 - p))[:, None]).T @ x + n * penalty * np.diag([0.0, *np.ones(len(beta))])
    covariance = np.linalg.pinv(information)
    return Logistic(list(names), intercept, beta, np.sqrt(np.diag(covariance))[1:], covariance, penalty)
