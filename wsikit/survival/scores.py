"""How good are predicted risks and survival curves? Weighted for censoring, with what a model that knows nothing would reach.

The conventions are those of scikit-survival 0.28 where it defines the same. Weights are 1/G, G the Kaplan–Meier estimate of not being censored among
the *training* patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wsikit.errors import LabelsError
from wsikit.metrics import Interval, bootstrap
from wsikit.survival.curves import Z95, censoring, kaplan_meier
from wsikit.survival.follow_up import FollowUp

TIED = 1e-8


def _weights(train: FollowUp, test: FollowUp) -> np.ndarray:
    """1/G at the events of the test patients, 0 for those censored: float64 (n,)."""
    g = censoring(train.time_months, train.event).at(test.time_months)
    with np.errstate(divide="ignore"):
        return np.where(test.event, 1 / g, 0.0)


def uno_c(train: FollowUp, test: FollowUp, risk: np.ndarray, tau_months: float = np.inf) -> float:
    """Harrell's C made independent of who happened to be censored, for events before ``tau_months`` (Uno et al., Stat Med 2011); NaN without pairs."""
    time, event = test.time_months, test.event.astype(bool)
    w = np.where(event & (time < tau_months), _weights(train, test) ** 2, 0.0)
    later = (time[None] > time[:, None]) | ((time[None] == time[:, None]) & ~event[None])
    pairs = (w > 0)[:, None] & later
    difference = risk[:, None] - risk[None]
    right = np.where(np.abs(difference) <= TIED, 0.5, difference > 0)
    total = float((pairs.sum(1) * w).sum())
    return float(((pairs * right).sum(1) * w).sum() / total) if total and np.isfinite(total) else float("nan")


def auc_at(train: FollowUp, test: FollowUp, risk: np.ndarray, months: float) -> float:
    """Of one patient with the event by then and one still without, how often has the first the higher risk? Cumulative/dynamic AUC; NaN without either.

    Uno et al., JASA 2007; Hung & Chiang, Can J Stat 2010.
    """
    w, after = _weights(train, test), test.time_months > months
    case = test.event.astype(bool) & (test.time_months <= months)
    if not case.any() or not after.any():
        return float("nan")
    difference = risk[case][:, None] - risk[after][None]
    right = np.where(np.abs(difference) <= TIED, 0.5, difference > 0)
    return float((right.mean(1) * w[case]).sum() / w[case].sum())


def brier(train: FollowUp, test: FollowUp, survival: np.ndarray, months: np.ndarray) -> np.ndarray:
    """Mean squared error of predicted survival at these times, weighted for censoring: float64 (T,) (Graf et al., Stat Med 1999).

    Parameters
    ----------
    survival : float64 (n, T), probability of no event by each time: not a risk
    months : float64 (T,)

    Raises
    ------
    LabelsError
        A value is no probability.
    """
    if not ((survival >= 0) & (survival <= 1)).all():
        raise LabelsError("the Brier score is of survival probabilities, from 0 to 1; these are not, they may be risks")
    g = censoring(train.time_months, train.event)
    at_event, at_time = g.at(test.time_months)[:, None], g.at(months)[None]
    gone = (test.time_months[:, None] <= months) & test.event.astype(bool)[:, None]
    there = test.time_months[:, None] > months
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.where(gone, survival**2 / at_event, 0.0) + np.where(there, (1 - survival) ** 2 / at_time, 0.0)
    return np.asarray(errors.mean(0))


def integrated_brier(train: FollowUp, test: FollowUp, survival: np.ndarray, months: np.ndarray) -> float:
    """`brier` averaged over the time from the first to the last of ``months`` by the trapezoid rule."""
    return float(np.trapezoid(brier(train, test, survival, months), months) / (months[-1] - months[0]))


def null_survival(train: FollowUp, n: int, months: np.ndarray) -> np.ndarray:
    """What somebody who knows nothing of the patients predicts: the training patients' Kaplan–Meier curve, float64 (n, T)."""
    return np.tile(kaplan_meier(train.time_months, train.event).at(months), (n, 1))


def score_times(follow: FollowUp, n: int = 30) -> np.ndarray:
    """Times to integrate over: from the 10th to the 80th percentile of all follow-up, where there still are patients on both sides."""
    low, high = np.percentile(follow.time_months, [10, 80])
    return np.linspace(low, high, n)


@dataclass(frozen=True)
class CalibrationGroup:
    """Patients of similar predicted risk: how many, the mean predicted probability of the event, and the observed one with its interval."""

    n: int
    predicted: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """Are predicted probabilities those that come true, at one time?

    Attributes
    ----------
    groups : by quantiles of predicted risk
    slope, slope_low, slope_high : of a Cox model on log(−log S): 1 when right, below 1 when predictions are too extreme
    observed_to_expected : events by that time (Kaplan–Meier) over those predicted
    ici : mean absolute difference of predicted and smoothly observed probability (Austin & Steyerberg 2019; Austin et al., Stat Med 2020)
    """

    months: float
    groups: list[CalibrationGroup]
    slope: float
    slope_low: float
    slope_high: float
    observed_to_expected: float
    ici: float


