"""``slides.csv`` and ``patients.csv``: what a run found, one row each, rewritten whole as slides finish."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsikit.errors import DamagedStoreError
from wsikit.models import RISK_PIPELINE, Card
from wsikit.run.cases import Case
from wsikit.run.job import Job
from wsikit.run.patients import facts_of, patient_pipelines, reviewed_patient
from wsikit.store.durable import write_atomic
from wsikit.store.receipts import digests

TABLES = ("slides.csv", "patients.csv")
SLIDE_COLUMNS = (
    *("slide_id", "path", "status", "reason", "reader", "mpp", "mpp_y", "mpp_source", "sha256"),
    *("tissue_mm2", "n_tiles", "pen_share", "fold_share", "blurred_share", "missing_tiles", "damaged_share"),
)
FORMULA = ("=", "+", "-", "@", "\t")  # how a cell begins that a spreadsheet would compute
_COUNT_FIELDS = ("count", "area_mm2", "per_mm2", "low", "high")
_RISK_FIELDS = ("risk", "group")
_TABLES_NEED = {"slide_id", "status", "reason", "tissue_mm2", "n_tiles", "quality", "pipelines", "review", "survival_inputs"}
_TABLES_NEED_OF_SLIDE = {"reader", "mpp", "mpp_source", "digest", "missing_tiles", "phantom"}
_REGION_FIELDS = ("region_mm2", "share")


class Packed(Mapping[str, dict[str, Any]]):
    """What the tables need of many slides' results, by id, in some hundred bytes each: text, parsed when it is asked for."""

    def __init__(self) -> None:
        self._text: dict[str, bytes] = {}

    def add(self, slide_id: str, result: Mapping[str, Any]) -> None:
        """Keep of a result what the tables need."""
        kept = {k: v for k, v in result.items() if k in _TABLES_NEED}
        if "slide" in result:
            kept["slide"] = {k: v for k, v in result["slide"].items() if k in _TABLES_NEED_OF_SLIDE}
        if "damaged" in result:
            kept["damaged"] = {"tissue_share": result["damaged"]["tissue_share"]}
        self._text[slide_id] = json.dumps(kept).encode()

    def __getitem__(self, slide_id: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self._text[slide_id])
        return value

    def __contains__(self, slide_id: object) -> bool:
        return slide_id in self._text

    def __iter__(self) -> Iterator[str]:
        return iter(self._text)

    def __len__(self) -> int:
        return len(self._text)


class Results(Mapping[str, dict[str, Any]]):
    """The results of a run's slides by id, in the run's order, each read from its file when it is asked for."""

    def __init__(self, folder: Path, slide_ids: Iterable[str]) -> None:
        self._folder, self._ids = folder, dict.fromkeys(slide_ids)

    def __getitem__(self, slide_id: str) -> dict[str, Any]:
        if slide_id not in self._ids or (found := read_result(self._folder, slide_id)) is None:
            raise KeyError(slide_id)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def failed_result(slide_id: str, reason: str) -> dict[str, Any]:
    """The result of a slide that could not be used."""
    return {"slide_id": slide_id, "status": "failed", "reason": reason, "pipelines": {}}


