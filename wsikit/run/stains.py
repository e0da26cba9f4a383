"""Which colours a run's parts are in: kept pixels and pictures in those of the run, each model in those that its card names.

A model was trained on one method and its reference. Whatever ``--stain`` and ``--stain-target`` ask for the pixels, it sees
these, so its numbers do not depend on how the pixels are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsikit.grid import Raster
from wsikit.models import Card
from wsikit.run.job import Job
from wsikit.slide import Slide
from wsikit.stain import StainFit, get_method
from wsikit.store import SlideStore
from wsikit.survey import sample_tissue

_UNCHANGED = "none"
AS_SCANNED = StainFit(method=_UNCHANGED, trusted=True)


def stain_key(job: Job) -> Any:
    """What the survey of a slide depends on of the job's stain; a target's name does not matter."""
    return [job.stain, job.stain_target.model_dump(exclude={"image"})] if job.stain_target else job.stain


def model_stains(slide: Slide, path: Path, job: Job, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The slide's fits, by method, for cards that name another method than the run: those there are, and those still wanted.

    They are made of the same pixels as the run's own.
    """
    known: dict[str, Any] = attributes.get("model_stains", {})
    wanted = {card.stain for card in job.cards().values()} - {attributes["stain"]["method"], _UNCHANGED, *known}
    if not wanted:
        return known
    pixels = sample_tissue(slide, Raster.from_json(attributes["survey"]["raster"]), SlideStore(path).tissue() == 1)
    return known | {name: get_method(name).fit(pixels).model_dump() for name in sorted(wanted)}


def stain_of(attributes: Mapping[str, Any], card: Card | None) -> dict[str, Any]:
    """The fit that a model's pixels are normalised with, as the store keeps it; that of the kept pixels without a card."""
    native: dict[str, Any] = attributes["stain"]
    if card is None:
        return native
    if card.stain == _UNCHANGED:
        return AS_SCANNED.model_dump()
    if card.stain == native["method"]:
        return native | {"target": None} if native.get("target") else native
    fit: dict[str, Any] = attributes["model_stains"][card.stain]
    return fit
