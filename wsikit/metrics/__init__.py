"""How good is it? Each metric returns the counts behind its number; intervals come from resampling patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True)
class Interval:
    """A number with its percentile interval, and how many draws had no value."""

    value: float
    low: float
    high: float
    degenerate: int = 0

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


def bootstrap(statistic: Callable[[np.ndarray], float], groups: Sequence[str], draws: int = BOOTSTRAP_DRAWS, seed: int = 0) -> Interval:
    """A 95 % percentile interval that resamples whole groups (patients), not rows.

    Parameters
    ----------
    statistic : takes row indices, int64 (n,), and returns a number; NaN where a draw has none
    groups : the group of each row

    Examples
    --------
    >>> x = np.array([1.0, 2, 3, 4])
    >>> bootstrap(lambda rows: float(x[rows].mean()), ["a", "b", "c", "d"], draws=200).value
    2.5
    """
    rng = np.random.default_rng(seed)
    names = np.unique(np.asarray(groups))
    rows = {name: np.flatnonzero(np.asarray(groups) == name) for name in names}
    values = np.array([statistic(np.concatenate([rows[n] for n in rng.choice(names, len(names))])) for _ in range(draws)])
    good = values[~np.isnan(values)]
    low, high = np.percentile(good, [2.5, 97.5]) if len(good) else (np.nan, np.nan)
    return Interval(statistic(np.arange(len(groups))), float(low), float(high), int(len(values) - len(good)))


@dataclass(frozen=True)
class Concordance:
    """Harrell's C and the pairs behind it; NaN when no pair can be compared."""

    c_index: float
    concordant: int
    discordant: int
    tied_risk: int


def concordance_index(time: np.ndarray, event: np.ndarray, risk: np.ndarray) -> Concordance:
    """Of two patients, does the one with the higher risk have the event first?

    A pair is comparable when the earlier time is an event; an event and a censoring at the same time are comparable, two events at the
    same time are not. Ties in risk count half. (Harrell et al., JAMA 1982; the conventions of scikit-survival.)

    Parameters
    ----------
    time, risk : float64 (n,)
    event : bool (n,)

    Examples
    --------
    >>> concordance_index(np.array([1.0, 2, 3]), np.array([True, True, False]), np.array([3.0, 2, 1])).c_index
    1.0
    """
    event = event.astype(bool)
    later = (time[None] > time[:, None]) | ((time[None] == time[:, None]) & ~event[None])
    pairs = event[:, None] & later
    difference = risk[:, None] - risk[None]
    tied = pairs & (np.abs(difference) <= 1e-8)
    concordant, ties = int((pairs & ~tied & (difference > 0)).sum()), int(tied.sum())
    total = int(pairs.sum())
    c = (concordant + ties / 2) / total if total else float("nan")
    return Concordance(c, concordant, total - concordant - ties, ties)


@dataclass(frozen=True)
class DetectionScore:
    """Counts of a detector against points, and what follows from them."""

    tp: int
    fp: int
    fn: int

    @property
    def precision(self) -> float:
        """Share of detections that are true."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else float("nan")

    @property
    def recall(self) -> float:
        """Share of the true ones that were detected."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float("nan")

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp + self.fp + self.fn else float("nan")

    def __add__(self, other: DetectionScore) -> DetectionScore:
        return DetectionScore(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def match_detections(found_um: np.ndarray, truth_um: np.ndarray, radius_um: float = 7.5) -> DetectionScore:
    """Count hits as the MIDOG challenge does: each true point, in order, takes its nearest unused detection within the radius.

    Parameters
    ----------
    found_um, truth_um : float64 (M, 2), µm

    Examples
    --------
    >>> DetectionScore(97, 33, 11).f1.__round__(4)      # Zehra et al. 2022
    0.8151
    """
    used = np.zeros(len(found_um), bool)
    tp = 0
    for point in truth_um:
        distance = np.hypot(*(found_um - point).T) if len(found_um) else np.empty(0)
        distance = np.where(used, np.inf, distance)
        if len(distance) and distance.min() <= radius_um:
            used[distance.argmin()] = True
            tp += 1
    return DetectionScore(tp, len(found_um) - tp, len(truth_um) - tp)


def confusion(truth: Sequence[str], called: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """How often was each class (row) called each class (column)? int64 (K, K + 1); the last column is "no call"."""
    out = np.zeros((len(classes), len(classes) + 1), np.int64)
    for t, c in zip(truth, called, strict=True):
        out[classes.index(t), classes.index(c) if c in classes else len(classes)] += 1
    return out


def balanced_accuracy(table: np.ndarray) -> float:
    """Mean recall over the classes that occur in a `confusion` table; NaN when none does."""
    seen = table.sum(1) > 0
    return float((table.diagonal()[seen] / table.sum(1)[seen]).mean()) if seen.any() else float("nan")


def calibration_error(probability: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """How far is what is said from how often it is right? ECE = Σ n_b/n · |right_b − mean_b| over bins of equal width (Guo et al., ICML 2017).

    Parameters
    ----------
    probability : float (n,), of the call, 0 to 1
    correct : bool (n,)

    Examples
    --------
    >>> round(calibration_error(np.array([0.9, 0.8]), np.array([True, False]), bins=1), 4)
    0.35
    """
    if not len(probability):
        return float("nan")
    at = np.minimum((probability * bins).astype(int), bins - 1)
    gap = np.bincount(at, correct.astype(float) - probability, bins)
    return float(np.abs(gap).sum() / len(probability))
