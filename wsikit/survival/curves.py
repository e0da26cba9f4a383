"""What share is without the event after some time? Kaplan–Meier, log-rank, restricted mean, and Aalen–Johansen where risks compete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Curve:
    """A step function of time, right-continuous: 1 (or ``start``) before the first step.

    ``time`` float64 (T,) of the steps, ``value``, ``low``, ``high`` float64 (T,) from there on; ``at_risk`` and ``events`` int64 (T,).
    """

    time: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray
    start: float = 1.0

    def at(self, months: np.ndarray | float, what: str = "value") -> np.ndarray:
        """``value``, ``low`` or ``high`` at these times."""
        steps = np.concatenate([[self.start], getattr(self, what)])
        return np.asarray(steps[np.searchsorted(self.time, months, side="right")])


def _counts(time: np.ndarray, happened: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct times, how many are at risk just before each, and of how many it happened then."""
    times, inverse = np.unique(time, return_inverse=True)
    d = np.bincount(inverse, weights=happened, minlength=len(times)).astype(np.int64)
    left = np.bincount(inverse, minlength=len(times))
    return times, len(time) - np.concatenate([[0], np.cumsum(left)[:-1]]), d


def kaplan_meier(time: np.ndarray, event: np.ndarray) -> Curve:
    """The product-limit estimate with Greenwood's variance and the log(−log) interval.

    Parameters
    ----------
    time : float64 (n,)
    event : bool (n,)

    Examples
    --------
    >>> kaplan_meier(np.array([1.0, 2, 3, 4]), np.array([True, False, True, True])).value.round(3).tolist()
    [0.75, 0.75, 0.375, 0.0]
    """
    times, n, d = _counts(time, event)
    s = np.cumprod(1 - d / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(np.where(d == n, np.nan, d / (n * (n - d))))
        inner = np.log(-np.log(s))
        half = Z95 * np.sqrt(variance) / np.log(s)
        low, high = np.exp(-np.exp(inner - half)), np.exp(-np.exp(inner + half))
    low, high = np.where(s == 1, 1.0, low), np.where(s == 1, 1.0, high)
    return Curve(times, s, np.where(s == 0, 0.0, low), np.where(s == 0, 0.0, high), n, d)


def censoring(time: np.ndarray, event: np.ndarray) -> Curve:
    """Kaplan–Meier of not being censored, G: at a tied time events come first, so they are not at risk of censoring."""
    times, n, d = _counts(time, event)
    _, _, c = _counts(time, ~event.astype(bool))
    with np.errstate(divide="ignore", invalid="ignore"):
        g = np.cumprod(np.where(c > 0, 1 - c / (n - d), 1.0))
    return Curve(times, g, g, g, n, c)


def median_time(curve: Curve) -> float:
    """When does the curve first reach one half? infinity when it never does."""
    reached = np.flatnonzero(curve.value <= 0.5 + 1e-12)
    return float(curve.time[reached[0]]) if len(reached) else float("inf")


def median_follow_up(time: np.ndarray, event: np.ndarray) -> float:
    """By reverse Kaplan–Meier: how long would patients have been followed without events? (Schemper & Smith 1996)"""
    return median_time(kaplan_meier(time, ~event.astype(bool)))


def numbers_at_risk(time: np.ndarray, months: Sequence[float]) -> list[int]:
    """How many are still followed at these times?"""
    return [int((time >= m).sum()) for m in months]


@dataclass(frozen=True)
class LogRank:
    """Do groups differ in survival? chi-squared, k − 1 degrees of freedom, p."""

    chi2: float
    degrees: int
    p: float


def log_rank(time: np.ndarray, event: np.ndarray, group: np.ndarray) -> LogRank:
    """Mantel's test over all groups (Mantel 1966); NaN where there is one group only."""
    from lifelines.statistics import multivariate_logrank_test

    k = len(np.unique(group))
    if k < 2:
        return LogRank(float("nan"), 0, float("nan"))
    found = multivariate_logrank_test(time, group, event)
    return LogRank(float(found.test_statistic), k - 1, float(found.p_value))


def restricted_mean(time: np.ndarray, event: np.ndarray, months: float) -> tuple[float, float, float]:
    """Mean months without the event within the first ``months``: the area under Kaplan–Meier, with its 95 % interval.

    Variance after Klein & Moeschberger 2003, eq. 4.5.3: each event's share is weighted by the area that is left after it.
    """
    curve = kaplan_meier(time, event)
    inside = curve.time < months
    edges = np.concatenate([[0.0], curve.time[inside], [months]])
    area = np.concatenate([[1.0], curve.value[inside]]) * np.diff(edges)
    after = area[::-1].cumsum()[::-1][1:]
    n, d = curve.at_risk[inside], curve.events[inside]
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(d == n, 0.0, d / (n * (n - d)))
    half = Z95 * float(np.sqrt((after**2 * weights).sum()))
    return float(area.sum()), float(area.sum()) - half, float(area.sum()) + half


def aalen_johansen(time: np.ndarray, cause: np.ndarray, which: int = 1) -> Curve:
    """Cumulative incidence of one cause where others compete: the sum of S(t−)·d/n (Aalen & Johansen 1978); the interval is log(−log), Aalen's variance.

    One minus Kaplan–Meier with the others censored would be too high.

    Parameters
    ----------
    time : float64 (n,)
    cause : int64 (n,), 0 censored, 1, 2 … what happened

    Examples
    --------
    >>> aalen_johansen(np.array([1.0, 2, 3, 4]), np.array([1, 2, 1, 0])).value.tolist()
    [0.25, 0.25, 0.5, 0.5]
    """
    times, n, d = _counts(time, cause == which)
    _, _, every = _counts(time, cause > 0)
    before = np.concatenate([[1.0], np.cumprod(1 - every / n)[:-1]])
    incidence = np.cumsum(before * d / n)
    se = np.sqrt(_incidence_variance(incidence, before, n, every, d))
    with np.errstate(divide="ignore", invalid="ignore"):
        half = Z95 * se / (incidence * np.log(incidence))
        low, high = incidence ** np.exp(-half), incidence ** np.exp(half)
    low, high = (np.where(incidence > 0, v, 0.0) for v in (low, high))
    return Curve(times, incidence, np.fmin(low, high), np.fmax(low, high), n, d, start=0.0)


def _incidence_variance(f: np.ndarray, before: np.ndarray, n: np.ndarray, every: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Aalen's, of the cumulative incidence at each time (Pintilie 2006, eq. 4.5)."""
    some = (n > every) & (n > 1)  # where the last patient is at risk, nothing is left to vary
    with np.errstate(divide="ignore", invalid="ignore"):
        a = np.where(some, every / ((n - 1) * (n - every)), 0.0)
        b = np.where(some, before * d * (n - d) / (n * (n - every) * (n - 1)), 0.0)
        c = np.where(n > 1, before**2 * d * (n - d) / (n**2 * (n - 1)), 0.0)
    ahead = f[:, None] - f[None]
    past = np.tril(np.ones((len(f), len(f)), bool))
    return np.asarray(np.maximum((past * (ahead**2 * a + c - 2 * ahead * b)).sum(1), 0.0))
