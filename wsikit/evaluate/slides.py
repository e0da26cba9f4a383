"""Labelled slides, scored: what a classifier said of each tile, slide and patient, beside the truth."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.aggregate.calls import call_patient, call_slide
from wsikit.aggregate.doubt import outside_domain, tempered, unknown_colours
from wsikit.aggregate.outlier import mark_tiles
from wsikit.errors import LabelsError, SlideError
from wsikit.metrics.classification import Answers
from wsikit.models import Card, load_network
from wsikit.run import Run, score
from wsikit.stain import StainFit
from wsikit.store.durable import write_atomic
from wsikit.train.labels import Labelled
from wsikit.train.tiles import Source, is_tile_image, stain_fits, tiles_of_image

MEAN, SHARE = "mean probability", "share of tiles"
_TOGETHER = 256  # tiles


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
    with (run.folder / "slides.csv").open(encoding="utf-8", newline="") as f:
        return {row["path"]: row["slide_id"] for row in csv.DictReader(f)}


@dataclass(frozen=True)
class Scored:
    """A labelled slide or tile image with its answer.

    ``result`` is that of the pipeline, as in the slide's JSON; ``table`` reads the columns of its tiles, ``probability`` (N, K) and ``feature`` (N, D).
    """

    item: Labelled
    slide_id: str
    result: Mapping[str, Any]
    table: Callable[[], Mapping[str, np.ndarray]]

    @property
    def usable(self) -> bool:
        """Has it probabilities? A model's that knows nothing of the slide are not given."""
        return bool(self.result.get("probability"))


def score_labelled(card: Card, folder: Path, items: Sequence[Labelled], out: Path, workers: int | None) -> list[Scored]:
    """The labelled slides and tile images that did not fail, in their order: slides by a run into ``out``, tile images as training cuts and stains them.

    Raises
    ------
    LabelsError
        No slide could be scored, or an image is smaller than a tile.
    """
    slides, pictures, wrong = list[Labelled](), list[Labelled](), ""
    for item in items:
        try:
            (pictures if is_tile_image(item.path) else slides).append(item)
        except SlideError as e:
            wrong = wrong or str(e)
    scored, more = _score_pictures(card, folder, pictures)
    found = {s.item.path: s for s in [*scored, *_score_slides(card, folder, slides, out, workers)]}
    if not found:
        raise LabelsError(f"no slide could be scored; the first: {wrong or more}")
    return [found[i.path] for i in items if i.path in found]


def _score_slides(card: Card, folder: Path, items: Sequence[Labelled], out: Path, workers: int | None) -> list[Scored]:
    if not items:
        return []
    run = score_rows(card, folder, [(str(i.path), i.patient, i.mpp) for i in items], out, workers)
    ids = slide_ids(run)
    done = [(i, s) for i in items if run.results[s := ids[str(i.path.resolve())]]["status"] == "ok"]
    return [Scored(i, s, run.results[s]["pipelines"][card.pipeline], _table_of(run, s, card)) for i, s in done]


def _table_of(run: Run, slide_id: str, card: Card) -> Callable[[], Mapping[str, np.ndarray]]:
    return lambda: run.store(slide_id).tables()[card.pipeline]


def _score_pictures(card: Card, folder: Path, items: Sequence[Labelled]) -> tuple[list[Scored], str]:
    """Tile images: someone chose them, so all of their tiles are tissue, and those of a patient share a stain fit. And what is wrong with the first other."""
    if not items:
        return [], ""
    sources = [Source(i.path, i.mpp, f"{i.patient} {i.site}") for i in items]
    fits = stain_fits(sources, card)
    owner, columns, wrong = _predicted(card, folder, sources, fits)
    if (outlying := mark_tiles(card, folder, columns["feature"])) is not None:
        columns["outlying"] = outlying
    found = []
    for i in np.unique(owner).tolist():
        mine = {k: v[owner == i] for k, v in columns.items()}
        result = call_slide(card, mine["probability"], mine.get("outlying"), mine.get("attention"))
        reason = outside_domain(card, is_phantom_slide=False)
        if not reason and (colours := unknown_colours(card, fits[sources[i].whose].model_dump())):
            reason = "; ".join(filter(None, [result["reason"], colours]))
        if reason:
            result |= {"status": "abstained", "reason": reason, "call": "", "probability": {}}
        found.append(Scored(items[i], items[i].path.stem, result, lambda mine=mine: mine))  # type: ignore[misc]
    return found, wrong


def _predicted(card: Card, folder: Path, sources: Sequence[Source], fits: Mapping[str, StainFit]) -> tuple[np.ndarray, dict[str, np.ndarray], str]:
    """Which image each tile is of, int64 (N,), the columns of all tiles, and what is wrong with the first image that has none.

    Raises
    ------
    LabelsError
        An image is smaller than a tile.
    """
    network: Any = load_network(card, folder)
    owner, pending, parts = list[int](), list[np.ndarray](), list[dict[str, np.ndarray]]()
    wrong = ""
    for i, source in enumerate(sources):
        try:
            mine = list(tiles_of_image(source, card, fits[source.whose]))
        except SlideError as e:
            wrong = wrong or str(e)
            continue
        owner += [i] * len(mine)
        pending += mine
        if len(pending) >= _TOGETHER:
            parts.append(network.predict(np.stack(pending)))
            pending = []
    side = (card.tile_px, card.tile_px, 3)
    parts.append(network.predict(np.stack(pending) if pending else np.empty((0, *side), np.uint8)))
    columns = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    return np.array(owner, np.int64), columns | {"feature": columns["feature"].astype(np.float16)}, wrong  # as a run keeps them


def tile_answers(card: Card, slides: Sequence[Scored], *, features: bool = False) -> tuple[Answers, np.ndarray, np.ndarray]:
    """Of all tiles of usable slides: answers at the card's temperature, raw probabilities (N, K), and features (N, D) where asked for."""
    raw, feature, owner = [], [], []
    used = [s for s in slides if s.usable]
    for i, s in enumerate(used):
        table = s.table()
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
