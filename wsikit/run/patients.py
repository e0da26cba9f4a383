"""A patient's answers: all slides together, as the models have them, and as people do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wsikit.aggregate.calls import call_patient
from wsikit.aggregate.doubt import outside_domain
from wsikit.aggregate.features import Inputs, read_inputs, together
from wsikit.aggregate.rates import poisson_interval
from wsikit.aggregate.region import pooled_region
from wsikit.aggregate.survival import predict_risk
from wsikit.models import RISK_PIPELINE, Card
from wsikit.review.risk import risk_again
from wsikit.run.cases import Case
from wsikit.run.job import Job

NEEDED = {"classify": "probability", "detect": "count", "segment": "region_mm2"}  # without it a slide's answer adds nothing to the patient's


class Reviewed(NamedTuple):
    """What people's words make of a patient: answers of the pipelines they had a part in, tissue, on how many slides they spoke, and who."""

    answers: dict[str, Any]
    tissue_mm2: float
    slides: int
    by: list[str]


def facts_of(cases: Sequence[Case]) -> dict[str, str]:
    """The other columns of a patient's slides in the cases CSV: what all of them say, and nothing of what they differ in."""
    rows = [case.extra for case in cases]
    names = {name for row in rows for name in row}
    said = {name: {row[name] for row in rows if row.get(name)} for name in names}
    return {name: next(iter(values)) for name, values in said.items() if len(values) == 1}


