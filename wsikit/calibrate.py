"""A classifier's doubt, learnt on labelled slides of patients that it was not trained on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsikit.aggregate.calls import bag_probability
from wsikit.errors import LabelsError, UsageError
from wsikit.evaluate.slides import Scored, score_labelled, tile_answers
from wsikit.models import CARD_FILE, Card, find_model, read_card
from wsikit.store.durable import write_atomic
from wsikit.train.calibrate import COVERAGE, KnownTiles, calibrate_model
from wsikit.train.known import known_tissue
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
    kept = score_labelled(card, folder, read_labels(labels, card.classes), out / "calibration", workers)
    answers, raw, feature = tile_answers(card, kept, features=True)
    if not len(answers):
        raise LabelsError(f"{labels}: no slide gives numbers to calibrate on; the first says: {kept[0].result['reason']}")
    out.mkdir(parents=True, exist_ok=True)  # tile images leave no run there
    shutil.copyfile(folder / card.weights.file, out / card.weights.file)
    plain = card.model_copy(update={"calibration": None})  # what was learnt before is not looked at
    write_atomic(out / CARD_FILE, (plain.model_dump_json(indent=1) + "\n").encode())
    usable = [s for s in kept if s.usable]
    tissue = known_tissue(out, [s.item for s in usable])
    tiles, origin = KnownTiles(raw, feature, answers.truth, answers.patient, len(usable)), f"the patients of {labels.name}"
    if card.architecture.get("name") == "mil":
        return calibrate_model(out, _slides_as_one(card, usable), origin, coverage, tissue=tissue or tiles)
    return calibrate_model(out, tiles, origin, coverage, tissue=tissue)


def _slides_as_one(card: Card, slides: Sequence[Scored]) -> KnownTiles:
    """A row a slide, for models that call slides by attention over their tiles."""
    tables = [s.table() for s in slides]
    probability = np.array([bag_probability(t["probability"], t["attention"]) for t in tables])
    label = np.array([card.classes.index(s.item.label) for s in slides], np.int64)
    return KnownTiles(probability, np.empty((len(slides), 0)), label, np.array([s.item.patient for s in slides], dtype=str), len(slides))
