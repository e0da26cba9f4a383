"""What a job measured, as JSON; and from that JSON a table, plots, and RESULTS.md.

python benchmarks/report.py                    # writes RESULTS.md again from benchmarks/results/
python benchmarks/report.py result/ --plots    # the plots of results that lie elsewhere
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from runs import Measured
from verdict import GIB, Figures, Target, breakdown, roofline, wrong_pixels

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results", HERE / "RESULTS.md"
QUIET_CORES = 0.1  # more work of others than that, and speeds say little
LIBRARIES = ("imagecodecs", "tifffile", "numpy", "numba", "zarr", "zstandard", "torch", "openvino", "openslide-python", "openslide-bin", "distributed")
Json = dict[str, Any]


def facts_of_machine() -> Json:
    """What the figures were measured on, without its name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB if hasattr(os, "sysconf") else math.nan
    fast = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": model, "instructions": fast, "cores": cores, "memory_gib": round(memory, 1), "system": system, "python": platform.python_version()}


def as_json(job: str, measured: list[Measured], about: Json, targets: Callable[[Figures], list[Target]] = lambda _: []) -> Json:
    """Everything that was measured, each repetition of it, and what follows from it."""
    f = Figures(measured)
    busy = [r["others_cores"] for m in measured for r in m.runs]
    about = {"job": job, "date": time.strftime("%Y-%m-%d"), "commit": _commit()} | about | {"machine": facts_of_machine()}
    about["others_cores_median"] = float(np.median(busy)) if busy else None
    about["quiet"] = bool(busy) and about["others_cores_median"] < QUIET_CORES  # otherwise no verdict can be trusted
    about["versions"] = {"wsikit": version("wsikit"), **{name: found for name in LIBRARIES if (found := _version(name))}}
    by_core = targets(Figures(measured, per_core=True))
    verdicts = [t.to_json() | {"per_core_second": _number(c.value)} for t, c in zip(targets(f), by_core, strict=True)]
    return {"about": about, "cases": [_case(m, f) for m in measured], "targets": verdicts, "pixels_from_openslide": wrong_pixels(f)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
    return asked.stdout.strip()


def _case(m: Measured, f: Figures) -> Json:
    c = m.case
    out: Json = {"name": c.name, "stage": c.stage, "who": c.who, "cores": c.cores, "slide": c.slide, "unit": c.unit, "peer": c.peer}
    if m.absent:
        return out | {"absent": m.absent}
    rates = [_number(r) for r in m.rates]
    out |= {"rate": {"median": _number(m.rate), "min": min(m.rates), "max": max(m.rates), "all": rates}, "done": _number(m.amount(m.runs[0]))}
    out |= {"rate_per_core_second": _number(m.rate_per_core), "roofline": roofline(m, f), "ms_per_unit": breakdown(m)}
    out |= {"peak_bytes": m.most("peak_bytes"), "bytes": m.most("bytes"), "files": m.most("files")}
    return out | {"others_cores": [r["others_cores"] for r in m.runs], "facts": [r["facts"] for r in m.runs], "versions": m.runs[0]["versions"]}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.4g}")


def write_json(path: Path, facts: Json) -> None:
    """The figures as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def read_results(folder: Path = RESULTS) -> list[Json]:
    """Every job's result in a folder, by name."""
    return [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]


def markdown(facts: Json) -> str:
    """One job's table, its rooflines, where its time went, and its verdicts."""
    about = facts["about"]
    cases = facts["cases"]
    return "\n".join([f"## {about['job']}\n", _said(about), "", *_table(cases), *_rooflines(cases), *_times(cases), *_sayings(cases), *_targets(facts)])


def _said(about: Json) -> str:
    m, busy = about["machine"], about["others_cores_median"]
    quiet = "nothing else running" if about["quiet"] else "nothing was measured"
    if busy is not None and not about["quiet"]:
        quiet = f"**not quiet: other work kept {busy:.1f} cores busy, so ratios are rough and speeds mean little**"
    doubt = " A quick run: it shows that everything works; its figures mean nothing." if about.get("quick") else ""
    doubt += " It was interrupted: some cases were measured fewer times." if about.get("interrupted") else ""
    memory = f", {m['memory_gib']} GiB" if "memory_gib" in m else ""
    return f"{m['cpu']}, {m['cores']} cores{memory}, {about['date']}, commit {about['commit']}, median of {about['repeats']}; {quiet}.{doubt}"


