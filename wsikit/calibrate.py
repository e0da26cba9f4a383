"""A classifier's doubt, learnt on labelled slides of patients that it was not trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

from wsikit.errors import LabelsError, UsageError
from wsikit.evaluate_slides import score_labelled, tile_answers
from wsikit.models import CARD_FILE, Card, find_model, read_card
from wsikit.train.calibrate import COVERAGE, KnownTiles, calibrate_model
from wsikit.train.labels import read_labels


def calibrate(model: str, labels: Path, out: Path, workers: int | None = 0, coverage: float = COVERAGE) -> Card:
    """Score labelled slides, learn temperature, sets of classes and outlier rules from them, and write the model with these into ``out``; returns its card.

    ``out/calibration`` keeps the run, so that a calibration that was cut off goes on.

    Raises
    ------
    LabelsError
        The CSV cannot be used, or no slide gives numbers.
    UsageError
        The model is no classifier, was trained on phantoms, or the coverage is no share.
    """
    folder = find_model(model)
    card = read_card(folder)
    if card.task != "classify":
        raise UsageError(f"model {card.name}: only classifiers are calibrated, and this one is to {card.task}")
    if not 0 < coverage < 1:
        raise UsageError(f"a coverage of {coverage:g}: it is a share between 0 and 1, such as 0.9")
    if (out / CARD_FILE).exists():
        raise UsageError(f"{out}: holds a model already; choose another folder with -o")
    run, kept = score_labelled(card, folder, read_labels(labels, card.classes), out / "calibration", workers)
    answers, raw, feature = tile_answers(card, run, kept, features=True)
    if not len(answers):
        raise LabelsError(f"{labels}: no slide gives numbers to calibrate on; the first says: {kept[0].result['reason']}")
    for name in (card.weights.file, CARD_FILE):
        shutil.copyfile(folder / name, out / name)
    usable = sum(s.usable for s in kept)
    return calibrate_model(out, KnownTiles(raw, feature, answers.truth, answers.patient, usable), f"the patients of {labels.name}", coverage)
