"""A model on top as something that a person can read: points to add up, and a formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wsikit.survival.recipe import Model

POINTS = 100.0


@dataclass(frozen=True)
class Scale:
    """One line of a nomogram: a column, some of its values (on its own scale), and the points of each."""

    name: str
    values: np.ndarray
    points: np.ndarray
    log1p: bool = False


@dataclass(frozen=True)
class Nomogram:
    """Points of each column add up to a total; ``probability`` takes totals to the probability of the event, for each horizon.

    The column that matters most, over the range of the training patients, has 100 points; no points are negative.
    """

    endpoint: str
    scales: list[Scale]
    per_point: float
    at_zero: float
    probability: dict[str, Callable[[np.ndarray], np.ndarray]]

    @property
    def most(self) -> float:
        """The highest total."""
        return float(sum(s.points.max() for s in self.scales))

    def risk(self, total: np.ndarray) -> np.ndarray:
        """Log hazard (or odds) ratio to the mean training patient, of totals."""
        return np.asarray(self.at_zero + total * self.per_point)


def nomogram(model: Model, z: np.ndarray, horizons: Sequence[float], endpoint: str, log1p: Sequence[str] = ()) -> Nomogram:
    """The nomogram of a model: points = 100 · β · (x − best x) / the largest β · range (Iasonos et al., JCO 2008).

    Parameters
    ----------
    z : float64 (n, F), the standardised columns of the training patients, whose ranges the scales have
    """
    low, high, beta = z.min(0), z.max(0), model.top.beta
    reach = np.abs(beta) * (high - low)
    per_point = float(reach.max()) / POINTS or 1.0
    best = np.where(beta >= 0, low, high)
    scales = []
    for i, name in enumerate(model.names):
        kinds = np.unique(z[:, i])
        at = kinds if len(kinds) <= 2 else np.linspace(low[i], high[i], 6)
        values = at * model.sd[i] + model.mean[i]
        scales.append(Scale(name, np.expm1(values) if name in log1p else values, beta[i] * (at - best[i]) / per_point, name in log1p))
    at_zero = float((beta * best).sum())

    def chance(months: float) -> Callable[[np.ndarray], np.ndarray]:
        def of(total: np.ndarray) -> np.ndarray:
            risk = at_zero + np.atleast_1d(total) * per_point
            unit = beta / float(beta @ beta) if beta.any() else beta
            return np.asarray(1 - model.top.survival(np.outer(risk, unit), np.array([months]))[:, 0])

        return of

    names = {f"{m:g} months": chance(m) for m in horizons} if endpoint and len(horizons) else {"yes": chance(1.0)}
    return Nomogram(endpoint, scales, per_point, at_zero, names)


def formula(model: Model, horizons: Sequence[float], log1p: Sequence[str] = ()) -> str:
    """The same model in letters and numbers, on the columns' own scales."""
    terms = []
    for name, beta, mean, sd in zip(model.names, model.top.beta, model.mean, model.sd, strict=True):
        x = f"log(1 + {name})" if name in log1p else name
        terms.append(f"{beta / sd:+.6g} · ({x} − {mean:.6g})")
    lines = ["risk = " + " ".join(terms)]
    zero = np.zeros((1, len(model.names)))
    if hasattr(model.top, "intercept"):
        return "\n".join([*lines, f"P(yes) = 1 / (1 + exp(−({model.top.intercept:.6g} + risk)))"])
    lines += [f"P(no event by {m:g} months) = {float(model.top.survival(zero, np.array([m]))[0, 0]):.6g} ^ exp(risk)" for m in horizons]
    return "\n".join(lines)
