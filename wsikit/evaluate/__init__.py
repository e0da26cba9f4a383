"""Score labelled slides with a model and compare with the labels, with intervals over patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsikit.errors import UsageError
from wsikit.evaluate.classifier import evaluate_classifier
from wsikit.evaluate.detector import evaluate_detector
from wsikit.evaluate.regions import evaluate_regions
from wsikit.evaluate.survival import evaluate_survival
from wsikit.models import find_model, read_card
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
    if card.task == "classify":
        facts = evaluate_classifier(card, folder, labels, out, workers)
    else:
        facts = evaluate_detector(card, folder, read_points(labels), out, workers)
    return {"model": card.name, "digest": card.digest, **facts}
