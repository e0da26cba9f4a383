"""The answers again, with what people said: the same rules as for the models' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wsikit.aggregate.calls import call_slide
from wsikit.aggregate.counting import count_mitoses
from wsikit.grid import on_mask
from wsikit.review.changes import NAMES, Entry, Verdict
from wsikit.review.objects import UNSEEN
from wsikit.store import Table

if TYPE_CHECKING:
    from wsikit.review import Review


def count_again(review: Review, pipeline: str) -> dict[str, Any]:
    """Count, rate with interval and hotspot over the tissue that is left, and who said what: ``people``.

    ``people`` has how many were confirmed, rejected and added; how many counted objects nobody looked at; and how many that should count lie off
    the tissue and do not. Where the model withholds its answer (``withheld`` has its reason) only what people say counts; until they say something,
    there is no count. Where counts are confined to a region that was not found, what people draw as tissue is all that is counted in.
    """
    before = review.results.get(pipeline, {})
    if before.get("status") != "ok" and (review.objects(pipeline).label == UNSEEN).all():
        return {k: v for k, v in before.items() if k != "model"}
    found, counted = review.objects(pipeline), review.counted(pipeline)
    detection = review.cards[pipeline].detection
    assert detection is not None
    below = int((~counted[: found.n_model]).sum())
    how: dict[str, Any] = {"gradings": review.counting.grading, "facts": review.facts, "chance": False}
    window = review.counting.window(detection.hotspot_mm2)
    answer = count_mitoses(found.position[counted], below, detection.threshold, review.grounds(pipeline), window, **how)
    if answer["status"] != "ok" and review.within is not None and review.within.reason:
        answer["reason"] = f"{review.within.reason}; what is drawn as tissue is counted in"
    if before.get("status") != "ok":
        answer["withheld"] = before.get("reason") or before.get("status", "not scored")
    seen, added = found.label != UNSEEN, np.arange(len(found.label)) >= found.n_model
    answer["people"] = {
        "confirmed": int((seen & found.counts & ~added).sum()),
        "rejected": int((seen & ~found.counts & found.by_model).sum()),
        "added": int((added & found.counts).sum()),
        "not_looked_at": int((counted & ~seen).sum()),
        "off_tissue": int((found.counts & ~counted).sum()),
        "labels": {name: n for i, name in enumerate(NAMES) if (n := int((found.label == i).sum()))},
    }
    return answer


def call_again(review: Review, pipeline: str, table: Table) -> dict[str, Any]:
    """The call from the tiles whose centre was not taken away; an answer that was withheld for the model's sake stays so."""
    before = review.results[pipeline]
    if before["status"] != "ok" and not before.get("probability"):
        return {k: v for k, v in before.items() if k != "model"}
    centre = table["origin"] + table["size"] / 2
    gone = on_mask(centre, review.gone | review.outside, review.downsample)
    outlying = table["outlying"][~gone] if "outlying" in table else None
    attention = table["attention"][~gone] if "attention" in table else None
    return call_slide(review.cards[pipeline], table["probability"][~gone], outlying, attention)


def with_verdict(answer: dict[str, Any], entry: Entry | None, model_call: str | None) -> dict[str, Any]:
    """The answer with a person's call in the place of the model's, which stays named; probabilities remain the model's."""
    if entry is None:
        return answer
    assert isinstance(entry.change, Verdict)
    said: Mapping[str, Any] = {
        "verdict": entry.change.verdict,
        "call": entry.change.call,
        "model_call": model_call,
        "by": entry.by,
        "time": entry.time,
        "comment": entry.comment,
    }
    if "people" in answer:  # a count stays a count
        return answer | {"verdict": said}
    return answer | {"status": "ok", "reason": "", "call": entry.change.call, "verdict": said}
