"""The trainings that ``wsikit train`` offers: which card each makes, from which labels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.errors import LabelsError, UsageError
from wsikit.models import family
from wsikit.models._card import Card
from wsikit.models.exchange.encoders import encoder_card
from wsikit.resolution import parse_number
from wsikit.spreadsheet import Row
from wsikit.train.classify import Options, train_classifier
from wsikit.train.detect import Points, train_detector
from wsikit.train.labels import Labelled, check_patients, read_labels, read_mpp, read_table
from wsikit.train.mil import train_mil
from wsikit.train.parallel import Group
from wsikit.train.presets import OF_TASK, PRESETS
from wsikit.train.prognosis import Options as SurvivalOptions
from wsikit.train.prognosis import train_prognosis
from wsikit.train.recipe import Recipe
from wsikit.train.regions import read_marked
from wsikit.train.segment import train_segmenter

OVERLAP_PX = 64  # of a segmenter's tiles: what lies at a tile's edge is seen whole by its neighbour
VERIFIER_UM = 16.0  # a mitosis and what is beside it
TRAINED_BY_NAME = ("yolox-n", "yolox-t", "yolox-s", "yolox-m", "yolox-l", "yolox-x", "yolo9-t", "yolo9-s", "yolo9-m", "yolo9-c")
SPLITS = ("", "train", "val", "test")
LICENCE = "not stated by whoever trained it"


def subtype(
    task: str, labels: Path, out: Path, recipe: Recipe | None = None, options: Options | None = None, group: Group | None = None, *, mil: bool = False
) -> Card:
    """Train ``sts-subtype``, ``rms-subtype``, or ``subtype`` with any classes (served by the ``sts-subtype`` pipeline).

    Parameters
    ----------
    recipe : by default the task's own preset; one of `wsikit.train.mil.mil_recipe` calls slides by attention over their tiles

    Raises
    ------
    LabelsError
        The CSV cannot be used.
    SlideError
        A slide cannot be used.
    """
    recipe = recipe or PRESETS[OF_TASK[task]]
    pipeline = "sts-subtype" if task == "subtype" else task
    classes = None if task == "subtype" else list(family(pipeline).CLASSES)
    items = read_labels(labels, classes)
    classes = classes or sorted({i.label for i in items})
    fields = _common(out, pipeline, "classify", classes, recipe.mpp, [i for i in items if i.split != "test"])
    fields |= {"architecture": recipe.architecture, "tile_px": recipe.tile_px, "batch": recipe.batch, "stain": recipe.stain, "views": recipe.views}
    fields |= encoder_card(recipe.architecture)
    if recipe.architecture.get("name") == "mil":
        return train_mil(items, out, fields | {"batch": 16}, recipe, options, group)
    return train_classifier(items, out, fields, recipe, options, group)


def tumour(labels: Path, out: Path, recipe: Recipe | None = None, options: Options | None = None, group: Group | None = None) -> Card:
    """Train a model of where tumour is (U-Net) from polygons or masks; see `wsikit.train.regions.read_marked` for the labels.

    Raises
    ------
    LabelsError
        The CSV or a slide's regions cannot be used.
    SlideError
        A slide cannot be used.
    """
    recipe = recipe or PRESETS[OF_TASK["tumour"]]
    slides = read_marked(labels)
    fields = _common(out, "tumour", "segment", list(family("tumour").CLASSES), recipe.mpp, [s.item for s in slides if s.item.split != "test"])
    fields |= {"architecture": recipe.architecture, "tile_px": recipe.tile_px, "overlap_px": OVERLAP_PX, "batch": recipe.batch, "stain": recipe.stain}
    fields |= {"min_tissue": 0.05, "segmentation": {}}
    return train_segmenter(slides, out, fields, recipe, options, group)


def mitosis(labels: Path, out: Path, mpp: float, *, architecture: str = "yolox-n", verifier: bool = False, **options: Any) -> Card:
    """Train a mitosis detector from points: ``yolox-n`` … ``yolox-x``, or ``yolo9-t`` … ``yolo9-c``.

    With ``verifier``, a second stage looks at each of its finds again.

    Raises
    ------
    UsageError
        There is no such architecture to train.
    LabelsError
        The CSV cannot be used.
    SlideError
        A slide cannot be used.
    """
    if architecture not in TRAINED_BY_NAME:
        raise UsageError(f"--architecture {architecture}: mitoses are learned by {', '.join(TRAINED_BY_NAME)}")
    slides = read_points(labels)
    fields = _common(out, "mitosis", "detect", ["mitosis"], mpp, [s.item for s in slides if s.item.split != "test"])
    fields |= {"architecture": {"name": architecture}, "tile_px": 416, "overlap_px": 64, "min_tissue": 0.0, "detection": {"threshold": 0.5}}
    fields |= {"scaling": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}}
    if verifier:
        fields["architecture"] |= {"verifier": {"side_px": 2 * round(VERIFIER_UM / mpp / 2)}}
    return train_detector(slides, out, fields, **options)


def survival(labels: Path, out: Path, run: Path | None, features: Sequence[str], endpoint: str = "", **options: Any) -> Card:
    """Train a survival model on the patients of a run and their clinical columns; see `wsikit.train.prognosis.Options`.

    Raises
    ------
    LabelsError
        The tables cannot be used, or do not join.
    UsageError
        Options that do not go together.
    """
    fields = _common(out, "survival", "risk", [], 0.5, [])
    return train_prognosis(labels, run, out, fields, SurvivalOptions(endpoint, features, **options))


def read_points(path: Path) -> list[Points]:
    """Slides, fields or crops with points.

    From a CSV of points: path, patient, x, y, label (``mitosis`` or ``lookalike``); from a CSV of files: path, patient, labels (COCO, YOLO, GeoJSON or CSV, see
    `wsikit.train.point_labels`); either with mpp, split, tumour. Or from a COCO file, of MIDOG for one.

    Raises
    ------
    LabelsError
        A column or value is missing or wrong, a slide has two patients, or a patient is in two splits.
    SlideError
        A slide whose size or bounds its labels need cannot be opened.
    """
    from wsikit.train.point_labels import read_coco

    if path.suffix.lower() == ".json":
        found = read_coco(path)
        check_patients([p.item for p in found], path)
        return found
    rows = read_table(path, [])
    found = _read_files(path) if rows and "labels" in rows[0] else _read_rows(path)
    check_patients([p.item for p in found], path)
    return found


def _read_rows(path: Path) -> list[Points]:
    """A CSV with a row for each point."""
    by_slide: dict[str, list[Row]] = {}
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
        if rows[0].get("split", "") not in SPLITS:
            raise LabelsError(f"{path}: split '{rows[0]['split']}' of {name} must be train, val or test")
        points: dict[str, list[tuple[float, float]]] = {"mitosis": [], "lookalike": []}
        for row in rows:
            if row["x"] or row["y"]:
                if row["label"] not in points:
                    raise LabelsError(f"{path}: label '{row['label']}' of {name} is neither mitosis nor lookalike")
                points[row["label"]].append((_number(f"{path}: {name}", row, "x"), _number(f"{path}: {name}", row, "y")))
        item = Labelled(slide, "mitosis", rows[0]["patient"], read_mpp(rows[0], f"{path}: {name}"), rows[0].get("split", ""))
        objects, lookalikes = (np.array(points[k], np.float64).reshape(-1, 2) for k in ("mitosis", "lookalike"))
        found.append(Points(item, objects, lookalikes, rows[0].get("tumour", "")))
    return found


def _read_files(path: Path) -> list[Points]:
    """A CSV whose rows name a slide and the file of its labels; a row without a file is of a slide on which there are none."""
    from wsikit.train.point_labels import read_points_of

    found = []
    for row in read_table(path, ["path", "patient", "labels"]):
        slide, where = path.parent / row["path"], f"{path}: line {row.line}"
        if not row["path"] or not slide.exists():
            raise LabelsError(f"{where}: no slide at {slide}")
        if not row["patient"] or row.get("split", "") not in SPLITS:
            raise LabelsError(f"{where}: patient must not be empty, and split is train, val or test")
        if row["labels"] and not (path.parent / row["labels"]).is_file():
            raise LabelsError(f"{where}: no labels at {path.parent / row['labels']}; leave it empty where there are no figures")
        nothing = (np.empty((0, 2)), np.empty((0, 2)))
        objects, lookalikes = read_points_of(path.parent / row["labels"], slide) if row["labels"] else nothing
        item = Labelled(slide, "mitosis", row["patient"], read_mpp(row, where), row.get("split", ""))
        found.append(Points(item, objects, lookalikes, row.get("tumour", "")))
    return found


def _common(out: Path, pipeline: str, task: str, classes: list[str], mpp: float, items: list[Labelled]) -> dict[str, Any]:
    name = re.sub(r"[^a-z0-9._-]+", "-", out.resolve().name.lower()).strip("-._") or "model"
    about = {"domain": "histology", "description": "the user's own slides", "slides": len(items), "patients": len({i.patient for i in items})}
    return {"name": name, "pipeline": pipeline, "task": task, "classes": classes, "mpp": mpp, "licence": LICENCE, "trained_on": about}


def _number(where: str, row: Mapping[str, str], key: str) -> float:
    value = parse_number(row[key])
    if value is None or not math.isfinite(value):
        raise LabelsError(f"{where}: {key} '{row[key]}' is not a number")
    return value
