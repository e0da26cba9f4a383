"""Curves, calibration, decision curves and nomograms, drawn. Everything drawn is also written as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsikit import RESEARCH_USE_ONLY
from wsikit.survival.curves import kaplan_meier, log_rank, numbers_at_risk
from wsikit.survival.follow_up import FollowUp
from wsikit.survival.groups import NAMES
from wsikit.survival.nomogram import Nomogram
from wsikit.survival.scores import Calibration, NetBenefit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"low": "#0072B2", "intermediate": "#E69F00", "high": "#D55E00"}  # Okabe & Ito's, which colour-blind eyes tell apart
_GREY = "#555555"
_CHANCES = [0.01, 0.02, *(k / 20 for k in range(1, 20)), 0.98, 0.99]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.supxlabel(RESEARCH_USE_ONLY, fontsize=7, color=_GREY)
    return figure


def save(figure: Figure, path: Path) -> None:
    """As PNG; the same numbers give the same bytes."""
    figure.savefig(path, dpi=130, metadata={"Software": None})


def draw_groups(axes: Any, follow: FollowUp, group: Sequence[str], title: str) -> None:
    """Kaplan–Meier curves of risk groups with 95 % bands and numbers at risk."""
    who = np.array(group)
    end = float(follow.time_months.max())
    ticks = np.arange(0, end, next((s for s in (1, 3, 6, 12, 24, 36, 60) if end / s <= 7), 120.0))
    names = [n for n in NAMES[3] if (who == n).any()]
    for name in names:
        mine = who == name
        curve = kaplan_meier(follow.time_months[mine], follow.event[mine])
        x = np.concatenate([[0.0], curve.time])
        axes.step(x, np.concatenate([[1.0], curve.value]), where="post", color=COLOURS[name], label=f"{name} ({int(follow.event[mine].sum())} of {mine.sum()})")
        low, high = (np.concatenate([[1.0], np.nan_to_num(v, nan=0.0)]) for v in (curve.low, curve.high))
        axes.fill_between(x, low, high, step="post", color=COLOURS[name], alpha=0.15, linewidth=0)
    found = log_rank(follow.time_months, follow.event, who)
    rows = [f"{n:>12}  " + "   ".join(f"{k:>4}" for k in numbers_at_risk(follow.time_months[who == n], ticks.tolist())) for n in names]
    axes.set(
        xlabel="months\n\nat risk at " + ", ".join(f"{t:g}" for t in ticks) + "\n" + "\n".join(rows),
        ylabel=f"without the event ({follow.endpoint})",
        ylim=(0, 1.02),
    )
    axes.set_xticks(ticks)
    axes.xaxis.label.set_family("monospace")
    axes.xaxis.label.set_size(7)
    axes.set_title(f"{title}\nlog-rank p {found.p:.2g}", fontsize=9)
    axes.legend(fontsize=7, title="events of patients", title_fontsize=7)


def draw_calibration(axes: Any, found: Calibration) -> None:
    """Predicted and observed probability in groups of patients."""
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle="--")
    for g in found.groups:
        axes.plot([g.predicted] * 2, [g.low, g.high], color="#0072B2", linewidth=1)
        axes.plot(g.predicted, g.observed, "o", color="#0072B2")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability of the event", ylabel="observed (Kaplan–Meier)", aspect="equal")
    axes.set_title(
        f"calibration at {found.months:g} months\nslope {found.slope:.2f} ({found.slope_low:.2f}–{found.slope_high:.2f}), ICI {found.ici:.3f}", fontsize=9
    )


def draw_decision(axes: Any, curves: Mapping[str, NetBenefit], months: float) -> None:
    """Net benefit of models, of treating all and of treating none."""
    first = next(iter(curves.values()))
    axes.plot(first.threshold, first.treat_all, color=_GREY, linestyle="--", linewidth=0.8, label="all")
    axes.axhline(0, color="black", linewidth=0.8, label="none")
    for (name, c), colour in zip(curves.items(), ["#D55E00", "#0072B2", "#009E73", "#CC79A7"], strict=False):
        axes.plot(c.threshold, c.model, color=colour, label=name)
    top = max(float(np.max(c.model)) for c in curves.values())
    axes.set(ylim=(-0.1, max(top, float(first.treat_all.max())) * 1.1 + 0.02), xlabel="threshold probability", ylabel="net benefit")
    axes.set_title(f"decision curve at {months:g} months", fontsize=9)
    axes.legend(fontsize=7)


def validation_picture(follow: FollowUp, group: Sequence[str], found: Calibration, curves: Mapping[str, NetBenefit], title: str) -> Figure:
    """Risk groups, calibration and decision curve side by side."""
    figure = _figure(13, 4.6)
    axes = figure.subplots(1, 3)
    draw_groups(axes[0], follow, group, title)
    draw_calibration(axes[1], found)
    draw_decision(axes[2], curves, found.months)
    return figure


def nomogram_picture(chart: Nomogram) -> Figure:
    """Points on top, a scale for each column, the total and the probability of the event below."""
    rows = len(chart.scales) + 2 + len(chart.probability)
    figure = _figure(9, 1 + 0.55 * rows)
    axes = figure.subplots()
    axes.set(xlim=(-42, 104), ylim=(-rows + 0.2, 0.9))
    axes.axis("off")
    _scale(axes, 0, "points", np.arange(0, 101, 10.0), [f"{v:g}" for v in range(0, 101, 10)])
    for i, s in enumerate(chart.scales, 1):
        order = np.argsort(s.points)
        _scale(axes, -i, s.name, s.points[order], [_short(v) for v in s.values[order]])
    totals = np.linspace(0, chart.most, 11)
    _scale(axes, -len(chart.scales) - 1, "total points", totals / chart.most * 100, [f"{v:.0f}" for v in totals])
    fine = np.linspace(0, chart.most, 2001)
    for j, (name, chance) in enumerate(chart.probability.items()):
        p = chance(fine)
        wanted = [q for q in _CHANCES if p[0] <= q <= p[-1]]
        at = np.interp(wanted, p, fine) / chart.most * 100 if wanted else np.empty(0)
        _scale(axes, -len(chart.scales) - 2 - j, f"P({chart.endpoint}), {name}", at, [f"{q:g}" for q in wanted])
    return figure


def _scale(axes: Any, y: float, name: str, at: np.ndarray, labels: Sequence[str]) -> None:
    axes.text(-41, y, name, fontsize=8, va="center")
    if not len(at):
        axes.text(0, y, "the same for all totals, or outside of 0.01–0.99", fontsize=7, va="center", color=_GREY)
        return
    axes.plot([at.min(), at.max()], [y, y], color="black", linewidth=1)
    last = -10.0
    for x, label in zip(at, labels, strict=True):
        axes.plot([x, x], [y, y + 0.12], color="black", linewidth=0.8)
        if x - last > 2.2 + 0.9 * len(label):
            axes.text(x, y + 0.16, label, fontsize=7, ha="center")
            last = x


def _short(value: float) -> str:
    return f"{round(value, 9) + 0.0:.3g}" if abs(value) < 1000 else f"{value:.0f}"
