"""Which score would a mitotic count give, and how sure is that? Thresholds as published, each with its own area.

Only the mitotic component: differentiation, necrosis and atypia are a pathologist's, and so is the grade.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsikit.aggregate.hotspot import Hotspot
from wsikit.aggregate.rates import DetectorError, poisson_interval, score_probabilities

COMPONENT = "mitotic component only, no grade: differentiation, necrosis and atypia are judged by a pathologist"
FIELDS = 10  # of every rule here
YES, NO = ("yes", "true", "1", "y"), ("no", "false", "0", "n")


@dataclass(frozen=True)
class Preset:
    """A published rule: the area that is counted, at how many figures each next score begins, what the scores are called, and where it is from.

    ``not_for`` are diagnoses for which its guideline says that it is not used.
    """

    title: str
    area_mm2: float
    bounds: tuple[int, ...]
    scores: tuple[str, ...]
    source: str
    not_for: tuple[str, ...] = ()


_NOT_FNCLCC = (
    *("rhabdomyosarcoma", "ewing", "alveolar soft part sarcoma", "epithelioid sarcoma", "clear cell sarcoma"),
    *("rms", "arms", "erms", "asps"),
)
_FIELD_UTERINE = 2.376  # mm² of ten fields 0.55 mm wide
PRESETS = {
    "fnclcc": Preset(
        "FNCLCC mitotic score", 1.734, (10, 20), ("1", "2", "3"), "FNCLCC: 0–9, 10–19, 20 or more in ten fields of 0.1734 mm²", _NOT_FNCLCC
    ),
    "uterine-spindle": Preset(
        "Uterine smooth muscle, spindle cell", _FIELD_UTERINE, (10,), ("below", "reached"), "10 or more in ten fields of 0.2376 mm² (4.2/mm²)"
    ),
    "uterine-epithelioid": Preset(
        "Uterine smooth muscle, epithelioid", _FIELD_UTERINE, (4,), ("below", "reached"), "4 or more in ten fields of 0.2376 mm² (1.68/mm²)"
    ),
}  # fmt: skip


def grade(name: str, spot: Hotspot, facts: Mapping[str, str], error: DetectorError | None = None) -> dict[str, Any]:
    """The score of a preset from the densest window of its own area.

    ``not_applicable`` after neoadjuvant therapy and for diagnoses that the guideline leaves out, as the cases CSV says in its columns ``neoadjuvant``
    (yes or no) and ``diagnosis``; what it does not say is listed in ``assumes``. A window with too little tissue is scaled to the preset's area and
    flagged ``rescaled``; ``borderline`` says that the 95 % limits of the count reach another score; a ``specimen`` that is a biopsy gives a ``minimum``.

    Examples
    --------
    >>> spot = Hotspot(0, 0, 1, 1, 1.734, 12, 6.92, 3.6, 12.1, ())
    >>> found = grade("fnclcc", spot, {"neoadjuvant": "no", "diagnosis": "leiomyosarcoma"})
    >>> found["score"], found["flags"], found["assumes"]
    ('2', ['borderline'], [])
    """
    preset = PRESETS[name]
    about = {"title": preset.title, "rule": preset.source, "component": COMPONENT}
    reason = not_applicable(preset, facts)
    if reason:
        return {"status": "not_applicable", "reason": reason, **about}
    short = {"insufficient_area", "partial"} & set(spot.flags)
    scale = preset.area_mm2 / spot.tissue_mm2 if short else 1.0
    low, high = (v * scale for v in poisson_interval(spot.count, 1.0))
    score = _score(spot.count * scale, preset.bounds)
    probability = score_probabilities(spot.count, [b / scale for b in preset.bounds], error)
    flags = [*spot.flags, *(["rescaled"] if short else []), *(["borderline"] if _score(low, preset.bounds) != _score(high, preset.bounds) else [])]
    if re.search(r"biops|\b(core|needle)\b", facts.get("specimen", "").lower()):
        flags.append("minimum")
    return {
        "status": "ok",
        "reason": "",
        "score": preset.scores[score],
        "probability": {s: round(p, 4) for s, p in zip(preset.scores, probability, strict=True)},
        "probability_holds": "chance of the count" if error is None else "chance of the count, and the detector's errors on its validation data",
        "count_in_area": round(spot.count * scale, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "area_mm2": preset.area_mm2,
        "window": spot.to_json(),
        "flags": flags,
        "assumes": assumptions(preset, facts),
        **about,
    }


def not_applicable(preset: Preset, facts: Mapping[str, str]) -> str:
    """Why the rule is not to be used for this case; empty where nothing says so."""
    treated = facts.get("neoadjuvant", "").strip().lower()
    if treated and treated not in (*YES, *NO):
        return f"the cases say neoadjuvant '{treated[:40]}', which is neither yes nor no"
    if treated in YES:
        return "after neoadjuvant therapy the count says nothing about grade"
    diagnosis = " ".join(re.sub(r"['’]s\b|[^a-z0-9]", " ", facts.get("diagnosis", "").lower()).split())
    if any(_names(diagnosis, excluded) for excluded in preset.not_for):
        return f"not used for {diagnosis[:60]}: its grade does not follow from this score"
    return ""


def _names(diagnosis: str, excluded: str) -> bool:
    """Whole words, so that 'rms' is not found in 'harms', nor in 'non-rms'."""
    return re.search(rf"(?<!\bnon )(?<!\bnot )\b{excluded}s?\b", diagnosis) is not None


def assumptions(preset: Preset, facts: Mapping[str, str]) -> list[str]:
    """What the score takes for granted, since the cases do not say."""
    found = [] if facts.get("neoadjuvant") else ["no neoadjuvant therapy (no column 'neoadjuvant' in the cases)"]
    if preset.not_for and not facts.get("diagnosis"):
        found.append("a tumour type that is graded so (no column 'diagnosis' in the cases)")
    return found


def _score(count: float, bounds: Sequence[int]) -> int:
    return sum(count >= b - 1e-9 for b in bounds)
