"""How good is a detector? Labelled slides and fields scored, and compared by the rules of the MIDOG challenges, with intervals over patients."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.errors import LabelsError, SlideError
from wsikit.evaluate.slides import score_rows, slide_ids
from wsikit.metrics import DetectionScore, bootstrap
from wsikit.metrics.matching import FROC_PER_MM2, MATCHINGS, RADIUS_UM, Case, average_precision, counts, recall_at
from wsikit.models import Card
from wsikit.slide import open_slide
from wsikit.train.detect import Points, check_inside

NONE = DetectionScore(0, 0, 0)


def evaluate_detector(card: Card, folder: Path, slides: Sequence[Points], out: Path, workers: int | None = 0) -> dict[str, Any]:
    """Score slides or fields into ``out`` with the model of a folder; its figures as `detector_figures` has them. Where some are of split ``test``, these only.

    Raises
    ------
    LabelsError
        No slide could be scored, or a point lies outside of its slide.
    """
    if any(s.item.split == "test" for s in slides):
        slides = [s for s in slides if s.item.split == "test"]
    for s in slides:
        with contextlib.suppress(SlideError), open_slide(s.item.path) as slide:  # one that cannot be opened is named by the run
            check_inside(s, slide.size)
    run = score_rows(card, folder, [(str(s.item.path), s.item.patient, s.item.mpp) for s in slides], out, workers)
    ids = slide_ids(run)
    cases, patients, tumours, withheld = [], [], [], 0
    for s in slides:
        slide_id = ids[str(s.item.path.resolve())]
        result = run.results[slide_id]
        if result["status"] != "ok" or result["pipelines"][card.pipeline]["status"] == "refused":
            continue
        withheld += result["pipelines"][card.pipeline]["status"] != "ok"
        store = run.store(slide_id)
        table, mpp = store.tables()[card.pipeline], np.array(store.mpp)
        # of tissue, as counts are: glass has no false positives, and would only make them look rare
        area_mm2 = float(result["pipelines"][card.pipeline].get("area_mm2") or 0.0)
        cases.append(Case(table["position"] * mpp, table["score"], s.objects * mpp, area_mm2))
        patients.append(s.item.patient)
        tumours.append(s.tumour)
    if not cases:
        answers = (r["pipelines"].get(card.pipeline, {}).get("reason") or r["reason"] for r in run.results.values())
        raise LabelsError(f"no slide could be scored with this model; the first: {next(answers, '')}")
    assert card.detection is not None
    about: dict[str, Any] = {"slides": len(cases), "patients": len(set(patients)), "failed": len(slides) - len(cases), "answers_withheld": withheld}
    about["tissue_mm2"] = round(sum(c.area_mm2 for c in cases), 4)
    return about | detector_figures(cases, patients, tumours, card.detection.threshold, card.detection.keep_above)


def detector_figures(cases: Sequence[Case], patients: Sequence[str], tumours: Sequence[str], threshold: float, keep_above: float) -> dict[str, Any]:
    """Counts and pooled precision, recall and F1 with 95 % intervals over patients, by MIDOG's matching and the optimal one; by tumour type; AP; FROC.

    False positives are per mm² of tissue.

    Detections below ``keep_above`` were not kept, so AP and FROC are of the others.
    """
    counted = [c.found_um[c.score >= np.float32(threshold)] for c in cases]
    facts: dict[str, Any] = {"radius_um": RADIUS_UM, "threshold": threshold}
    by_case = {m: [counts(found, c.truth_um, m) for found, c in zip(counted, cases, strict=True)] for m in MATCHINGS}
    facts |= _pooled(by_case["midog"], patients)
    facts["optimal"] = _pooled(by_case["optimal"], patients)
    area = np.array([c.area_mm2 for c in cases])
    false = np.array([s.fp for s in by_case["midog"]])
    facts["fp_per_mm2"] = bootstrap(lambda rows: float(false[rows].sum() / (area[rows].sum() or math.nan)), patients)
    empty = [i for i, c in enumerate(cases) if not len(c.truth_um)]
    if empty and area[empty].sum():
        facts["fp_per_mm2 without mitoses"] = round(float(false[empty].sum() / area[empty].sum()), 4)
    facts["average_precision"] = round(average_precision(cases), 4)
    facts["recall at false positives per mm²"] = {f"{rate:g}": round(r, 4) for rate, r in recall_at(cases, FROC_PER_MM2).items()}
    facts["scores kept above"] = keep_above
    groups = defaultdict(list)
    for i, tumour in enumerate(tumours):
        groups[tumour].append(i)
    if set(groups) - {""}:
        of = {name or "not told": rows for name, rows in sorted(groups.items())}
        facts["tumours"] = {name: _pooled([by_case["midog"][i] for i in rows], [patients[i] for i in rows]) for name, rows in of.items()}
    return facts


def _pooled(scores: Sequence[DetectionScore], patients: Sequence[str]) -> dict[str, Any]:
    """Counts of all together, and what follows from them with intervals."""

    def pooled(rows: np.ndarray) -> DetectionScore:
        return sum((scores[i] for i in rows), NONE)

    total = pooled(np.arange(len(scores)))
    facts: dict[str, Any] = {"tp": total.tp, "fp": total.fp, "fn": total.fn}
    for name in ("precision", "recall", "f1"):
        facts[name] = bootstrap(lambda rows, name=name: getattr(pooled(rows), name), patients)  # type: ignore[misc]
    return facts