def write_results(folder: Path, job: Job, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``slides.csv`` (slides in the run's order, those not reached yet left out) and ``patients.csv`` (patients of whom all slides are reached).

    Raises
    ------
    OutputError
        The folder is full or cannot be written.
    """
    cards = job.cards()
    names = list(job.models)
    slides = [_slide_row(case.path, case.patient, results[case.slide_id], names, cards) for case in job.slides if case.slide_id in results]
    extra = ("patient",) if any(c.patient for c in job.slides) else ()
    reviewed = [c for n in names for c in _reviewed_columns(n, cards)] if any("review" in r for r in results.values()) else []
    pipelines = {n: _columns(n, cards, job.counting.grading) for n in names}
    if job.upsample:
        pipelines = {n: [*found, f"{n}.enlarged"] if n != RISK_PIPELINE else found for n, found in pipelines.items()}
    columns = [*SLIDE_COLUMNS, *extra, *(c for found in pipelines.values() for c in found), *reviewed]
    write_csv(folder / "slides.csv", columns, slides)
    if extra:
        rows = list(_patient_rows(job, results, cards))
        found = [c for columns in pipelines.values() for c in columns if not c.endswith(("hotspot_x", "hotspot_y", "enlarged"))]
        said = ["reviewed_slides", "reviewed_tissue_mm2", *reviewed] if reviewed else []
        write_csv(folder / "patients.csv", ["patient", "slides", "slides_failed", "tissue_mm2", *found, *said], rows)


def table_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the tables of a run, for its passport."""
    return digests(folder, [folder / name for name in TABLES if (folder / name).exists()])


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV of exactly these columns; text that a spreadsheet would take for a formula is quoted with an apostrophe."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: _cell(v) if isinstance(v, str) else v for k, v in row.items()})
    write_atomic(path, buffer.getvalue().encode())


def _cell(text: str) -> str:
    """A carriage return would end the row: csv does not quote it."""
    return ("'" if text[:1] in FORMULA else "") + text.replace("\r", " ")


def _columns(name: str, cards: Mapping[str, Card], gradings: Sequence[str]) -> list[str]:
    if name == RISK_PIPELINE:
        fields = ["status", "reason", *_RISK_FIELDS]
    elif cards[name].task == "classify":
        more = ["set", "outlying"] if cards[name].calibration else []
        fields = ["status", "reason", "call", "doubt", *more, *(f"p_{c}" for c in cards[name].classes)]
    elif cards[name].task == "segment":
        fields = ["status", "reason", *_REGION_FIELDS]
    else:
        fields = ["status", "reason", *_COUNT_FIELDS, "blurred_mm2"]
        fields += [f"hotspot_{what}" for what in ("x", "y", "count", "tissue_mm2", "per_mm2", "flags")]
        fields += [f"{preset}_{what}" for preset in gradings for what in ("score", "probability", "count", "flags")]
    return [f"{name}.{f}" for f in fields]


_REVIEWED_COUNTS = ("count", "area_mm2", "per_mm2", "low", "high", "hotspot_count", "hotspot_per_mm2", "not_looked_at")


def _reviewed_columns(name: str, cards: Mapping[str, Card]) -> list[str]:
    """What people made of an answer stands in columns of its own, after all those of the models."""
    counts = _REVIEWED_COUNTS if name in cards and cards[name].task == "detect" else ()
    return [f"{name}.reviewed_{field}" for field in ("by", "status", "reason", "call", "comment", *counts, *(_RISK_FIELDS if name == RISK_PIPELINE else ()))]


def _reviewed_cells(answers: Mapping[str, Any], by: Sequence[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, answer in answers.items():
        found: dict[str, Any] = {k: answer.get(k) for k in ("status", "reason", "call", *_REVIEWED_COUNTS, *_RISK_FIELDS)}
        found |= {"by": " ".join(by), "comment": answer.get("verdict", {}).get("comment", "")}
        found |= {f"hotspot_{k}": answer["hotspot"][k] for k in ("count", "per_mm2") if answer.get("hotspot")}
        found |= {"not_looked_at": answer["people"]["not_looked_at"]} if "people" in answer else {}
        cells |= {f"{name}.reviewed_{k}": "" if v is None else v for k, v in found.items()}
    return cells


def _slide_row(path: str, patient: str, result: Mapping[str, Any], names: Sequence[str], cards: Mapping[str, Card]) -> dict[str, Any]:
    row: dict[str, Any] = {k: result.get(k, "") for k in ("slide_id", "status", "reason", "tissue_mm2", "n_tiles")}
    row |= {"path": path, "patient": patient} | _flaws(result)
    if "slide" in result:
        mpp = result["slide"]["mpp"]
        row |= {
            "reader": result["slide"]["reader"],
            "mpp": mpp[0],
            "mpp_y": mpp[1],
            "mpp_source": result["slide"]["mpp_source"],
            "sha256": result["slide"]["digest"],
            "missing_tiles": result["slide"].get("missing_tiles", ""),
            "damaged_share": result.get("damaged", {}).get("tissue_share", ""),
        }
    if "review" in result:
        row |= _reviewed_cells(result["review"]["pipelines"], result["review"]["by"])
    for name in names:
        row |= _pipeline_cells(name, result["pipelines"].get(name) or {"status": "failed", "reason": result["reason"]})
    return row


def _flaws(result: Mapping[str, Any]) -> dict[str, Any]:
    """Share of the slide under ink or dense blood, of its tissue in folds, and of its tiles that are blurred; empty where not measured."""
    quality = result.get("quality")
    if quality is None:
        return {}
    blurred = quality["blurred"]
    pen = round(sum(share for name, share in quality.items() if name.startswith("pen_")), 6)
    return {"pen_share": pen, "fold_share": quality["fold"], "blurred_share": "" if blurred is None else blurred}


def _pipeline_cells(name: str, r: Mapping[str, Any]) -> dict[str, Any]:
    cells: dict[str, Any] = {k: r.get(k) for k in ("status", "reason", "call", "doubt", "enlarged", *_COUNT_FIELDS, *_RISK_FIELDS, *_REGION_FIELDS)}
    cells |= {f"p_{c}": p for c, p in r.get("probability", {}).items()} | {"set": " ".join(r.get("set", [])), "outlying": r.get("outlying")}
    if h := r.get("hotspot"):
        cells |= {"hotspot_x": h["centre"][0], "hotspot_y": h["centre"][1], "hotspot_flags": " ".join(h["flags"])}
        cells |= {f"hotspot_{k}": h[k] for k in ("count", "tissue_mm2", "per_mm2")}
    cells["blurred_mm2"] = r.get("left_out", {}).get("blurred_mm2")
    for preset, g in (r.get("grading") or {}).items():
        cells |= {f"{preset}_score": g.get("score", g["status"]), f"{preset}_probability": g.get("probability", {}).get(g.get("score"))}
        cells |= {f"{preset}_count": g.get("count_in_area"), f"{preset}_flags": " ".join(g.get("flags", []))}
    return {f"{name}.{k}": "" if v is None else v for k, v in cells.items()}


def _patient_rows(job: Job, results: Mapping[str, Mapping[str, Any]], cards: Mapping[str, Card]) -> Iterable[dict[str, Any]]:
    cases: dict[str, list[Case]] = {}
    for case in job.slides:
        cases.setdefault(case.patient, []).append(case)
    for patient, group in cases.items():
        ids = [case.slide_id for case in group]
        if not patient or not results.keys() >= set(ids):
            continue  # numbers of some of the slides would look like those of the patient
        mine = [results[slide_id] for slide_id in ids]
        good = [r for r in mine if r["status"] == "ok"]
        facts = facts_of(group)
        found = patient_pipelines(job, good, cards, facts) if good else {}
        row: dict[str, Any] = {"patient": patient, "slides": len(mine), "slides_failed": len(mine) - len(good)}
        row["tissue_mm2"] = round(sum(r["tissue_mm2"] for r in good), 6)
        for name in job.models:
            row |= _pipeline_cells(name, found.get(name, {"status": "failed", "reason": "no slide of this patient could be used"}))
        if (said := reviewed_patient(job, good, cards, facts)) is not None:
            row |= {"reviewed_slides": said.slides, "reviewed_tissue_mm2": round(said.tissue_mm2, 6)} | _reviewed_cells(said.answers, said.by)
        yield row


def read_result(folder: Path, slide_id: str) -> dict[str, Any] | None:
    """The result of a slide; None when it has none.

    Raises
    ------
    DamagedStoreError
        The file is not what was written.
    """
    path = folder / "slides" / f"{slide_id}.json"
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise DamagedStoreError(f"{path}: damaged, it is not JSON any more; run wsikit score again to repair it") from e
    if not isinstance(value, dict) or not {"status", "reason", "pipelines"} <= value.keys():
        raise DamagedStoreError(f"{path}: damaged, it is not a slide's result; run wsikit score again to repair it")
    return value


def read_results(folder: Path, job: Job) -> dict[str, dict[str, Any]]:
    """Results of the slides that have one, by id."""
    found = {case.slide_id: read_result(folder, case.slide_id) for case in job.slides}
    return {slide_id: result for slide_id, result in found.items() if result is not None}