def calibration(test: FollowUp, survival: np.ndarray, months: float, n_groups: int | None = None) -> Calibration:
    """Calibration at one time; five groups, three where there are fewer than 150 patients.

    Parameters
    ----------
    survival : float64 (n,), predicted probability of no event by ``months``
    """
    k = n_groups or (5 if len(test) >= 150 else 3)
    order = np.argsort(-survival, kind="stable")
    groups = []
    for rows in np.array_split(order, min(k, len(order))):
        curve = kaplan_meier(test.time_months[rows], test.event[rows])
        observed, high, low = (float(1 - curve.at(months, what)) for what in ("value", "low", "high"))
        groups.append(CalibrationGroup(len(rows), float(1 - survival[rows].mean()), observed, low, high))
    z = np.log(-np.log(np.clip(survival, 1e-9, 1 - 1e-9)))
    slope, se = _cox_slope(test, z)
    expected = float((1 - survival).mean())
    ratio = float(1 - kaplan_meier(test.time_months, test.event).at(months)) / expected if expected else float("nan")
    return Calibration(months, groups, slope, slope - Z95 * se, slope + Z95 * se, ratio, _ici(test, survival, z, months))


def _cox_slope(test: FollowUp, z: np.ndarray) -> tuple[float, float]:
    fitted = _fit(test, z[:, None])
    return (float("nan"), float("nan")) if fitted is None else (float(fitted.params_.iloc[0]), float(fitted.standard_errors_.iloc[0]))


def _ici(test: FollowUp, survival: np.ndarray, z: np.ndarray, months: float) -> float:
    """Observed probabilities are those of a Cox model on a natural cubic spline of z with 3 knots."""
    knots = np.quantile(z, [0.1, 0.5, 0.9])
    if len(np.unique(knots)) < 3:
        return float("nan")
    a, b, c = knots

    def cube(v: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(v, 0, None) ** 3)

    bend = (cube(z - a) - cube(z - b) * (c - a) / (c - b) + cube(z - c) * (b - a) / (c - b)) / (c - a) ** 2
    fitted = _fit(test, np.stack([z, bend], 1))
    if fitted is None:
        return float("nan")
    hazard = fitted.baseline_cumulative_hazard_.iloc[:, 0]
    at = int(np.searchsorted(hazard.index.to_numpy(), months, side="right")) - 1
    x = np.stack([z, bend], 1)
    smooth = 1 - np.exp(-float(hazard.iloc[max(at, 0)]) * np.exp((x - x.mean(0)) @ fitted.params_.to_numpy()))
    return float(np.abs(smooth - (1 - survival)).mean())


def _fit(test: FollowUp, x: np.ndarray):  # type: ignore[no-untyped-def]
    """A Cox model of lifelines on these columns; None where there is nothing to fit."""
    import warnings

    import pandas as pd
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError

    if not np.isfinite(x).all() or (np.ptp(x, axis=0) < 1e-9).any() or test.event.sum() < 2:
        return None
    frame = pd.DataFrame(x).add_prefix("x").assign(time=test.time_months, event=test.event.astype(int))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return CoxPHFitter().fit(frame, "time", "event")
    except ConvergenceError:
        return None


@dataclass(frozen=True)
class NetBenefit:
    """What treating by the model is worth at each threshold, in true positives per patient: beside treating all, and none (0)."""

    threshold: np.ndarray
    model: np.ndarray
    treat_all: np.ndarray


def net_benefit(test: FollowUp, probability: np.ndarray, months: float, threshold: np.ndarray | None = None) -> NetBenefit:
    """Decision curve at one time: TP/n − FP/n · p/(1 − p), rates by Kaplan–Meier among those above p (Vickers & Elkin 2006; Vickers et al. 2008).

    Parameters
    ----------
    probability : float64 (n,), predicted probability of the event by ``months``
    threshold : float64 (K,), probabilities in (0, 1) at which somebody would act; by default 0.05 … 0.95
    """
    p = np.arange(0.05, 0.951, 0.05) if threshold is None else threshold
    odds = p / (1 - p)

    def benefit(chosen: np.ndarray) -> tuple[float, float]:
        if not chosen.any():
            return 0.0, 0.0
        happens = float(1 - kaplan_meier(test.time_months[chosen], test.event[chosen]).at(months))
        return happens * chosen.mean(), (1 - happens) * chosen.mean()

    model = np.array([tp - fp * o for (tp, fp), o in ((benefit(probability >= t), o) for t, o in zip(p, odds, strict=True))])
    tp, fp = benefit(np.ones(len(test), bool))
    return NetBenefit(p, model, tp - fp * odds)


def resample(statistic: Callable[[np.ndarray], float], follow: FollowUp, draws: int = 1000, seed: int = 0) -> Interval:
    """A number with its 95 % interval over patients; ``statistic`` takes row indices."""
    return bootstrap(statistic, [str(p) for p in follow.patient], draws, seed)
