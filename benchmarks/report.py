"""The figures as a table, as JSON and as a plot."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from cases import STAGES
from rich.console import Console
from rich.table import Table
from runs import Measured
from verdict import GIB, Figures, alone, breakdown, targets, wrong_pixels

QUIET_CORES = 0.1  # more work of others than that, and speeds say little
LIBRARIES = ("imagecodecs", "tifffile", "numpy", "numba", "zarr", "zstandard", "torch", "openslide-python", "openslide-bin")


def facts_of_machine() -> dict[str, Any]:
    """What the figures were measured on, without its name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": cores, "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}


def as_json(measured: list[Measured], about: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, each repetition of it, and what follows from it."""
    f = Figures(measured)
    busy = [r["others_cores"] for m in measured for r in m.runs]
    about = about | {"machine": facts_of_machine(), "others_cores_median": float(np.median(busy)) if busy else None}
    about["quiet"] = bool(busy) and about["others_cores_median"] < QUIET_CORES  # otherwise no verdict can be trusted
    about |= {"versions": {"wsikit": version("wsikit"), **{name: version(name) for name in LIBRARIES}}, "commit": _commit()}
    by_core = targets(Figures(measured, per_core=True), about["mosaic_megapixels"])
    verdicts = [t.to_json() | {"per_core_second": _number(c.value)} for t, c in zip(targets(f, about["mosaic_megapixels"]), by_core, strict=True)]
    cases = [_case(m, f) for m in measured]
    return {"about": about, "cases": cases, "targets": verdicts, "together": breakdown(f), "alone": alone(f), "pixels_from_openslide": wrong_pixels(f)}


def _commit() -> str:
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return asked.stdout.strip()


def _case(m: Measured, f: Figures) -> dict[str, Any]:
    case = m.case
    out: dict[str, Any] = {"name": case.name, "stage": case.stage, "who": case.who, "cores": case.cores, "slide": case.slide, "packages": list(case.packages)}
    if m.absent:
        return out | {"absent": m.absent}
    rates = [round(r, 2) for r in m.rates]
    first = m.runs[0]
    out |= {"mpx_per_s": {"median": round(m.rate, 2), "min": min(rates), "max": max(rates), "all": rates}, "mpx": round(first["px"] / 1e6, 2)}
    out["mpx_per_core_second"] = _number(m.rate_per_core)
    out |= {"of_floor": _number(m.rate / f.floor(m)), "peak_bytes": m.most("peak_bytes"), "bytes": m.most("bytes"), "files": m.most("files")}
    return out | {"others_cores": [r["others_cores"] for r in m.runs], "facts": [r["facts"] for r in m.runs], "versions": first["versions"]}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """The figures as a file."""
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def show(measured: list[Measured], facts: dict[str, Any]) -> None:
    """The table on the terminal, then the verdicts."""
    console = Console(width=None if os.isatty(1) else 160)
    f = Figures(measured)
    for slide in ("mosaic", "phantom"):
        rows = [m for m in measured if m.case.slide == slide]
        if rows:
            console.print(_table(slide, rows, f))
    console.print(_targets(facts["targets"], facts["about"]["quiet"] and not facts["about"].get("quick")))
    if facts["together"]:
        console.print(_breakdown(facts["together"]))
    different = {k: v for k, v in facts["pixels_from_openslide"].items() if v}
    console.print(f"pixels that differ from OpenSlide's, grey levels at most: {different or 'none'}")
    if not facts["about"]["quiet"]:
        busy = facts["about"]["others_cores_median"]
        console.print(f"[bold]Other work kept {busy} cores busy meanwhile (median): no figure by the clock can be trusted, ratios neither.[/bold]")
    if facts["about"].get("quick"):
        console.print("[bold]A quick run: it shows that everything works; its figures mean nothing.[/bold]")


def _table(slide: str, rows: list[Measured], f: Figures) -> Table:
    table = Table(title=f"{slide}: MPx/s, median (least – most)")
    for name in ("stage", "who", "cores", "MPx/s", "spread", "× floor", "MPx/core-s", "peak GiB", "MPx done", "MB out", "files"):
        table.add_column(name, justify="left" if name in ("stage", "who", "spread") else "right")
    for stage in STAGES:
        for m in sorted((m for m in rows if m.case.stage == stage), key=lambda m: (m.case.cores, -m.rate if m.runs else 0)):
            table.add_row(stage, m.case.who, str(m.case.cores), *(_cells(m, f) if not m.absent else (f"absent: {m.absent}",)))
        table.add_section()
    return table


def _cells(m: Measured, f: Figures) -> tuple[str, ...]:
    spread = f"{min(m.rates):.4g} – {max(m.rates):.4g}"
    out = (f"{m.most('bytes') / 1e6:.1f}", str(m.most("files"))) if m.most("files") else ("", "")
    return (
        f"{m.rate:.4g}",
        spread,
        f"{m.rate / f.floor(m):.3f}",
        _short(m.rate_per_core),
        f"{m.most('peak_bytes') / GIB:.2f}",
        f"{m.runs[0]['px'] / 1e6:.1f}",
        *out,
    )


def _short(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def _targets(found: list[dict[str, Any]], trusted: bool) -> Table:
    table = Table(title="targets")
    for name in ("target", "by the clock", "verdict", "per core-second"):
        table.add_column(name)
    for t in found:
        colour = {"reached": "green", "missed": "red"}.get(t["verdict"], "yellow")
        verdict = f"[{colour}]{t['verdict']}[/{colour}]" if trusted else f"{t['verdict']}?"
        table.add_row(t["what"], f"{_short(t['value'])} {t['unit']}", verdict, _short(t["per_core_second"]))
    return table


def _breakdown(found: dict[str, Any]) -> Table:
    table = Table(title=f"slide → Zarr on one core: ms per megapixel (decode floor {found['decode_floor']}); the bottleneck is {found['bottleneck']}")
    for name in ("stage", "ms/MPx", "share", "times the decode floor"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage, ms in found["ms_per_mpx"].items():
        table.add_row(stage, f"{ms:.2f}", f"{ms / found['whole']:.0%}", f"{ms / found['decode_floor']:.2f}")
    return table


def plot(path: Path, measured: list[Measured], facts: dict[str, Any]) -> None:
    """Bars by stage, a dot a repetition, the decode floor as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    f = Figures(measured)
    most = f.cores
    stages = [s for s in STAGES if any(m.case.stage == s and m.runs for m in measured)]
    shown = {s: [m for m in measured if m.case.stage == s and m.runs and m.case.slide == "mosaic" and m.case.cores in (1, most)] for s in stages}
    figure, axes = plt.subplots(len(stages), 1, figsize=(10, 0.3 * sum(map(len, shown.values())) + len(stages)), sharex=True, layout="constrained",
                                height_ratios=[max(1, len(v)) for v in shown.values()], squeeze=False)  # fmt: skip
    for axis, stage in zip(axes[:, 0], stages, strict=True):
        rows = sorted(shown[stage], key=lambda m: (m.case.cores, m.rate))
        colours = ["#1f77b4" if m.case.who.startswith(("wsikit", "imagecodecs")) else "#b0b0b0" for m in rows]
        axis.barh([f"{m.case.who} · {m.case.cores}" for m in rows], [m.rate for m in rows], color=colours)
        for y, m in enumerate(rows):
            axis.plot(m.rates, [y] * len(m.rates), "k.", markersize=3)
            axis.annotate(f" {m.rate:.3g}", (m.rate, y), va="center", fontsize=8)
        for cores, style in {1: "--", most: ":"}.items():
            axis.axvline(f.rate("decode floor", "imagecodecs", cores), color="#d62728", linestyle=style, linewidth=1)
        axis.set_title(stage, loc="left", fontsize=10)
        axis.set_xscale("log")
        axis.tick_params(labelsize=8)
    axes[-1, 0].set_xlabel("level-0 megapixels per second (· cores; red: decode floor of one core, and of all)")
    figure.suptitle(f"{facts['about']['machine']['cpu']}, median of {facts['about']['repeats']}", fontsize=10)
    figure.savefig(path, dpi=110)
