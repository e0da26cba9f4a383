"""Labelled slides, scored: what a classifier said of each tile, slide and patient, beside the truth."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.aggregate.calls import call_patient
from wsikit.aggregate.doubt import tempered
from wsikit.classification import Answers
from wsikit.errors import LabelsError
from wsikit.models import Card
from wsikit.run import Run, score
from wsikit.store.durable import write_atomic
from wsikit.train.labels import Labelled

MEAN, SHARE = "mean probability", "share of tiles"


def score_rows(card: Card, folder: Path, rows: list[tuple[str, str, float | None]], out: Path, workers: int | None) -> Run:
    """Score these (path, patient, mpp) with the model into ``out``.

    Raises
    ------
    LabelsError
        No slide could be scored.
    """
    text = io.StringIO()
    csv.writer(text).writerows([("path", "patient", "mpp"), *((Path(p).resolve(), patient, mpp or "") for p, patient, mpp in rows)])
    out.mkdir(parents=True, exist_ok=True)
    cases = out.parent / f"{out.name}.cases.csv"
    write_atomic(cases, text.getvalue().encode())
    run = score([cases], out, [card.pipeline], models={card.pipeline: folder}, workers=workers)
    if len(run.failed) == len(run.results):
        raise LabelsError(f"no slide could be scored; the first: {next(iter(run.failed.values()))}")
    return run


def slide_ids(run: Run) -> dict[str, str]:
    """Slide ids of a run by path."""
    with (run.folder / "slides.csv").open(newline="") as f:
        return {row["path"]: row["slide_id"] for row in csv.DictReader(f)}


@dataclass(frozen=True)
class Scored:
    """A labelled slide with its answer; ``result`` is that of the pipeline, as in the slide's JSON."""

    item: Labelled
    slide_id: str
    result: Mapping[str, Any]

    @property
    def usable(self) -> bool:
        """Has it probabilities? A model's that knows nothing of the slide are not given."""
        return bool(self.result.get("probability"))


def score_labelled(card: Card, folder: Path, items: Sequence[Labelled], out: Path, workers: int | None) -> tuple[Run, list[Scored]]:
    """The run over labelled slides, and those that did not fail.

    Raises
    ------
    LabelsError
        No slide could be scored.
    """
    run = score_rows(card, folder, [(str(i.path), i.patient, i.mpp) for i in items], out, workers)
    ids = slide_ids(run)
    found = []
    for item in items:
        slide_id = ids[str(item.path.resolve())]
        if run.results[slide_id]["status"] == "ok":
            found.append(Scored(item, slide_id, run.results[slide_id]["pipelines"][card.pipeline]))
    return run, found


def tile_answers(card: Card, run: Run, slides: Sequence[Scored], *, features: bool = False) -> tuple[Answers, np.ndarray, np.ndarray]:
    """Of all tiles of usable slides: answers at the card's temperature, raw probabilities (N, K), and features (N, D) where asked for."""
    raw, feature, owner = [], [], []
    used = [s for s in slides if s.usable]
    for i, s in enumerate(used):
        table = run.store(s.slide_id).tables()[card.pipeline]
        raw.append(table["probability"])
        owner += [i] * len(raw[-1])
        if features:
            feature.append(table["feature"])
    probability = np.concatenate(raw) if raw else np.empty((0, len(card.classes)))
    temperature = card.calibration.temperature if card.calibration else 1.0
    rows = np.array(owner, np.int64)
    answers = _answers(card, [s.item for s in used], tempered(probability, temperature), rows)
    return answers, probability, np.concatenate(feature) if feature else np.empty((0, 0))


def slide_answers(card: Card, slides: Sequence[Scored], rule: str) -> Answers:
    """Of usable slides, by one of DeepPATH's two rules."""
    used = [s for s in slides if s.usable]
    return _answers(card, [s.item for s in used], _numbers(card, [s.result for s in used], rule), np.arange(len(used)))


def patient_results(card: Card, slides: Sequence[Scored]) -> list[tuple[Labelled, dict[str, Any]]]:
    """The call of each patient over its usable slides; one with slides of two classes counts once for each."""
    groups: dict[tuple[str, str], list[Scored]] = {}
    for s in slides:
        if s.usable:
            groups.setdefault((s.item.patient, s.item.label), []).append(s)
    return [(found[0].item, call_patient(card, [dict(s.result) for s in found])) for found in groups.values()]


def patient_answers(card: Card, patients: Sequence[tuple[Labelled, Mapping[str, Any]]], rule: str) -> Answers:
    """Of patients, by one of DeepPATH's two rules."""
    return _answers(card, [i for i, _ in patients], _numbers(card, [r for _, r in patients], rule), np.arange(len(patients)))


def _numbers(card: Card, results: Sequence[Mapping[str, Any]], rule: str) -> np.ndarray:
    key = "probability" if rule == MEAN else "tile_share"
    return np.array([[r[key][c] for c in card.classes] for r in results], np.float64).reshape(-1, len(card.classes))


def _answers(card: Card, items: Sequence[Labelled], probability: np.ndarray, rows: np.ndarray) -> Answers:
    truth = np.array([card.classes.index(i.label) for i in items], np.int64)
    patient, site = np.array([i.patient for i in items], dtype=str), np.array([i.site for i in items], dtype=str)
    return Answers(probability, truth[rows], patient[rows], site[rows])
