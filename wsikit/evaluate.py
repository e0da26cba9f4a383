"""Score labelled slides with a model and compare with the labels, with intervals over patients."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.errors import LabelsError, UsageError
from wsikit.evaluate_survival import evaluate_survival
from wsikit.metrics import DetectionScore, balanced_accuracy, bootstrap, confusion, match_detections
from wsikit.models import Card, find_model, read_card
from wsikit.run import Run, score
from wsikit.store.durable import write_atomic
from wsikit.train.labels import read_labels
from wsikit.train.tasks import read_points


def evaluate_model(model: str, labels: Path, out: Path, workers: int | None = 0, features: Path | None = None) -> dict[str, Any]:
    """The metrics of a classifier (per slide) or a detector (pooled points) on labelled slides, or of a survival model on patients.

    Metrics with an interval are `wsikit.metrics.Interval`. ``features`` is the run that scored the patients' slides, for a survival model.

    Raises
    ------
    LabelsError
        The CSV cannot be used, or no slide could be scored.
    UsageError
        A survival model needs a run, or another model got one.
    """
    folder = find_model(model)
    card = read_card(folder)
    if card.task == "risk":
        return {"model": card.name, "digest": card.digest, **evaluate_survival(folder, labels, features)}
    if features is not None:
        raise UsageError("--features is for survival models: this one is evaluated on the slides that the labels name")
    facts = _classifier(card, folder, labels, out, workers) if card.task == "classify" else _detector(card, folder, labels, out, workers)
    return {"model": card.name, "digest": card.digest, **facts}


def _scored(card: Card, folder: Path, rows: list[tuple[str, str, float | None]], out: Path, workers: int | None) -> Run:
    """Score these (path, patient, mpp) with the model into ``out``."""
    text = io.StringIO()
    csv.writer(text).writerows([("path", "patient", "mpp"), *((Path(p).resolve(), patient, mpp or "") for p, patient, mpp in rows)])
    out.mkdir(parents=True, exist_ok=True)
    cases = out.parent / f"{out.name}.cases.csv"
    write_atomic(cases, text.getvalue().encode())
    run = score([cases], out, [card.pipeline], models={card.pipeline: folder}, workers=workers)
    if len(run.failed) == len(run.results):
        raise LabelsError(f"no slide could be scored; the first: {next(iter(run.failed.values()))}")
    return run


def _answers(run: Run) -> dict[str, str]:
    """Slide ids of a run by path."""
    with (run.folder / "slides.csv").open(newline="") as f:
        return {row["path"]: row["slide_id"] for row in csv.DictReader(f)}


def _classifier(card: Card, folder: Path, labels: Path, out: Path, workers: int | None) -> dict[str, Any]:
    items = read_labels(labels, card.classes)
    run = _scored(card, folder, [(str(i.path), i.patient, i.mpp) for i in items], out, workers)
    ids = _answers(run)
    results = [run.results[ids[str(i.path.resolve())]] for i in items]
    kept = [(i, r["pipelines"][card.pipeline]) for i, r in zip(items, results, strict=True) if r["status"] == "ok"]
    truth, called = [i.label for i, _ in kept], [r["call"] if r["status"] == "ok" else "" for _, r in kept]
    right = np.array([t == c for t, c in zip(truth, called, strict=True)])
    patients = [i.patient for i, _ in kept]

    def balanced(rows: np.ndarray) -> float:
        return balanced_accuracy(confusion([truth[i] for i in rows], [called[i] for i in rows], card.classes))

    return {
        "slides": len(kept),
        "patients": len(set(patients)),
        "failed": len(items) - len(kept),
        "withheld": called.count(""),
        "accuracy (withheld counts as wrong)": bootstrap(lambda rows: float(right[rows].mean()), patients),
        "balanced accuracy": bootstrap(balanced, patients),
        "classes": card.classes,
        "confusion (last column: withheld)": confusion(truth, called, card.classes).tolist(),
    }


def _detector(card: Card, folder: Path, labels: Path, out: Path, workers: int | None) -> dict[str, Any]:
    assert card.detection is not None
    slides = read_points(labels)
    run = _scored(card, folder, [(str(s.item.path), s.item.patient, s.item.mpp) for s in slides], out, workers)
    ids = _answers(run)
    scores, patients = [], []
    for s in slides:
        slide_id = ids[str(s.item.path.resolve())]
        if run.results[slide_id]["status"] != "ok":
            continue
        store = run.store(slide_id)
        table = store.tables()[card.pipeline]
        mpp = np.array(store.mpp)
        scores.append(match_detections(table["position"][table["score"] >= card.detection.threshold] * mpp, s.objects * mpp))
        patients.append(s.item.patient)

    def pooled(rows: np.ndarray) -> DetectionScore:
        return sum((scores[i] for i in rows), DetectionScore(0, 0, 0))

    total = pooled(np.arange(len(scores)))
    facts: dict[str, Any] = {"slides": len(scores), "patients": len(set(patients)), "failed": len(slides) - len(scores), "radius_um": 7.5}
    facts |= {"tp": total.tp, "fp": total.fp, "fn": total.fn, "threshold": card.detection.threshold}
    for name in ("precision", "recall", "f1"):
        facts[name] = bootstrap(lambda rows, name=name: getattr(pooled(rows), name), patients)  # type: ignore[misc]
    return facts
