"""Pictures of how good or how long: Kaplan–Meier curves, reliability, ROC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from wsikit.errors import UsageError
from wsikit.metrics import bootstrap
from wsikit.plot.axes import COLOURS, axes_or_new, note
from wsikit.survival.curves import kaplan_meier as estimate
from wsikit.survival.curves import log_rank, numbers_at_risk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike


def kaplan_meier(time: ArrayLike, event: ArrayLike, ax: Axes | None = None, *, group: Sequence[str] | None = None, unit: str = "months") -> Axes:
    """What share of patients is without the event after some time, in each group?

    Steps with their 95 % log(−log) band, a tick where somebody is censored, the numbers at risk below; with groups the log-rank p-value.

    Parameters
    ----------
    time : (n,), from the start of follow-up to the event or the last contact
    event : (n,), whether it was the event
    group : of each patient

    Raises
    ------
    UsageError
        Lengths differ, nobody is left, or a time is negative or not a number.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("agg")
    >>> kaplan_meier([6, 12, 30], [True, False, True]).get_ylabel()
    'without the event'
    """
    t, e = np.asarray(time, np.float64), np.asarray(event).astype(bool)
    names = np.asarray(["all"] * len(t) if group is None else group).astype(str)
    _require(len(t) == len(e) == len(names) > 0, f"{len(t)} times, {len(e)} events and {len(names)} groups: as many of each are needed, and at least one")
    _require(np.isfinite(t).all() and (t >= 0).all(), "times must be numbers of 0 or more; leave out patients without follow-up")
    ax = axes_or_new(ax)
    order = list(dict.fromkeys(names))
    for i, name in enumerate(order):
        _curve(ax, t[names == name], e[names == name], COLOURS[i % len(COLOURS)], name)
    ax.set(xlim=(0, t.max() * 1.02 or 1), ylim=(0, 1.02), xlabel=unit, ylabel="without the event")
    if len(order) > 1:
        p = log_rank(t, e, names).p
        ax.legend(title="log-rank p < 0.001" if p < 0.001 else f"log-rank p = {p:.3f}", frameon=False)
    _at_risk(ax, [(name, t[names == name]) for name in order])
    ax.spines[["top", "right"]].set_visible(False)
    return note(ax)


def reliability(probability: ArrayLike, correct: ArrayLike, ax: Axes | None = None, *, bins: int = 10) -> Axes:
    """When the model says 80 %, is it right in 80 %? Share that is right against the mean probability, in bins of equal width.

    Bars are Wilson's 95 % intervals of the share; the circles' areas are the cases in a bin. ECE = Σ n_b/n · |right_b − mean_b| (Guo et al., ICML 2017).

    Parameters
    ----------
    probability : (n,), of the called class
    correct : (n,), whether the call was right

    Raises
    ------
    UsageError
        Lengths differ, nothing is given, or a probability is outside 0–1.

    Examples
    --------
    >>> reliability([0.9, 0.8], [True, False]).get_title()
    'ECE 0.450, n = 2'
    """
    p, right = np.asarray(probability, np.float64), np.asarray(correct).astype(bool)
    _require(len(p) == len(right) > 0, f"{len(p)} probabilities and {len(right)} answers: as many of each are needed, and at least one")
    _require(((p >= 0) & (p <= 1)).all(), "probabilities must lie between 0 and 1")
    at = np.minimum((p * bins).astype(int), bins - 1)
    n = np.bincount(at, minlength=bins)
    seen = n > 0
    n, mean, share = n[seen], np.bincount(at, p, bins)[seen] / n[seen], np.bincount(at, right, bins)[seen] / n[seen]
    low, high = wilson(share, n)
    ax = axes_or_new(ax)
    ax.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--", label="right as often as said")
    ax.errorbar(mean, share, [share - low, high - share], fmt="none", ecolor=COLOURS[0], capsize=3)
    ax.scatter(mean, share, s=20 + 180 * n / n.max(), color=COLOURS[0], zorder=3)
    ece = float((n / n.sum() * np.abs(share - mean)).sum())
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="probability of the call", ylabel="share that is right")
    ax.set_title(f"ECE {ece:.3f}, n = {n.sum()}", fontsize=10)
    ax.legend(frameon=False, loc="upper left")
    return note(ax)


def roc(score: ArrayLike, truth: ArrayLike, ax: Axes | None = None, *, patient: Sequence[str] | None = None, label: str = "") -> Axes:
    """How many true ones are found at the price of how many false ones? Draw several models by giving the axes back.

    The area has a 95 % interval from resampling patients (rows, where none are given).

    Parameters
    ----------
    score : (n,), higher for the class
    truth : (n,), whether it is the class
    patient : of each row
    label : of this curve in the legend

    Raises
    ------
    UsageError
        Lengths differ, a score is not a number, or only one of the two classes is there.

    Examples
    --------
    >>> roc([0.9, 0.2, 0.4], [True, False, True]).get_ylabel()
    'sensitivity'
    """
    from sklearn.metrics import roc_curve

    s, y = np.asarray(score, np.float64), np.asarray(truth).astype(bool)
    rows = [str(i) for i in range(len(s))] if patient is None else list(patient)
    _require(len(s) == len(y) == len(rows), f"{len(s)} scores, {len(y)} truths and {len(rows)} patients: as many of each are needed")
    _require(np.isfinite(s).all(), "scores must be numbers; leave out cases without an answer, and say how many they were")
    _require(y.any() and not y.all(), "an ROC curve needs cases of the class and others")
    area = bootstrap(lambda i: roc_area(s[i], y[i]), rows)
    fpr, tpr, _ = roc_curve(y, s)
    ax = axes_or_new(ax)
    if not ax.lines:
        ax.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--")
    name = f"{label}: " if label else ""
    ax.plot(
        fpr, tpr, color=COLOURS[(len(ax.lines) - 1) % len(COLOURS)], lw=1.8, label=f"{name}AUC {area.value:.3f} ({area.low:.3f}–{area.high:.3f}), n = {len(s)}"
    )
    ax.set(xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal", xlabel="1 − specificity", ylabel="sensitivity")
    ax.legend(frameon=False, loc="lower right", fontsize=8)
    return note(ax)


def roc_area(score: np.ndarray, truth: np.ndarray) -> float:
    """How often does a case of the class score higher than another? Ties count half (Hanley & McNeil, Radiology 1982); NaN where one class is missing.

    >>> roc_area(np.array([0.9, 0.2, 0.4]), np.array([True, False, True]))
    1.0
    """
    n, m = int(truth.sum()), int((~truth).sum())
    return float((rankdata(score)[truth].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def wilson(share: np.ndarray, n: np.ndarray, z: float = 1.959963984540054) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of shares (K,) among n (K,): low and high (Wilson, JASA 1927).

    >>> [round(float(v[0]), 4) for v in wilson(np.array([0.0]), np.array([10]))]
    [0.0, 0.2775]
    """
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)  # rounding may put a share of 1 beyond its own limit