def patient_pipelines(job: Job, slides: Sequence[Mapping[str, Any]], cards: Mapping[str, Card], facts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A patient's answer from each pipeline, over all usable slides: an answer withheld on one slide does not count."""
    found: dict[str, Any] = {}
    for name, card in cards.items():
        answers = [s["pipelines"][name] for s in slides if name in s["pipelines"]]
        if not answers:
            continue
        usable = [a for a in answers if a["status"] == "ok" or a.get("probability")]
        if not usable:
            found[name] = {k: answers[0][k] for k in ("status", "reason", "model")}
        else:
            pooled = pooled_region if card.task == "segment" else _pooled
            found[name] = (call_patient(card, usable) if card.task == "classify" else pooled(usable)) | {"model": usable[0]["model"]}
    if (model := job.risk()) is not None:
        phantom = all(s["slide"]["phantom"] for s in slides)
        withheld = outside_domain(model.card, phantom)
        tissue_mm2, inputs = sum(s["tissue_mm2"] for s in slides), patient_inputs(slides)
        found[RISK_PIPELINE] = {"status": "abstained", "reason": withheld} if withheld else predict_risk(model, found, tissue_mm2, inputs, facts, job.counting)
    return found


def reviewed_patient(job: Job, slides: Sequence[Mapping[str, Any]], cards: Mapping[str, Card], facts: Mapping[str, str] | None = None) -> Reviewed | None:
    """A patient's answers with what people said of the usable slides; None where nobody said anything.

    Slides that nobody reviewed go in as the models have them. Where people named the class of slides and agree, that is the patient's;
    where they do not, there is none. The risk follows, see `wsikit.review.risk.risk_again`.
    """
    reviews = [s["review"] for s in slides if "review" in s]
    touched = {name for review in reviews for name in review["pipelines"]}
    if not touched:
        return None
    pipelines = [_as_reviewed(s) for s in slides]
    answers: dict[str, Any] = {}
    for name, card in cards.items():
        if found := [p[name] for p in pipelines if name in p]:
            answers[name] = _together_again(card, found) | {"model": found[0]["model"]}
    tissue = sum(max(0.0, s["tissue_mm2"] + s.get("review", {}).get("tissue_change_mm2", 0.0)) for s in slides)
    risk = job.risk()
    if risk is not None and RISK_PIPELINE in touched:
        how: dict[str, Any] = {"edited": any(r.get("edited", True) for r in reviews), "phantom": all(s["slide"]["phantom"] for s in slides)}
        how |= {"counting": job.counting}
        answers[RISK_PIPELINE] = risk_again(risk, answers, tissue, patient_inputs(slides), facts, **how)
    by = sorted({person for review in reviews for person in review["by"]})
    return Reviewed({name: a for name, a in answers.items() if name in touched}, tissue, len(reviews), by)


def _as_reviewed(slide: Mapping[str, Any]) -> dict[str, Any]:
    said = slide.get("review", {"pipelines": {}})["pipelines"]
    return {name: dict(said.get(name, answer)) | {"model": answer["model"]} for name, answer in slide["pipelines"].items()}


def _together_again(card: Card, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    usable = [a for a in answers if a.get(NEEDED[card.task]) not in (None, {})]
    if not usable:
        found = {k: answers[0][k] for k in ("status", "reason")}
    elif card.task == "classify":
        found = call_patient(card, usable)
    elif card.task == "segment":
        found = pooled_region(usable)
    else:
        found = _pooled(usable) | {"people": {"not_looked_at": sum(a["people"]["not_looked_at"] if "people" in a else a["count"] for a in usable)}}
        if withheld := next((a["withheld"] for a in usable if a.get("withheld")), ""):
            found["withheld"] = withheld
    return found | _agreed([a["verdict"] for a in answers if "verdict" in a], counted="count" in found)


def _agreed(verdicts: Sequence[Mapping[str, Any]], counted: bool) -> dict[str, Any]:
    """What people's calls of several slides make of the patient's."""
    if not verdicts:
        return {}
    calls = list(dict.fromkeys(v["call"] for v in verdicts))
    overruled = any(v["verdict"] == "overruled" for v in verdicts) or len(calls) > 1
    said = {"verdict": "overruled" if overruled else "accepted", "comment": "; ".join(v["comment"] for v in verdicts if v["comment"])}
    if counted:  # a count stays a count
        return {"verdict": said}
    if len(calls) > 1:
        return {"verdict": said, "status": "abstained", "reason": f"people called slides of this patient differently: {', '.join(calls)}", "call": ""}
    return {"verdict": said, "status": "ok", "reason": "", "call": calls[0]}


def patient_inputs(slides: Sequence[Mapping[str, Any]]) -> Inputs | None:
    """What was measured on the tiles of all slides together, for a survival model that needs it."""
    measured = [read_inputs(s["survival_inputs"]) for s in slides if "survival_inputs" in s]
    return together(measured) if measured else None


def _pooled(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts and areas of all slides together; the hotspot, and each score, is that of the densest slide.

    Slides with a whole window come first, as places do on one slide: two figures in a crumb of tissue are no density.
    """
    count, area = sum(a["count"] for a in answers), sum(a["area_mm2"] for a in answers)
    low, high = poisson_interval(count, area)
    densest = max((a["hotspot"] for a in answers), key=lambda h: (_is_whole(h), h["per_mm2"]))
    numbers = {"count": count, "area_mm2": area, "per_mm2": count / area, "low": low, "high": high}
    found = {"status": "ok", "reason": "", **{k: round(v, 6) for k, v in numbers.items()}, "hotspot": densest}
    found["left_out"] = {"blurred_mm2": round(sum(a.get("left_out", {}).get("blurred_mm2", 0.0) for a in answers), 6)}
    presets = {name for a in answers for name in a.get("grading", {})}
    graded = {name: [a["grading"][name] for a in answers if name in a.get("grading", {})] for name in sorted(presets)}
    highest = {name: max(g, key=lambda one: (_is_whole(one), one.get("count_in_area", -1.0))) for name, g in graded.items()}
    return found | ({"grading": highest} if graded else {})


def _is_whole(found: Mapping[str, Any]) -> bool:
    """Whether a window, or a score, is of as much tissue as was asked for."""
    return found.get("status", "ok") == "ok" and not {"insufficient_area", "partial"} & set(found["flags"])
