"""Score labelled slides with a model and compare with the labels, with intervals over patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from wsikit.errors import UsageError
from wsikit.evaluate_classifier import evaluate_classifier
from wsikit.evaluate_regions import evaluate_regions
from wsikit.evaluate_slides import score_rows, slide_ids
from wsikit.evaluate_survival import evaluate_survival
from wsikit.metrics import DetectionScore, bootstrap, match_detections
from wsikit.models import Card, find_model, read_card
from wsikit.train.tasks import read_points


def evaluate_model(model: str, labels: Path, out: Path, workers: int | None = 0, features: Path | None = None) -> dict[str, Any]:
    """The metrics of a classifier (tiles, slides, patients), of a detector (pooled points) on labelled slides, or of a survival model on patients.

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
    if card.task == "segment":
        return {"model": card.name, "digest": card.digest, **evaluate_regions(card, folder, labels, out, workers)}
    if features is not None:
        raise UsageError("--features is for survival models: this one is evaluated on the slides that the labels name")
    facts = evaluate_classifier(card, folder, labels, out, workers) if card.task == "classify" else _detector(card, folder, labels, out, workers)
    return {"model": card.name, "digest": card.digest, **facts}


def _detector(card: Card, folder: Path, labels: Path, out: Path, workers: int | None) -> dict[str, Any]:
    assert card.detection is not None
    slides = read_points(labels)
    run = score_rows(card, folder, [(str(s.item.path), s.item.patient, s.item.mpp) for s in slides], out, workers)
    ids = slide_ids(run)
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
