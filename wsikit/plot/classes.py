"""Pictures of a classifier's answers: ROC and precision–recall of each class, risk at coverage, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wsikit.metrics.classification import Answers, Ranked, risk_coverage
from wsikit.plot.axes import COLOURS, axes_or_new, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def roc_by_class(answers: Answers, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """The ROC curve of each class against the rest, and of all decisions pooled (micro); classes that nobody or everybody has are left out."""
    from sklearn.metrics import roc_curve

    ax = axes_or_new(ax)
    ax.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--")
    for name, score, truth, style in _curves(answers, classes):
        x, y, _ = roc_curve(truth, score)
        ax.plot(x, y, label=f"{name} {Ranked(score, truth).roc_auc():.3f}", **style)
    ax.set(xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal", xlabel="1 − specificity", ylabel="sensitivity", title="ROC")
    return _finish(ax)


def precision_recall(answers: Answers, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Precision at each recall of each class against the rest, and pooled (micro), with the average precision."""
    from sklearn.metrics import precision_recall_curve

    ax = axes_or_new(ax)
    for name, score, truth, style in _curves(answers, classes):
        precision, recall, _ = precision_recall_curve(truth, score)
        ax.step(recall, precision, where="post", label=f"{name} {Ranked(score, truth).average_precision():.3f}", **style)
    ax.set(xlim=(0, 1.01), ylim=(0, 1.01), aspect="equal", xlabel="recall", ylabel="precision", title="Precision and recall")
    return _finish(ax)


def risk_at_coverage(answers: Answers, ax: Axes | None = None) -> Axes:
    """How often are calls wrong when only the surest share is called?"""
    coverage, risk, area = risk_coverage(answers)
    ax = axes_or_new(ax)
    ax.step(coverage, risk, where="post", color=COLOURS[0])
    ax.set(xlim=(0, 1.01), ylim=(0, 1.01), aspect="equal", xlabel="share called, surest first", ylabel="share of them wrong")
    ax.set_title(f"Risk at coverage, mean {area:.3f}", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    return note(ax)


def confusion_table(answers: Answers, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """How often was each class called each class? Rows are the truth, shaded by their share; the class with the highest probability is the call."""
    k = len(classes)
    table = np.bincount(answers.truth * k + answers.probability.argmax(1), minlength=k * k).reshape(k, k)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    ax = axes_or_new(ax)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(k, k):
        ax.text(j, i, str(table[i, j]), ha="center", va="center", fontsize=8, color="white" if share[i, j] > 0.6 else "black")
    ax.set_xticks(range(k), classes, rotation=45, ha="right")
    ax.set_yticks(range(k), classes)
    ax.set(xlabel="called", ylabel="is", title="Confusion")
    return note(ax)


def _curves(answers: Answers, classes: Sequence[str]) -> list[tuple[str, np.ndarray, np.ndarray, dict[str, Any]]]:
    one_hot = np.eye(len(classes), dtype=bool)[answers.truth]
    found: list[tuple[str, np.ndarray, np.ndarray, dict[str, Any]]] = []
    for i, c in enumerate(classes):
        if one_hot[:, i].any() and not one_hot[:, i].all():
            found.append((c, answers.probability[:, i], one_hot[:, i], {"color": COLOURS[i % (len(COLOURS) - 1)], "lw": 1.5}))
    if found:
        found.append(("micro", answers.probability.ravel(), one_hot.ravel(), {"color": "black", "lw": 1, "ls": ":"}))
    return found


def _finish(ax: Axes) -> Axes:
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=7, loc="lower right")
    ax.title.set_fontsize(10)
    return note(ax)
