"""The trainings that ``wsikit train`` offers: which card each makes, from which labels."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.errors import LabelsError
from wsikit.models import family
from wsikit.models._card import Card
from wsikit.resolution import parse_number
from wsikit.train.classify import train_classifier
from wsikit.train.detect import Points, train_detector
from wsikit.train.labels import Labelled, check_patients, read_labels, read_mpp, read_table
from wsikit.train.survival import train_cox

LICENCE = "not stated by whoever trained it"
CLASSIFIERS: dict[str, dict[str, Any]] = {
    # Foersch et al. 2021: DenseNet121 on 1024 px tiles; µm/px not published, 0.5 is our default
    "sts-subtype": {"architecture": {"name": "densenet121"}, "tile_px": 1024, "batch": 4},
    # Zhang et al. 2022: InceptionV3, whose own input is 299 px; tile and magnification not published
    "rms-subtype": {"architecture": {"name": "inception_v3"}, "tile_px": 299, "batch": 16},
}


def subtype(task: str, labels: Path, out: Path, mpp: float, **options: Any) -> Card:
    """Train ``sts-subtype``, ``rms-subtype``, or ``subtype`` with any classes (served by the ``sts-subtype`` pipeline).

    Raises
    ------
    LabelsError
        The CSV cannot be used.
    SlideError
        A slide cannot be used.
    """
    pipeline = "sts-subtype" if task == "subtype" else task
    classes = None if task == "subtype" else list(family(pipeline).CLASSES)
    items = read_labels(labels, classes)
    classes = classes or sorted({i.label for i in items})
    fields = _common(out, pipeline, "classify", classes, mpp, items) | CLASSIFIERS[pipeline]
    return train_classifier(items, out, fields, **options)


def mitosis(labels: Path, out: Path, mpp: float, **options: Any) -> Card:
    """Train a mitosis detector (YOLOX-nano) from points.

    Raises
    ------
    LabelsError
        The CSV cannot be used.
    SlideError
        A slide cannot be used.
    """
    slides = read_points(labels)
    fields = _common(out, "mitosis", "detect", ["mitosis"], mpp, [s.item for s in slides])
    fields |= {"architecture": {"name": "yolox-n"}, "tile_px": 416, "overlap_px": 64, "min_tissue": 0.0, "detection": {"threshold": 0.5}}
    fields |= {"scaling": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}}
    return train_detector(slides, out, fields, **options)


def survival(labels: Path, out: Path, run: Path, features: list[str], endpoint: str) -> Card:
    """Fit a Cox model on the patient results of a run; densities enter as log(1 + x).

    Raises
    ------
    LabelsError
        The CSV cannot be used, or does not join the run's patients.
    """
    table = read_table(labels, ["patient", "time_months", "event"])
    rows = {r["patient"]: r for r in table}
    if len(rows) < len(table):
        raise LabelsError(f"{labels}: a patient is in more than one row; give one time and event for each")
    if odd := [r["event"] for r in table if r["event"] not in ("0", "1", "0.0", "1.0")]:
        raise LabelsError(f"{labels}: event '{odd[0]}' must be 1 (it happened) or 0 (censored)")
    found, models = _patient_features(run)
    joined = sorted(rows.keys() & found.keys())
    if not joined:
        raise LabelsError(f"{labels}: none of its patients is in {run / 'patients.csv'}")
    time, event = (np.array([_number(labels, rows[p], key) for p in joined]) for key in ("time_months", "event"))
    items = [Labelled(run, "", p) for p in joined]
    fields = _common(out, "survival", "risk", [], 0.5, items)
    log1p = [n for n in features if n.endswith("per_mm2")]
    used = {name: digest for name, digest in models.items() if any(n.startswith(f"{name}.") for n in features)}
    fields |= {
        "architecture": {"name": "cox"},
        "risk": {"endpoint": endpoint, "features": features, "log1p": log1p, "models": used, "cutoff": 0.0, "cutoff_origin": ""},
    }
    return train_cox([found[p] for p in joined], time, event.astype(bool), out, fields)


def read_points(path: Path) -> list[Points]:
    """Slides with points from a CSV: path, patient, x, y, label (``mitosis`` or ``lookalike``).

    Raises
    ------
    LabelsError
        A column or value is missing or wrong, a slide has two patients, or a patient is in two splits.
    """
    by_slide: dict[str, list[dict[str, str]]] = {}
    for row in read_table(path, ["path", "patient", "x", "y", "label"]):
        by_slide.setdefault(row["path"], []).append(row)
    found = []
    for name, rows in by_slide.items():
        slide = path.parent / name
        if not name or not slide.exists():
            raise LabelsError(f"{path}: no slide at {slide}")
        whose = {(row["patient"], row.get("split", ""), row.get("mpp", "")) for row in rows}
        if len(whose) > 1 or not rows[0]["patient"]:
            raise LabelsError(f"{path}: the rows of {name} must name one patient, the same split and the same mpp")
        if rows[0].get("split", "") not in ("", "train", "val"):
            raise LabelsError(f"{path}: split '{rows[0]['split']}' of {name} must be train or val")
        points: dict[str, list[tuple[float, float]]] = {"mitosis": [], "lookalike": []}
        for row in rows:
            if row["x"] or row["y"]:
                if row["label"] not in points:
                    raise LabelsError(f"{path}: label '{row['label']}' of {name} is neither mitosis nor lookalike")
                points[row["label"]].append((_number(path, row, "x"), _number(path, row, "y")))
        item = Labelled(slide, "mitosis", rows[0]["patient"], read_mpp(rows[0], f"{path}: {name}"), rows[0].get("split", ""))
        found.append(Points(item, *(np.array(points[k], np.float64).reshape(-1, 2) for k in ("mitosis", "lookalike"))))
    check_patients([p.item for p in found], path)
    return found


def _common(out: Path, pipeline: str, task: str, classes: list[str], mpp: float, items: list[Labelled]) -> dict[str, Any]:
    name = re.sub(r"[^a-z0-9._-]+", "-", out.resolve().name.lower()).strip("-._") or "model"
    about = {"domain": "histology", "description": "the user's own slides", "slides": len(items), "patients": len({i.patient for i in items})}
    return {"name": name, "pipeline": pipeline, "task": task, "classes": classes, "mpp": mpp, "licence": LICENCE, "trained_on": about}


def _number(path: Path, row: dict[str, str], key: str) -> float:
    value = parse_number(row[key])
    if value is None or not math.isfinite(value):
        raise LabelsError(f"{path}: {key} '{row[key]}' is not a number")
    return value


def _patient_features(run: Path) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Features of each patient of a run, from ``patients.csv``, and the digests of the models that made them."""
    try:
        with (run / "patients.csv").open(newline="") as f:
            rows = list(csv.DictReader(f))
        models = {k: v["digest"] for k, v in json.loads((run / "run.json").read_text())["job"]["models"].items()}
    except (OSError, ValueError, KeyError) as e:
        raise LabelsError(f"{run}: needs run.json and patients.csv of a run with a patient column ({e})") from e
    found = {}
    for row in rows:
        values = {k: parse_number(v) for k, v in row.items() if k != "patient" and v}
        found[row["patient"]] = {k: v for k, v in values.items() if v is not None}
    return found, models
