"""What can a person say of a slide? Statements about places and answers, checked before they are believed or written.

A statement names a place, not a row of a table, so a review still holds when another model scores the slide anew.
"""

from __future__ import annotations

from typing import Annotated, Literal

import shapely
from pydantic import BaseModel, ConfigDict, Field, field_validator
from shapely import MultiPolygon
from shapely.geometry.base import BaseGeometry

# what a place can be, whether it counts as a mitosis, and as what it is learnt from ("" for not at all)
LABELS: dict[str, tuple[bool, str]] = {
    "mitosis": (True, "mitosis"),
    "atypical mitosis": (True, "mitosis"),
    "lookalike": (False, "lookalike"),
    "apoptosis": (False, "lookalike"),
    "unsure": (False, ""),
}
NAMES = tuple(LABELS)
LabelName = Literal["mitosis", "atypical mitosis", "lookalike", "apoptosis", "unsure"]
Initials = Annotated[str, Field(pattern=r"^\w[\w .-]{0,19}$")]
Text = Annotated[str, Field(max_length=2000)]
At = tuple[float, float]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Label(_Part):
    """The object at ``at`` (level-0 px x, y) is a ``label``; where the model found none, it is added. ``score`` is what the model gave it then."""

    kind: Literal["label"] = "label"
    pipeline: str
    at: At
    label: LabelName
    score: float | None = None


class Move(_Part):
    """The object at ``at`` lies in truth at ``to`` (level-0 px x, y)."""

    kind: Literal["move"] = "move"
    pipeline: str
    at: At
    to: At


class Area(_Part):
    """A region in level-0 px, as GeoJSON's MultiPolygon has coordinates: left out of everything, or tissue, or no tissue."""

    kind: Literal["area"] = "area"
    effect: Literal["exclude", "tissue", "background"]
    polygons: list[list[list[At]]] = Field(min_length=1)

    @field_validator("polygons")
    @classmethod
    def _encloses(cls, value: list[list[list[At]]]) -> list[list[list[At]]]:
        shape = _multipolygon(value)
        if shape.is_empty or not shape.is_valid:
            raise ValueError("a region that is empty or crosses itself")
        return value

    @classmethod
    def of(cls, effect: Literal["exclude", "tissue", "background"], shape: BaseGeometry) -> Area:
        """From any shape that encloses something; one that crosses itself is mended, coordinates are rounded to 0.01 px."""
        mended = shapely.make_valid(shapely.set_precision(shapely.make_valid(shape), 0.01))
        parts = [p for p in shapely.get_parts(shapely.get_parts([mended])) if p.geom_type == "Polygon" and p.area > 0]
        return cls(effect=effect, polygons=[[_ring(p.exterior), *map(_ring, p.interiors)] for p in parts])

    @property
    def shape(self) -> MultiPolygon:
        """The region, in level-0 px."""
        return _multipolygon(self.polygons)


class Verdict(_Part):
    """A pipeline's call is accepted as ``call``, or overruled by it."""

    kind: Literal["verdict"] = "verdict"
    pipeline: str
    verdict: Literal["accepted", "overruled"]
    call: str = Field(min_length=1, max_length=80)


class Undo(_Part):
    """Change ``n`` is taken back."""

    kind: Literal["undo"] = "undo"
    n: int = Field(ge=1)


Change = Annotated[Label | Move | Area | Verdict | Undo, Field(discriminator="kind")]


class Entry(_Part):
    """A change, its number from 1, who made it and when (UTC)."""

    n: int = Field(ge=1)
    time: str
    by: Initials
    comment: Text = ""
    change: Change


def _ring(ring: BaseGeometry) -> list[At]:
    return [(float(x), float(y)) for x, y in shapely.get_coordinates(ring)]


def _multipolygon(polygons: list[list[list[At]]]) -> MultiPolygon:
    try:
        return MultiPolygon([(rings[0], rings[1:]) for rings in polygons])
    except (IndexError, ValueError) as e:
        raise ValueError("a ring of a region has fewer than three corners") from e
