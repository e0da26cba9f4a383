"""One self-contained HTML page per slide and one for the run. Everything from outside is escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from wsikit import RESEARCH_USE_ONLY
from wsikit.errors import StoreError, StoreMismatchError
from wsikit.report.pictures import curve_picture, hotspot_picture, top_tiles
from wsikit.report.summary import distribution, throughput
from wsikit.store import open_store
from wsikit.store.durable import write_atomic

FLAGS = {
    "insufficient_area": "less tissue than was asked for", "partial": "less than 80 % of it is tissue", "rescaled": "scaled up to the rule's area",
    "borderline": "its interval reaches another score", "minimum": "a biopsy: at least this",
}  # fmt: skip
SHAPES = {"square": "window", "4:3": "4:3 window", "circle": "circle", "fields": "consecutive fields"}


def write_reports(folder: Path) -> Path:
    """Write ``reports/`` of a run; returns the run's page.

    Raises
    ------
    StoreMismatchError
        The folder holds no run with results.
    OutputError
        It cannot be written.
    """
    results = [json.loads(p.read_bytes()) for p in sorted((folder / "slides").glob("*.json"))]
    if not (folder / "run.json").exists() or not results:
        raise StoreMismatchError(f"{folder}: no results of a wsikit run here; give the folder that wsikit score wrote with -o")
    run = json.loads((folder / "run.json").read_bytes())
    place = {case["slide_id"]: i for i, case in enumerate(run["job"]["slides"])}
    results.sort(key=lambda r: place.get(r["slide_id"], len(place)))  # as in slides.csv
    pages = Environment(loader=PackageLoader("wsikit.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.globals.update(statement=RESEARCH_USE_ONLY, answer=answer, brief=brief, grading=grading, reviewed=reviewed)
    out = folder / "reports"
    for result in results:
        picture = folder / "slides" / f"{result['slide_id']}.png"
        image = base64.b64encode(picture.read_bytes()).decode() if picture.exists() else ""
        curves = {name: curve for name, r in result["pipelines"].items() if (curve := curve_picture(name, r)) is not None}
        html = pages.get_template("slide.html").render(r=result, image=image, curves=curves, **_pictures(folder, result))
        write_atomic(out / f"{result['slide_id']}.html", html.encode())
    index = out / "index.html"
    answers = {name: distribution(name, results) for name in run["job"]["models"]}
    write_atomic(index, pages.get_template("run.html").render(run=run, results=results, answers=answers, facts=throughput(run, results)).encode())
    return index


def _pictures(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """The hotspot and the tiles of each pipeline, and why there are none where the store cannot be read."""
    found: dict[str, Any] = {"hotspots": {}, "tiles": {}, "missing": ""}
    path = folder / "slides" / f"{result['slide_id']}.zarr"
    if result["status"] != "ok" or not path.exists():
        return found
    try:
        store = open_store(path)
        for name, answered in result["pipelines"].items():
            if (spot := hotspot_picture(store, name, answered)) is not None:
                found["hotspots"][name] = spot
            if tiles := top_tiles(store, answered):
                found["tiles"][name] = tiles
    except (StoreError, KeyError, ValueError) as e:
        found["missing"] = " ".join(str(e).split())
    return found


def answer(r: Mapping[str, Any]) -> str:
    """A pipeline's answer in words, with its doubt."""
    if r["status"] != "ok":
        return f"{r['status']}: {r['reason']}"
    return _given(r) + (f"; on a slide that was enlarged {r['enlarged']:g} × for this model" if "enlarged" in r else "")


def brief(r: Mapping[str, Any]) -> str:
    """The same for a table of many slides: of an answer that is withheld, why, and not what to do about it."""
    return answer(r) if r["status"] == "ok" else answer(r).partition("; ")[0]