def _table(cases: list[Json]) -> Iterator[str]:
    units = {c["unit"] for c in cases}
    one = next(iter(units)) if len(units) == 1 else ""
    yield f"| stage | who | cores | {one + '/s' if one else 'rate'} | spread | × floor | bound by | per core-s | peak GiB | MB out | files |"
    yield "|---|---|---:|---:|---|---:|---|---:|---:|---:|---:|"
    for c in cases:
        slide = " (phantom)" if c["slide"] == "phantom" and any(d["slide"] == "mosaic" for d in cases) else ""
        head = f"| {c['stage']}{slide} | {c['who']} | {c['cores']} |"
        if "absent" in c:
            yield f"{head} absent: {c['absent']} | | | | | | | |"
            continue
        r, roof = c["rate"], c["roofline"]
        said = _short(r["median"]) + ("" if one else f" {c['unit']}/s")
        out = f"{c['bytes'] / 1e6:.1f} | {c['files']} |" if c["files"] else " | |"
        reached = (f"{roof['of_roof']:.2f}", roof["bound"]) if roof else ("", "")
        spread = f"{_short(r['min'])} – {_short(r['max'])}"
        yield f"{head} {said} | {spread} | {reached[0]} | {reached[1]} | {_short(c['rate_per_core_second'])} | {c['peak_bytes'] / GIB:.2f} | {out}"


def _rooflines(cases: list[Json]) -> Iterator[str]:
    """One line a stage of ours on one core: what it takes, and what its floors take of that."""
    rows = [c for c in cases if c["cores"] == 1 and not c["peer"] and c.get("roofline")]
    if not rows:
        return
    yield "\n| roofline, one core | takes | its floors take | not explained by them |"
    yield "|---|---:|---|---:|"
    for c in rows:
        roof = c["roofline"]
        floors = ", ".join(f"{who} {s * 1e3:.3g}" for who, s in roof["floor_seconds_per_unit"].items())
        rest = 1e3 * (roof["seconds_per_unit"] - 1 / roof["roof"])
        name = f"{c['stage']}: {c['who']}" + (f", {c['slide']}" if c["slide"] else "")
        yield f"| {name} | {1e3 * roof['seconds_per_unit']:.3g} ms/{c['unit']} | {floors} | {rest:.3g} |"


def _times(cases: list[Json]) -> Iterator[str]:
    for c in cases:
        if c.get("ms_per_unit") and c["slide"] != "phantom":
            whole = sum(c["ms_per_unit"].values())
            parts = ", ".join(f"{stage} {ms:.2f} ({ms / whole:.0%})" for stage, ms in c["ms_per_unit"].items() if ms >= 0.005 * whole)
            yield f"\n{c['name']}, ms/{c['unit']} by its own clock: {parts}."


def _sayings(cases: list[Json]) -> Iterator[str]:
    """What a case found beside its rate, of its last repetition."""
    for c in cases:
        said = c["facts"][-1].get("said", {}) if "facts" in c else {}
        if said:
            yield f"\n{c['name']}: " + "; ".join(f"{k} {v}" for k, v in said.items()) + "."


def _targets(facts: Json) -> Iterator[str]:
    if facts["targets"]:
        trusted = facts["about"]["quiet"] and not facts["about"].get("quick")
        yield "\n| target | measured | |"
        yield "|---|---:|---|"
        yield from (f"| {t['what']} | {_short(t['value'])} {t['unit']} | {t['verdict']}{'' if trusted else '?'} |" for t in facts["targets"])
    different = {k: v for k, v in facts["pixels_from_openslide"].items() if v}
    if facts["pixels_from_openslide"]:
        yield f"\nPixels that differ from OpenSlide's, grey levels at most: {different or 'none'}."


def _short(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4g}"


def page(results: list[Json]) -> str:
    """RESULTS.md."""
    told = "Written by `report.py` from the JSON in `results/`. What the columns mean, and how it was measured: [Benchmarks](README.md)."
    return "\n\n".join(["# Results of the benchmarks", told, *map(markdown, results)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--plots", action="store_true", help="a PNG beside each JSON, instead of RESULTS.md")
    asked = parser.parse_args()
    results = read_results(asked.folder)
    if asked.plots:
        from pictures import draw

        for facts in results:
            draw(facts, asked.folder)
    else:
        PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
