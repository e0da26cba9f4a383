"""How good are a classifier's probabilities? One-vs-rest, macro and micro areas, agreement, calibration, risk at coverage, with intervals over patients.

Each metric takes weights of rows, so that a bootstrap draw is a vector of weights and sorting is done once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wsikit.metrics import BOOTSTRAP_DRAWS, Interval, calibration_error

MANY_ROWS, FEW_DRAWS = 50_000, 200


@dataclass(frozen=True)
class Ranked:
    """Scores in descending order, for areas under curves at any weights.

    Parameters
    ----------
    score : float (n,), higher for the class
    truth : bool (n,)
    """

    score: np.ndarray
    truth: np.ndarray

    @cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order = np.argsort(-self.score, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(self.score[order])), len(order) - 1)
        return order, ends, self.truth[order].astype(np.float64)

    def _counts(self, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives at each threshold, from the highest score."""
        order, ends, truth = self._order
        w = np.ones(len(order)) if weight is None else weight[order]
        return np.cumsum(w * truth)[ends], np.cumsum(w * (1 - truth))[ends]

    def roc_auc(self, weight: np.ndarray | None = None) -> float:
        """Area under the ROC curve, ties counted half; NaN where one side is missing.

        >>> Ranked(np.array([0.9, 0.2, 0.4]), np.array([True, False, True])).roc_auc()
        1.0
        """
        tp, fp = self._counts(weight) if len(self.score) else (np.zeros(1), np.zeros(1))
        if tp[-1] <= 0 or fp[-1] <= 0:
            return float("nan")
        tpr, fpr = np.concatenate([[0], tp / tp[-1]]), np.concatenate([[0], fp / fp[-1]])
        return float(np.trapezoid(tpr, fpr))

    def average_precision(self, weight: np.ndarray | None = None) -> float:
        """Σ (Rₙ − Rₙ₋₁) Pₙ over thresholds, as scikit-learn defines it; NaN where there is none of the class.

        >>> Ranked(np.array([0.9, 0.2, 0.4]), np.array([True, False, False])).average_precision()
        1.0
        """
        tp, fp = self._counts(weight) if len(self.score) else (np.zeros(1), np.zeros(1))
        if tp[-1] <= 0:
            return float("nan")
        said = tp + fp
        precision = np.divide(tp, said, out=np.zeros_like(tp), where=said > 0)
        return float(np.sum(np.diff(np.concatenate([[0], tp / tp[-1]])) * precision))


@dataclass(frozen=True)
class Answers:
    """What a classifier said of tiles, slides or patients whose class is known.

    Attributes
    ----------
    probability : float64 (n, K)
    truth : int64 (n,)
    patient : (n,) names, which are resampled
    site : (n,) names, empty where not told
    """

    probability: np.ndarray
    truth: np.ndarray
    patient: np.ndarray
    site: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)

    def only(self, rows: np.ndarray) -> Answers:
        """Some of them."""
        return Answers(self.probability[rows], self.truth[rows], self.patient[rows], self.site[rows])


Metric = Callable[[np.ndarray], float]


def metrics_of(answers: Answers, classes: Sequence[str]) -> dict[str, Metric]:
    """Every metric by name, as a function of the rows' weights (n,).

    ``AUROC`` and ``average precision`` of each class against the rest, their mean over classes (macro), and of all decisions pooled (micro); balanced accuracy
    over classes that occur; Cohen's kappa; the class with the highest probability is the call.
    """
    k = len(classes)
    one_hot = np.eye(k, dtype=bool)[answers.truth]
    ranked = [Ranked(answers.probability[:, i], one_hot[:, i]) for i in range(k)]
    pooled = Ranked(answers.probability.ravel(), one_hot.ravel())
    cell = answers.truth * k + answers.probability.argmax(1)
    right = answers.probability.argmax(1) == answers.truth
    squared = ((answers.probability - one_hot) ** 2).sum(1)

    def table(w: np.ndarray) -> np.ndarray:
        return np.bincount(cell, w, k * k).reshape(k, k)

    found: dict[str, Metric] = {
        "accuracy": lambda w: float(w[right].sum() / w.sum()),
        "balanced accuracy": lambda w: _balanced(table(w)),
        "kappa": lambda w: kappa(table(w)),
        "Brier score": lambda w: float((w * squared).sum() / w.sum()),
    }
    for name, area in (("AUROC", Ranked.roc_auc), ("average precision", Ranked.average_precision)):
        for c, r in zip(classes, ranked, strict=True):
            found[f"{name} {c}"] = lambda w, r=r, area=area: area(r, w)  # type: ignore[misc]
        found[f"{name} macro"] = lambda w, area=area: _mean([area(r, w) for r in ranked])  # type: ignore[misc]
        found[f"{name} micro"] = lambda w, area=area: area(pooled, np.repeat(w, k))  # type: ignore[misc]
    return found