def _given(r: Mapping[str, Any]) -> str:
    if "call" in r:
        p = ", ".join(f"{c} {v:.2f}" for c, v in sorted(r["probability"].items(), key=lambda kv: -kv[1]))
        alone = f"; alone at {100 * r['coverage']:.0f} % coverage" if "coverage" in r else ""
        strange = f"; {100 * r['outlying']:.0f} % of tiles unlike any known" if "outlying" in r else ""
        return f"{r['call']} (doubt {r['doubt']:.2f}, {r['n_tiles']} tiles; among these only: {p}{alone}{strange})"
    if "count" in r:
        h = r["hotspot"]
        flags = "".join(f"; {FLAGS[f]}" for f in h["flags"])
        return (
            f"{r['count']} mitoses in {r['area_mm2']:.2f} mm², {r['per_mm2']:.1f}/mm² (95 % {r['low']:.1f}–{r['high']:.1f}); "
            f"densest {SHAPES.get(h.get('shape', 'square'), h.get('shape'))}: {h['count']} in {h['tissue_mm2']:.2f} mm² of tissue, "
            f"{h['per_mm2']:.1f}/mm² ({h['low']:.1f}–{h['high']:.1f}){flags}{_chance(h)}{_near(r)}{_corrected(r)}{_left_out(r)}"
        )
    if "region_mm2" in r:
        return f"{r['region']} {r['region_mm2']:.2f} mm², {r['share']:.0%} of the tissue"
    group = f"{r['group']} group (cut at the {r['cutoff_origin']})" if "cutoff_origin" in r else f"{r['group']} group"
    if "event_probability" in r:
        low, high = r["event_probability_interval"]
        return f"{r['endpoint']}: probability {r['event_probability']:.2f} (95 % {low:.2f}–{high:.2f}), {group}"
    between = {t: f" (95 % {low:.2f}–{high:.2f})" for t, (low, high) in r.get("survival_interval", {}).items()}
    survival = ", ".join(f"{p:.2f}{between.get(t, '')} at {t}" for t, p in r["survival"].items())
    return f"log hazard ratio {r['risk']:.2f} to the mean training patient, {group}; without {r['endpoint']}: {survival}"


def grading(r: Mapping[str, Any]) -> list[str]:
    """Published scores of a mitotic count in words, each with the probability of every score and the rule; none where the run asked for none."""
    said = []
    for g in (r.get("grading") or {}).values():
        if g["status"] == "ok":
            p = ", ".join(f"{score}: {v:.2f}" for score, v in g["probability"].items())
            flags = "".join(f"; {FLAGS[f]}" for f in g["flags"])
            assumed = "".join(f"; assumes {a}" for a in g["assumes"])
            told = f"{g['score']} ({p}; {g['count_in_area']:.4g} in {_area(g)}{flags}){assumed}"
        else:
            told = f"{g['status'].replace('_', ' ')}, {g['reason']}"
        said.append(f"{g['title']}: {told}. {g['rule']}; {g['component']}.")
    return said


def _area(g: Mapping[str, Any]) -> str:
    """What a score was counted in."""
    shape = g["window"].get("shape", "square")
    return f"{g['area_mm2']} mm²" + ("" if shape == "square" else f" as {SHAPES[shape]}")


def reviewed(r: Mapping[str, Any]) -> str:
    """What people made of a pipeline's answer, in words."""
    parts = []
    if said := r.get("verdict"):
        of = f" (the model said {said['model_call']})" if said["model_call"] and said["model_call"] != said["call"] else ""
        comment = f": {said['comment']}" if said["comment"] else ""
        parts.append(f"{said['verdict']} as {said['call']}{of} by {said['by']}, {said['time']}{comment}")
    if people := r.get("people"):
        told = f"{people['confirmed']} confirmed, {people['rejected']} rejected, {people['added']} added, {people['not_looked_at']} not looked at"
        parts.append(f"{answer(r)} – {told}")
    if not parts:
        parts.append(answer(r))
    return "; ".join(parts)


def _chance(h: Mapping[str, Any]) -> str:
    if not (c := h.get("chance")):
        return ""
    return f"; scattered at random the densest would hold {c['expected']:.0f} (95 % up to {c['high']}; as many in {c['share_as_high']:.1%} of draws)"


def _near(r: Mapping[str, Any]) -> str:
    n = r.get("near_threshold")
    if not n or not (n["counted"] or n["not_counted"]):
        return ""
    more = "" if n["not_counted"] is None else f" and {n['not_counted']} that are not counted"
    return f"; {n['counted']} that are counted{more} score within {n['within']:g} of the model's threshold"


def _left_out(r: Mapping[str, Any]) -> str:
    found = r.get("left_out", {})
    if not found.get("blurred_mm2"):
        return ""
    there = f" with {n} more detections" if (n := found.get("blurred_detections")) else ""
    return f"; {found['blurred_mm2']:.2f} mm² of blurred tissue{there} left out"


def _corrected(r: Mapping[str, Any]) -> str:
    c = r.get("corrected")
    if not c:
        return ""
    slide, f = c["slide"], c["from"]
    return (
        f"; with the detector's errors on its validation data ({f['tp']} right, {f['fp']} false, {f['fn']} missed) "
        f"{slide['per_mm2']:.1f}/mm² on the slide ({slide['low']:.1f}–{slide['high']:.1f})"
    )
