"""The Cox model: lifelines' fit, with what it was checked for, and survival at a time with its interval."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize
from scipy.special import chdtrc

from wsikit.errors import LabelsError
from wsikit.survival.curves import Z95
from wsikit.survival.follow_up import FollowUp

PENALTIES = (0.001, 0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Cox:
    """A fitted Cox model: ``risk = z · β``, hazard ``h0(t) · exp(risk)``.

    Attributes
    ----------
    names : of the F columns
    beta, se : float64 (F,); with a penalty, shrunken, and their intervals too narrow
    covariance : float64 (F, F)
    time_months, hazard : float64 (T,), Breslow's cumulative baseline hazard at z = 0
    hazard_variance : float64 (T,), and ``hazard_slope`` float64 (T, F): what the interval of survival needs (Tsiatis 1981)
    proportional_p : p of the test of proportional hazards, by column and for all (``global``)
    penalty : lifelines' ``penalizer``: λ/2 · Σ β² is taken from the mean log likelihood
    """

    names: list[str]
    beta: np.ndarray
    se: np.ndarray
    covariance: np.ndarray
    time_months: np.ndarray
    hazard: np.ndarray
    hazard_variance: np.ndarray
    hazard_slope: np.ndarray
    penalty: float
    proportional_p: dict[str, float] = field(default_factory=dict)

    def risk(self, z: np.ndarray) -> np.ndarray:
        """Log hazard ratio to z = 0: float64 (n,)."""
        return np.asarray(z @ self.beta)

    def survival(self, z: np.ndarray, months: np.ndarray) -> np.ndarray:
        """Probability of no event by these times: float64 (n, T)."""
        return np.exp(-np.outer(np.exp(self.risk(z)), _step(self.time_months, self.hazard, months)))

    def interval(self, z: np.ndarray, months: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """95 % interval of `survival`, log(−log): float64 (n, T) twice; NaN before the first event."""
        return survival_interval(self.beta, self.covariance, z, *(_step(self.time_months, v, months) for v in self._steps()))

    def _steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.hazard, self.hazard_variance, self.hazard_slope

    def hazard_ratios(self) -> dict[str, tuple[float, float, float, float]]:
        """Hazard ratio per standard deviation of each column, low, high, and Wald's p."""
        w = (self.beta / self.se) ** 2
        rows = zip(self.names, self.beta, self.se, chdtrc(1, w), strict=True)
        with np.errstate(over="ignore"):  # without a penalty and with few events an interval can reach to infinity, and says so
            return {n: (float(np.exp(b)), float(np.exp(b - Z95 * s)), float(np.exp(b + Z95 * s)), float(p)) for n, b, s, p in rows}