def evaluate_answers(answers: Answers, classes: Sequence[str], draws: int = BOOTSTRAP_DRAWS, seed: int = 0) -> dict[str, Interval]:
    """Every metric of `metrics_of` with its 95 % percentile interval from resampling patients, all on the same draws; fewer draws for very many rows."""
    draws = min(draws, FEW_DRAWS) if len(answers) > MANY_ROWS else draws
    metrics = metrics_of(answers, classes)
    names, owner = np.unique(answers.patient, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in metrics}
    for _ in range(draws):
        weight = np.bincount(rng.choice(len(names), len(names)), minlength=len(names)).astype(np.float64)[owner]
        for name, metric in metrics.items():
            drawn[name].append(metric(weight))
    whole = np.ones(len(answers))
    return {name: _interval(metric(whole), np.array(drawn[name])) for name, metric in metrics.items()}


def _interval(value: float, drawn: np.ndarray) -> Interval:
    good = drawn[~np.isnan(drawn)]
    low, high = np.percentile(good, [2.5, 97.5]) if len(good) else (np.nan, np.nan)
    return Interval(value, float(low), float(high), int(len(drawn) - len(good)))


def _balanced(table: np.ndarray) -> float:
    n = table.sum(1)
    return float((table.diagonal()[n > 0] / n[n > 0]).mean()) if (n > 0).any() else float("nan")


def _mean(values: list[float]) -> float:
    return float(np.mean([v for v in values if not np.isnan(v)] or [np.nan]))


def kappa(table: np.ndarray) -> float:
    """Cohen's kappa of a table (K, K) of truth against calls: agreement beyond chance; NaN where chance explains all.

    >>> kappa(np.array([[5, 0], [0, 5]]))
    1.0
    """
    n = table.sum()
    expected = np.outer(table.sum(0), table.sum(1)) / n
    off = 1 - np.eye(len(table))
    chance = (off * expected).sum()
    return float(1 - (off * table).sum() / chance) if chance > 0 else float("nan")


def rates(truth: np.ndarray, called: np.ndarray, classes: Sequence[str]) -> list[dict[str, float | str]]:
    """Sensitivity, specificity, predictive values and numbers of each class."""
    rows: list[dict[str, float | str]] = []
    for i, c in enumerate(classes):
        is_, said = truth == i, called == i
        tp, fp, fn, tn = (int(x.sum()) for x in (is_ & said, ~is_ & said, is_ & ~said, ~is_ & ~said))
        share = {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "PPV": (tp, tp + fp), "NPV": (tn, tn + fn)}
        rows.append({"class": c, "n": tp + fn, **{k: (a / b if b else float("nan")) for k, (a, b) in share.items()}})
    return rows


def calibration_of(answers: Answers) -> dict[str, float]:
    """ECE (15 bins) of the calls, the mean of the classes' own ECEs, and negative log likelihood."""
    p, k = answers.probability, answers.probability.shape[1]
    called = p.argmax(1)
    by_class = [calibration_error(p[:, i], answers.truth == i) for i in range(k)]
    nll = -np.log(np.maximum(p[np.arange(len(p)), answers.truth], 1e-12)).mean() if len(p) else np.nan
    return {"ECE": calibration_error(p.max(1), called == answers.truth), "ECE by class": float(np.mean(by_class)), "negative log likelihood": float(nll)}


def risk_coverage(answers: Answers) -> tuple[np.ndarray, np.ndarray, float]:
    """The share of wrong calls among the surest, for each share of them: coverage (n,), risk (n,), and the mean risk (AURC; Geifman and El-Yaniv 2017).

    >>> a = Answers(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]), np.array(["p", "q"]), np.array(["", ""]))
    >>> risk_coverage(a)[1].tolist()
    [0.0, 0.5]
    """
    order = np.argsort(-answers.probability.max(1), kind="stable")
    wrong = (answers.probability.argmax(1) != answers.truth)[order]
    n = np.arange(1, len(wrong) + 1)
    risk = np.cumsum(wrong) / n
    return n / max(1, len(wrong)), risk, float(risk.mean()) if len(wrong) else float("nan")
