"""A classifier on labelled slides: metrics at three levels, a page, and predictions as CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.evaluate.page import write_evaluation
from wsikit.evaluate.slides import MEAN, SHARE, Scored, patient_answers, patient_results, score_labelled, slide_answers, tile_answers
from wsikit.metrics import BOOTSTRAP_DRAWS, balanced_accuracy, bootstrap, confusion
from wsikit.metrics.classification import Answers, calibration_of, evaluate_answers, rates, risk_coverage
from wsikit.models import Card
from wsikit.run.results import write_csv
from wsikit.train.labels import Labelled, of_several_classes, read_labels

FOLDER, DRAWS = "evaluation", BOOTSTRAP_DRAWS
FEW = 50  # patients, of which an ECE is not stable
People = Sequence[tuple[Labelled, Mapping[str, Any]]]  # patients with their results
_BY_SITE = ("accuracy", "balanced accuracy", "AUROC macro")


def evaluate_classifier(card: Card, folder: Path, labels: Path, out: Path, workers: int | None) -> dict[str, Any]:
    """Facts of a classifier on labelled slides, and ``out/evaluation``: a page, and predictions of tiles, slides and patients.

    Raises
    ------
    LabelsError
        The CSV cannot be used, or no slide could be scored.
    """
    items = read_labels(labels, card.classes)
    kept = score_labelled(card, folder, items, out, workers)
    called = [str(s.result["call"]) if s.result["status"] == "ok" else "" for s in kept]
    why = Counter(s.result["reason"] for s in kept if s.result["status"] != "ok")
    facts = _calls([s.item for s in kept], called, card) | {"failed": len(items) - len(kept), "why withheld": dict(why)}
    if note := of_several_classes([s.item.patient for s in kept], [s.item.label for s in kept]):
        facts |= {"note": note}
    if not any(s.usable for s in kept):
        return facts
    people, pages = patient_results(card, kept), out / FOLDER
    levels = _levels(card, kept, people)
    facts |= _figures(card, levels, people)
    _write_predictions(pages, card, levels, kept, people)
    return facts | {"page": str(write_evaluation(pages, card, facts, levels))}


def _levels(card: Card, kept: Sequence[Scored], people: People) -> dict[str, dict[str, Answers]]:
    """Answers of tiles, slides and patients, the last two by both of DeepPATH's rules."""
    return {
        "tile": {MEAN: tile_answers(card, kept)[0]},
        "slide": {rule: slide_answers(card, kept, rule) for rule in (MEAN, SHARE)},
        "patient": {rule: patient_answers(card, people, rule) for rule in (MEAN, SHARE)},
    }


def _figures(card: Card, levels: Mapping[str, Mapping[str, Answers]], people: People) -> dict[str, Any]:
    """Metrics of each level, and of patients what else there is to say of them."""
    patients = levels["patient"][MEAN]
    few = {"note": f"{len(patients)} patients: an ECE of so few is not stable"} if len(patients) < FEW else {}
    return {
        "metrics": {level: {rule: evaluate_answers(a, card.classes, DRAWS) for rule, a in rules.items()} for level, rules in levels.items()},
        "by class (patients)": rates(patients.truth, patients.probability.argmax(1), card.classes),
        "calibration (patients)": calibration_of(patients) | few,
        "risk-coverage (patients)": {"AURC": risk_coverage(patients)[2]},
        "sets (patients)": _sets(people),
        "by site (patients)": _sites(patients, card),
    }


def _calls(items: Sequence[Labelled], called: Sequence[str], card: Card) -> dict[str, Any]:
    """How the slides' calls, as given, compare with the labels."""
    truth, patients = [i.label for i in items], [i.patient for i in items]
    right = np.array([t == c for t, c in zip(truth, called, strict=True)])

    def balanced(rows: np.ndarray) -> float:
        return balanced_accuracy(confusion([truth[i] for i in rows], [called[i] for i in rows], card.classes))

    return {
        "slides": len(items),
        "patients": len(set(patients)),
        "withheld": list(called).count(""),
        "accuracy (withheld counts as wrong)": bootstrap(lambda rows: float(right[rows].mean()), patients),
        "balanced accuracy": bootstrap(balanced, patients),
        "classes": card.classes,
        "confusion (last column: withheld)": confusion(truth, called, card.classes).tolist(),
    }


def _sets(people: People) -> dict[str, Any]:
    """How often the sets of a calibrated model hold the truth, and how large they are; empty for another model."""
    told = [(i, r) for i, r in people if "set" in r]
    if not told:
        return {}
    held = np.array([i.label in r["set"] for i, r in told])
    size = np.array([len(r["set"]) for _, r in told])
    interval = bootstrap(lambda rows: float(held[rows].mean()), [i.patient for i, _ in told])
    return {"stated coverage": told[0][1]["coverage"], "found coverage": interval, "mean size": float(size.mean()), "single": float((size == 1).mean())}


def _sites(answers: Answers, card: Card) -> list[dict[str, Any]]:
    """Each site alone, and all the others without it; nothing where no site is told."""
    sites = sorted(set(answers.site) - {""})
    rows = []
    for site in sites if len(sites) > 1 else []:
        for what, chosen in (("this site", answers.site == site), ("all others", answers.site != site)):
            found = evaluate_answers(answers.only(chosen), card.classes, draws=500)
            rows.append({"site": site, "of": what, "patients": int(chosen.sum())} | {k: found[k] for k in _BY_SITE})
    return rows


def _write_predictions(folder: Path, card: Card, levels: Mapping[str, Mapping[str, Answers]], slides: Sequence[Scored], people: People) -> None:
    """``tiles.csv``, ``slides.csv`` and ``patients.csv`` in the column order of the code of Foersch et al.: Patient_ID, Label, Prediction, then classes."""
    columns = ["Patient_ID", "Label", "Prediction", *card.classes]
    for level, rules in levels.items():
        a = rules[MEAN]
        top = a.probability.argmax(1)
        rows = (
            {"Patient_ID": a.patient[i], "Label": card.classes[a.truth[i]], "Prediction": card.classes[top[i]]}
            | {c: round(float(p), 6) for c, p in zip(card.classes, a.probability[i], strict=True)}
            for i in range(len(a))
        )
        write_csv(folder / f"{level}s.csv", columns, rows)
    answers = [("slide", s.slide_id, s.item, s.result) for s in slides] + [("patient", i.patient, i, r) for i, r in people]
    said = ("status", "reason", "call", "doubt", "outlying")
    decisions = (
        {"level": level, "name": name, "Patient_ID": i.patient, "Label": i.label, "set": " ".join(r.get("set", []))} | {k: r.get(k, "") for k in said}
        for level, name, i, r in answers
    )
    write_csv(folder / "decisions.csv", ["level", "name", "Patient_ID", "Label", "status", "reason", "call", "doubt", "set", "outlying"], decisions)
