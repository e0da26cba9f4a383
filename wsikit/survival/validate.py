"""How good is a recipe on patients it has not seen? Everything it learns, it learns again inside each fold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wsikit.metrics import Interval, bootstrap, concordance_index
from wsikit.survival.curves import kaplan_meier
from wsikit.survival.follow_up import FollowUp
from wsikit.survival.recipe import Fitted, Patients
from wsikit.survival.scores import auc_at, brier, score_times, uno_c

DRAWS = 500


class Trainable(Protocol):
    """What can be cross-validated."""

    def fit(self, patients: Patients, seed: int = 0) -> Fitted:
        """The model of these patients."""


@dataclass(frozen=True)
class OutOfFold:
    """What was said of each patient by the model that had not seen that patient.

    Attributes
    ----------
    fold : int64 (n,)
    risk : float64 (n,); comparable inside a fold only
    survival : float64 (n, T) at ``months``
    null : float64 (n, T), the Kaplan–Meier curve of each fold's training patients
    group : float64 (n,), share of the fold's training patients with a lower risk
    """

    fold: np.ndarray
    months: np.ndarray
    risk: np.ndarray
    survival: np.ndarray
    null: np.ndarray
    group: np.ndarray


def cross_validate(recipe: Trainable, patients: Patients, folds: np.ndarray, months: np.ndarray, seed: int = 0) -> OutOfFold:
    """Fit on all folds but one, predict that one, for each.

    Parameters
    ----------
    folds : int64 (n,), of patients: one row each, so nobody is on both sides
    months : float64 (T,), times of the predicted survival
    """
    n, t = len(patients), len(months)
    risk, share, survival, null = np.empty(n), np.empty(n), np.empty((n, t)), np.empty((n, t))
    for k in np.unique(folds):
        inside, held = np.flatnonzero(folds != k), np.flatnonzero(folds == k)
        train, test = patients.take(inside), patients.take(held)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lifelines on small folds
            model = recipe.fit(train, seed)
        risk[held], survival[held] = model.risk(test), model.survival(test, months)
        share[held] = np.searchsorted(np.sort(model.risk(train)), risk[held], side="left") / len(inside)
        null[held] = kaplan_meier(train.follow.time_months, train.follow.event).at(months)
    return OutOfFold(folds, months, risk, survival, null, share)


def pooled_c(follow: FollowUp, found: OutOfFold, rows: np.ndarray) -> float:
    """Harrell's C over the pairs inside each fold, of these rows: risks of different models are not compared."""
    right = total = 0.0
    for k in np.unique(found.fold[rows]):
        mine = rows[found.fold[rows] == k]
        c = concordance_index(follow.time_months[mine], follow.event[mine], found.risk[mine])
        right += c.concordant + c.tied_risk / 2
        total += c.concordant + c.discordant + c.tied_risk
    return right / total if total else float("nan")


def statistics(follow: FollowUp, found: OutOfFold, horizons: Sequence[float]) -> dict[str, Callable[[np.ndarray], float]]:
    """What is reported of a recipe, each from row indices: ``c_index``, ``uno_c``, ``ibs``, ``ipa``, and ``auc_<t>``, ``brier_<t>`` at the horizons.

    ``ipa`` is 1 − IBS / IBS of Kaplan–Meier: above 0 when the model knows more than nothing (Kattan & Gerds 2018). Weights for censoring are
    of all patients; AUC compares predicted survival, which is on one scale in all folds.
    """
    times = score_times(follow)
    columns = np.array([int(np.argmin(np.abs(found.months - t))) for t in times])
    near = {m: int(np.argmin(np.abs(found.months - m))) for m in horizons}

    def integrated(which: np.ndarray, rows: np.ndarray) -> float:
        scores = brier(follow, follow.take(rows), which[np.ix_(rows, columns)], found.months[columns])
        return float(np.trapezoid(scores, found.months[columns]) / np.ptp(found.months[columns]))

    out: dict[str, Callable[[np.ndarray], float]] = {
        "c_index": lambda rows: pooled_c(follow, found, rows),
        "uno_c": lambda rows: uno_c(follow, follow.take(rows), 1 - found.survival[rows, columns[-1]], float(times[-1])),
        "ibs": lambda rows: integrated(found.survival, rows),
        "ipa": lambda rows: 1 - integrated(found.survival, rows) / integrated(found.null, rows),
    }
    for m, at in near.items():
        out[f"auc_{m:g}"] = lambda rows, m=m, at=at: auc_at(follow, follow.take(rows), -found.survival[rows, at], m)  # type: ignore[misc]
        out[f"brier_{m:g}"] = lambda rows, m=m, at=at: float(  # type: ignore[misc]
            brier(follow, follow.take(rows), found.survival[rows, at][:, None], np.array([m]))[0]
        )
    return out


def months_of(follow: FollowUp, horizons: Sequence[float]) -> np.ndarray:
    """The times at which `cross_validate` must predict for `statistics`."""
    return np.unique(np.concatenate([score_times(follow), np.asarray(horizons, np.float64)]))


def validate(follow: FollowUp, found: OutOfFold, horizons: Sequence[float], draws: int = DRAWS) -> dict[str, Interval]:
    """Each of `statistics` with its 95 % interval over patients (of these predictions: folds are not drawn again)."""
    names = [str(p) for p in follow.patient]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {name: bootstrap(f, names, draws) for name, f in statistics(follow, found, horizons).items()}


def compare(follow: FollowUp, a: OutOfFold, b: OutOfFold, name: str = "c_index", draws: int = DRAWS) -> Interval:
    """By how much is ``a`` better (or worse) than ``b``, on the same patients? The difference a − b of a statistic with its 95 % interval over patients."""
    first, second = statistics(follow, a, [])[name], statistics(follow, b, [])[name]
    with np.errstate(divide="ignore", invalid="ignore"):
        return bootstrap(lambda rows: first(rows) - second(rows), [str(p) for p in follow.patient], draws)


def verdict(scores: Mapping[str, Interval]) -> str:
    """What the C-index's interval says, in words."""
    c = scores["c_index"]
    if c.low > 0.5:
        return f"C {c}: patients with the higher risk have the event first more often than by chance"
    if c.high < 0.5:
        # a fold whose held-out patients do worse than the others leaves training patients who do better: without an effect C falls below 0.5
        return f"C {c}: no better than chance; below 0.5, as cross-validation comes out where there is nothing to learn"
    return f"C {c}: no better than chance as far as these patients can tell (0.5 is inside the interval)"


def difference_verdict(name: str, other: str, difference: Interval) -> str:
    """What a difference of C-indices says, in words."""
    shown = f"{name} less {other}: C {difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
    if difference.low > 0:
        return f"{shown}: {name} is better"
    if difference.high < 0:
        return f"{shown}: {name} is worse"
    return f"{shown}: no difference that these patients could show"