def survival_interval(
    beta: np.ndarray, covariance: np.ndarray, z: np.ndarray, hazard: np.ndarray, variance: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of exp(−H0 · exp(z · β)) from H0 (T,), the variance of H0 given β (T,), and −dH0/dβ (T, F): float64 (n, T) twice.

    Var log H(t|z) = v(t)/H0² + q'Vq, q = z − slope(t)/H0 (Tsiatis 1981; Kalbfleisch & Prentice 2002, 4.3).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        q = z[:, None] - (slope / hazard[:, None])[None]
        se = np.sqrt(variance / hazard**2 + np.einsum("ntf,fg,ntg->nt", q, covariance, q))
        log_h = np.log(hazard)[None] + (z @ beta)[:, None]
    return np.exp(-np.exp(log_h + Z95 * se)), np.exp(-np.exp(log_h - Z95 * se))


def _step(at: np.ndarray, values: np.ndarray, months: np.ndarray) -> np.ndarray:
    return np.asarray(np.concatenate([np.zeros_like(values[:1]), values])[np.searchsorted(at, months, side="right")])


def fit_cox(z: np.ndarray, names: Sequence[str], follow: FollowUp, penalty: float = 0.01) -> Cox:
    """Efron's ties and a ridge penalty, by lifelines.

    Parameters
    ----------
    z : float64 (n, F), standardised, without gaps

    Raises
    ------
    LabelsError
        The fit does not converge.
    """
    import pandas as pd
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError, StatError

    frame = pd.DataFrame(z, columns=list(names)).assign(_time=follow.time_months, _event=follow.event.astype(int))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitter = CoxPHFitter(penalizer=penalty).fit(frame, "_time", "_event")
            proportional = _proportional(fitter, frame)
    except (ConvergenceError, StatError, np.linalg.LinAlgError) as e:
        raise LabelsError("the Cox model does not converge: features may be copies of each other, or separate the patients; use fewer") from e
    beta = fitter.params_[list(names)].to_numpy(np.float64)
    steps = breslow(z @ beta, follow, z)
    se = fitter.standard_errors_[list(names)].to_numpy(np.float64)
    return Cox(list(names), beta, se, fitter.variance_matrix_.loc[list(names), list(names)].to_numpy(np.float64), *steps, penalty, proportional)


def breslow(risk: np.ndarray, follow: FollowUp, z: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Breslow's cumulative baseline hazard: times of events, H0, its variance given β, and −dH0/dβ (T, F)."""
    times = np.unique(follow.time_months[follow.event])
    x = np.zeros((len(risk), 0)) if z is None else z
    order = np.argsort(-follow.time_months, kind="stable")
    weight = np.exp(risk[order])
    total, weighted = np.cumsum(weight), np.cumsum(weight[:, None] * x[order], 0)
    last = np.searchsorted(-follow.time_months[order], -times, side="right") - 1
    d = np.bincount(np.searchsorted(times, follow.time_months[follow.event]), minlength=len(times))
    s0, mean = total[last], weighted[last] / total[last][:, None]
    return times, np.cumsum(d / s0), np.cumsum(d / s0**2), np.cumsum(d[:, None] * mean / s0[:, None], 0)


def _proportional(fitter: object, frame: object) -> dict[str, float]:
    """Do hazard ratios stay the same over time? Grambsch & Therneau 1994 on the rank of time, by column and for all together."""
    from lifelines.statistics import proportional_hazard_test

    found = proportional_hazard_test(fitter, frame, time_transform="rank")
    names = list(fitter.params_.index)  # type: ignore[attr-defined]
    out = {str(n): float(p) for n, p in zip(names, np.atleast_1d(found.p_value), strict=True)}
    residuals = fitter.compute_residuals(frame, "schoenfeld")[names].to_numpy()  # type: ignore[attr-defined]
    g = np.arange(len(residuals)) - (len(residuals) - 1) / 2  # they come in the order of time
    u = residuals.T @ g
    covariance = fitter.variance_matrix_.loc[names, names].to_numpy()  # type: ignore[attr-defined]
    statistic = float(u @ covariance @ u) * len(g) / float((g**2).sum())
    return out | {"global": float(chdtrc(len(names), statistic))}


def partial_log_likelihood(risk: np.ndarray, follow: FollowUp) -> float:
    """Of log risks, Breslow's ties: Σ over events of (risk − log Σ of those at risk exp(risk))."""
    order = np.argsort(-follow.time_months, kind="stable")
    total = np.logaddexp.accumulate(risk[order])
    last = np.searchsorted(-follow.time_months[order], -follow.time_months[follow.event], side="right") - 1
    return float(risk[follow.event].sum() - total[last].sum())


def gradient(risk: np.ndarray, z: np.ndarray, follow: FollowUp) -> np.ndarray:
    """Of `partial_log_likelihood` with respect to β: float64 (F,)."""
    order = np.argsort(-follow.time_months, kind="stable")
    weight = np.exp(risk[order] - risk.max())
    total, weighted = np.cumsum(weight), np.cumsum(weight[:, None] * z[order], 0)
    last = np.searchsorted(-follow.time_months[order], -follow.time_months[follow.event], side="right") - 1
    return np.asarray((z[follow.event] - weighted[last] / total[last][:, None]).sum(0))


def ridge(z: np.ndarray, follow: FollowUp, penalty: float) -> np.ndarray:
    """Cox coefficients with λ/2 · Σ β² taken from the mean log likelihood, Breslow's ties: float64 (F,). For choosing λ; models are lifelines' fits."""
    n = len(z)

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        risk = z @ beta
        value = -partial_log_likelihood(risk, follow) / n + penalty / 2 * float(beta @ beta)
        return value, -gradient(risk, z, follow) / n + penalty * beta

    return np.asarray(minimize(loss, np.zeros(z.shape[1]), jac=True, method="L-BFGS-B", options={"ftol": 1e-12}).x)


def choose_penalty(z: np.ndarray, follow: FollowUp, folds: np.ndarray, penalties: Sequence[float] = PENALTIES) -> float:
    """The ridge penalty with the best cross-validated partial likelihood (Verweij & van Houwelingen 1993).

    ``folds`` int64 (n,): each fold's likelihood is that of all patients less that of its training patients, at the coefficients of the latter.
    """
    best = {}
    for penalty in penalties:
        total = 0.0
        for k in np.unique(folds):
            inside = np.flatnonzero(folds != k)
            beta = ridge(z[inside], follow.take(inside), penalty)
            total += partial_log_likelihood(z @ beta, follow) - partial_log_likelihood(z[inside] @ beta, follow.take(inside))
        best[penalty] = total
    return max(best, key=lambda p: best[p])