def _curve(ax: Axes, time: np.ndarray, event: np.ndarray, colour: str, name: str) -> None:
    curve = estimate(time, event)
    x = np.concatenate([[0.0], curve.time])
    ax.step(x, np.concatenate([[1.0], curve.value]), where="post", color=colour, lw=1.8, label=f"{name} (n = {len(time)}, {event.sum()} events)")
    low, high = (np.concatenate([[1.0], v]) for v in (curve.low, curve.high))
    ax.fill_between(x, low, high, step="post", color=colour, alpha=0.15, lw=0)
    censored = np.unique(time[~event])
    ax.plot(censored, curve.at(censored), "|", color=colour, ms=7)


def _at_risk(ax: Axes, groups: list[tuple[str, np.ndarray]]) -> None:
    """The numbers at risk at the ticks of the time axis, a row a group."""
    ticks = [float(t) for t in ax.get_xticks() if 0 <= t <= ax.get_xlim()[1]]
    ax.set_xticks(ticks)
    lines = ["\n".join(["", *(f"{numbers_at_risk(t, [tick])[0]}" for _, t in groups)]) for tick in ticks]
    ax.set_xticklabels([f"{tick:g}{line}" for tick, line in zip(ticks, lines, strict=True)])
    names = "\n".join(["", *(f"{name} at risk" for name, _ in groups)])
    ax.annotate(names, (0, 0), (-28, -5.5), "axes fraction", "offset points", ha="right", va="top", fontsize=ax.get_xticklabels()[0].get_fontsize())


def _require(holds: bool | np.bool, otherwise: str) -> None:
    if not holds:
        raise UsageError(otherwise)
