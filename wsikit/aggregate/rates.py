"""How sure is a count? Poisson limits, the detector's own errors carried into them, and the probability of each score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import gammainc, gammaincinv

DRAWS = 20_000
_SEED = 0


def poisson_interval(count: int, area_mm2: float, level: float = 0.95) -> tuple[float, float]:
    """Exact (Garwood) interval of a rate per mm² from a count.

    >>> [round(v, 1) for v in poisson_interval(10, 1.0)]
    [4.8, 18.4]
    """
    tail = (1 - level) / 2
    low = gammaincinv(count, tail) if count else 0.0
    return float(low / area_mm2), float(gammaincinv(count + 1, 1 - tail) / area_mm2)


@dataclass(frozen=True)
class DetectorError:
    """What a detector did on validation data at its frozen threshold: counts of true, false and missed figures.

    Examples
    --------
    >>> round(DetectorError(97, 33, 11).factor, 3)      # figures there were, per detection: precision ÷ recall
    0.831
    """

    tp: int
    fp: int
    fn: int

    @property
    def factor(self) -> float:
        """True figures per detection on the validation data."""
        return (self.tp + self.fn) / (self.tp + self.fp)

    def factors(self) -> np.ndarray:
        """The factor as uncertain as its counts make it: float64 (`DRAWS`,), the same each time.

        The shares of hits, false and missed ones have a Dirichlet distribution (Jeffreys prior), which keeps precision and recall together.
        """
        shares = np.random.default_rng(_SEED).dirichlet([self.tp + 0.5, self.fp + 0.5, self.fn + 0.5], DRAWS)
        return np.asarray((shares[:, 0] + shares[:, 2]) / (shares[:, 0] + shares[:, 1]))


def detector_error(metrics: Mapping[str, Any]) -> DetectorError | None:
    """The error that a card's metrics state in an entry of unit ``slides``, or else ``fields``, by whole numbers ``tp``, ``fp``, ``fn``; None without one.

    Of several, the one with most true figures. Squares cut around figures say nothing of how many false ones a slide has.
    """
    for unit in ("slides", "fields"):
        found = [e for m in metrics.values() if isinstance(m, dict) and m.get("unit") == unit and (e := _error(m)) is not None]
        if found:
            return max(found, key=lambda e: e.tp + e.fn)
    return None


def _error(m: Mapping[str, Any]) -> DetectorError | None:
    counts = [m.get(k) for k in ("tp", "fp", "fn")]
    if not all(type(v) is int and v >= 0 for v in counts):
        return None
    error = DetectorError(*(int(v or 0) for v in counts))
    return error if error.tp else None


def corrected_rate(count: int, area_mm2: float, error: DetectorError, level: float = 0.95) -> tuple[float, float, float]:
    """True figures per mm² behind a detector's count, with limits that hold the Poisson scatter and the detector's errors.

    The rate is that of the detections (Gamma, Jeffreys prior) times true figures per detection, as on the validation data: it holds only where
    false positives are as frequent beside true figures as they were there.
    """
    rng = np.random.default_rng(_SEED + 1)
    draws = rng.gamma(count + 0.5, size=DRAWS) * error.factors() / area_mm2
    low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)])
    return count * error.factor / area_mm2, float(low) if count else 0.0, float(high)  # as the exact limits of no count begin at 0


def score_probabilities(count: float, bounds: Sequence[float], error: DetectorError | None = None) -> list[float]:
    """How probable is each score, when score ``k`` begins at an expected count of ``bounds[k − 1]``?

    The expected count has its Gamma distribution given ``count`` (Jeffreys prior), each draw of the detector's errors scaling the bounds.

    Examples
    --------
    >>> [round(p, 2) for p in score_probabilities(10, (10, 20))]
    [0.48, 0.51, 0.01]
    """
    scale = np.ones(1) if error is None else error.factors()
    below = [float(gammainc(count + 0.5, b / scale).mean()) for b in bounds]
    edges = [0.0, *below, 1.0]
    return [max(0.0, b - a) for a, b in pairwise(edges)]
