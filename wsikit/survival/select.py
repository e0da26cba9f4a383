"""Which of many features? Chosen from training patients only: mRMR, and the LASSO. Standardised columns in, indices out."""

from __future__ import annotations

import numpy as np

from wsikit.survival.cox import gradient, partial_log_likelihood
from wsikit.survival.follow_up import FollowUp


def relevance(z: np.ndarray, follow: FollowUp) -> np.ndarray:
    """How strongly does each column go with the hazard? The score test's |z| at β = 0 (a log-rank test for trend): float64 (F,)."""
    order = np.argsort(-follow.time_months, kind="stable")
    n = np.arange(1, len(order) + 1)[:, None]
    mean, square = np.cumsum(z[order], 0) / n, np.cumsum(z[order] ** 2, 0) / n
    last = np.searchsorted(-follow.time_months[order], -follow.time_months[follow.event], side="right") - 1
    information = (square - mean**2)[last].sum(0)
    return np.asarray(np.abs(gradient(np.zeros(len(z)), z, follow)) / np.sqrt(np.maximum(information, 1e-12)))


def mrmr(z: np.ndarray, follow: FollowUp, most: int) -> np.ndarray:
    """Up to ``most`` columns, each the best of relevance less mean redundancy with those before it (Ding & Peng 2005): int64 (K,), best first.

    Relevance is the score test's |z| over the largest; redundancy the absolute rank correlation.
    """
    score = relevance(z, follow)
    score = score / max(float(score.max()), 1e-12)
    from scipy.stats import rankdata  # takes a quarter of a second to load, which no other verb needs

    ranks = np.apply_along_axis(rankdata, 0, z)
    with np.errstate(invalid="ignore"):
        redundancy = np.nan_to_num(np.abs(np.atleast_2d(np.corrcoef(ranks.T))))
    chosen = [int(score.argmax())]
    while len(chosen) < min(most, z.shape[1]):
        merit = score - redundancy[:, chosen].mean(1)
        merit[chosen] = -np.inf
        chosen.append(int(merit.argmax()))
    return np.array(chosen, np.int64)


def lasso_path(z: np.ndarray, follow: FollowUp, penalties: np.ndarray, steps: int = 500) -> np.ndarray:
    """Cox coefficients with λ · Σ|β| taken from the mean log likelihood, for each λ: float64 (L, F), exactly 0 where not chosen.

    Accelerated proximal gradient (Beck & Teboulle 2009) from one λ to the next; Breslow's ties.
    """
    n = len(z)
    step = n / max(float(np.linalg.norm(z, 2) ** 2), 1e-12)
    out, beta = [], np.zeros(z.shape[1])
    for penalty in penalties:
        at, momentum = beta.copy(), 1.0
        for _ in range(steps):
            moved = at + step * gradient(z @ at, z, follow) / n
            new = np.sign(moved) * np.maximum(np.abs(moved) - step * penalty, 0)
            after = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            at = new + (momentum - 1) / after * (new - beta)
            done = float(np.abs(new - beta).max()) < 1e-7
            beta, momentum = new, after
            if done:
                break
        out.append(beta)
    return np.array(out)


def lasso(z: np.ndarray, follow: FollowUp, folds: np.ndarray, n_penalties: int = 20) -> np.ndarray:
    """The columns that remain at the largest λ within one standard error of the best cross-validated likelihood; int64, at least the first to enter.

    ``folds`` int64 (n,)
    """
    n = len(z)
    largest = float(np.abs(gradient(np.zeros(n), z, follow)).max()) / n
    penalties = largest * np.geomspace(1, 0.03, n_penalties)
    gains = np.array([_gain(z, follow, np.flatnonzero(folds != k), penalties) for k in np.unique(folds)])
    mean, error = gains.mean(0), gains.std(0, ddof=1) / np.sqrt(len(gains))
    best = int(mean.argmax())
    chosen = int(np.flatnonzero(mean >= mean[best] - error[best])[0])
    path = lasso_path(z, follow, penalties)
    kept = np.flatnonzero(path[chosen])
    first = next((row for row in path if row.any()), path[-1])
    return np.asarray(kept if len(kept) else np.flatnonzero(first), np.int64)


def _gain(z: np.ndarray, follow: FollowUp, inside: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    path = lasso_path(z[inside], follow.take(inside), penalties)
    return np.array([partial_log_likelihood(z @ b, follow) - partial_log_likelihood(z[inside] @ b, follow.take(inside)) for b in path])
