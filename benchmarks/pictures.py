"""Plots of a job's JSON: how fast everything is, and how far each stage is from its floors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen

Json = dict[str, Any]
OURS, THEIRS, FLOOR = "#1f77b4", "#b0b0b0", "#d62728"
FLOOR_COLOURS = ("#d62728", "#ff9896", "#e7ba52", "#8c6d31", "#9467bd", "#c5b0d5")


def draw(facts: Json, folder: Path) -> list[Path]:
    """``<job>.png``, and ``<job>-roofline.png`` where there are floors; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    job = facts["about"]["job"]
    shown = [c for c in facts["cases"] if "rate" in c]
    written = []
    first = memory if job == "memory" else rates
    for name, figure in ((f"{job}.png", first(shown, facts["about"])), (f"{job}-roofline.png", rooflines(shown, facts["about"]))):
        if figure is not None:
            figure.savefig(folder / name, dpi=100)
            plt.close(figure)
            written.append(folder / name)
    return written


def rates(cases: list[Json], about: Json) -> Any:
    """Bars by stage, a dot a repetition, a red line where the floors leave the roof."""
    by_stage: dict[str, list[Json]] = {}
    for c in sorted(cases, key=lambda c: (c["cores"], c["rate"]["median"])):
        if c["slide"] != "phantom" or not any(d["slide"] == "mosaic" for d in cases):
            by_stage.setdefault(f"{c['stage']}, {c['unit']}/s", []).append(c)
    by_stage = {s: by_stage[s] for s in dict.fromkeys(f"{c['stage']}, {c['unit']}/s" for c in cases) if s in by_stage}
    if not by_stage:
        return None
    heights = [len(v) + 1 for v in by_stage.values()]
    size = (10, 0.27 * sum(heights) + 0.55 * len(by_stage) + 0.6)
    figure, axes = plt.subplots(len(by_stage), 1, figsize=size, layout="constrained", height_ratios=heights, squeeze=False)
    for axis, (title, rows) in zip(axes[:, 0], by_stage.items(), strict=True):
        _bars(axis, rows)
        axis.set_title(title, loc="left", fontsize=10)
    figure.suptitle(_caption(about), fontsize=9)
    return figure


def memory(cases: list[Json], about: Json) -> Any:
    """The most memory that each case held, in GiB."""
    figure, axis = plt.subplots(figsize=(10, 0.3 * len(cases) + 1), layout="constrained")
    bars = axis.barh([c["name"] for c in reversed(cases)], [c["peak_bytes"] / 2**30 for c in reversed(cases)], color=OURS, height=0.7)
    axis.bar_label(bars, fmt=" %.2f GiB", fontsize=8)
    axis.margins(x=0.12)
    axis.tick_params(labelsize=8)
    figure.suptitle(_caption(about), fontsize=9)
    return figure


def _bars(axis: Any, rows: list[Json]) -> None:
    colours = [THEIRS if c["peer"] else FLOOR if c["stage"] == "floor" else OURS for c in rows]
    axis.barh([f"{c['who']} · {c['cores']}" for c in rows], [c["rate"]["median"] for c in rows], color=colours, height=0.7)
    for y, c in enumerate(rows):
        axis.plot(c["rate"]["all"], [y] * len(c["rate"]["all"]), "k.", markersize=3)
        axis.annotate(f" {c['rate']['median']:.3g}", (c["rate"]["max"], y), va="center", fontsize=8)
        if c["roofline"]:
            axis.plot([c["roofline"]["roof"]] * 2, [y - 0.4, y + 0.4], color=FLOOR, linewidth=2)
    values = [c["rate"]["median"] for c in rows]
    if max(values) > 30 * min(values):
        axis.set_xscale("log")
    axis.margins(x=0.12)
    axis.tick_params(labelsize=8)


def rooflines(cases: list[Json], about: Json) -> Any:
    """What our stages take on one core, as multiples of their floors: the floors stacked, and what is beyond them."""
    rows = [c for c in cases if c["cores"] == 1 and not c["peer"] and c["roofline"]]
    if not rows:
        return None
    figure, axis = plt.subplots(figsize=(10, 0.42 * len(rows) + 1.6), layout="constrained")
    names = list(dict.fromkeys(who for c in rows for who in c["roofline"]["floor_seconds_per_unit"]))
    colour = dict(zip(names, _cycled(len(names)), strict=True))
    for y, c in enumerate(reversed(rows)):
        _stack(axis, y, c["roofline"], colour)
    axis.set_yticks(range(len(rows)), [_label(c) for c in reversed(rows)], fontsize=8)
    axis.margins(x=0.1)
    axis.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axis.set_xlabel("time, in multiples of what the floors leave (1 cannot be beaten)", fontsize=9)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour[n]) for n in names] + [plt.Rectangle((0, 0), 1, 1, color=OURS)]
    figure.legend(handles, [*names, "beyond the floors"], fontsize=8, loc="outside lower center", ncols=4)
    figure.suptitle(_caption(about), fontsize=9)
    return figure


def _stack(axis: Any, y: int, roof: Json, colour: dict[str, str]) -> None:
    """Floors of the disk are drawn thin below: they pass while the processor works."""
    unit, left = 1 / roof["roof"], 0.0
    for who, seconds in roof["floor_seconds_per_unit"].items():
        disk = who.startswith("disk")
        axis.barh(y - 0.38 * disk, seconds / unit, left=0 if disk else left, height=0.12 if disk else 0.6, color=colour[who])
        left += 0 if disk else seconds / unit
    whole = roof["seconds_per_unit"] / unit
    axis.barh(y, max(0.0, whole - left), left=left, height=0.6, color=OURS, alpha=0.55)
    axis.annotate(f" {whole:.2f} ×", (max(whole, left), y), va="center", fontsize=8)


def _label(c: Json) -> str:
    return f"{c['stage']}: {c['who']}" + (f" ({c['slide']})" if c["slide"] == "phantom" else "")


def _cycled(n: int) -> Iterable[str]:
    return [FLOOR_COLOURS[i % len(FLOOR_COLOURS)] for i in range(n)]


def _caption(about: Json) -> str:
    busy = "" if about["quiet"] else f" · NOT QUIET: others kept {about['others_cores_median']:.1f} cores busy"
    return f"{about['job']} · {about['machine']['cpu']}, {about['date']}, commit {about['commit']}, median of {about['repeats']} (who · cores){busy}"
