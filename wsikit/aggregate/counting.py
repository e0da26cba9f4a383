"""The mitotic count of a slide: whole, in its densest window, and as the scores that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wsikit.aggregate.features import is_measured
from wsikit.aggregate.grading import FIELDS, PRESETS, grade
from wsikit.aggregate.hotspot import Ground, Hotspot, Pair, Shape, Window, expected_maximum
from wsikit.aggregate.rates import DetectorError, corrected_rate, poisson_interval
from wsikit.errors import UsageError
from wsikit.models._card import Detection

NULL_STEPS = 12  # of the window's side, where chance is drawn
NEAR = 0.1  # of the threshold: what is counted, or not, by little
MOST_DRAWN = 20_000  # mitoses: with more, nobody asks whether there is a hotspot, and 200 draws take seconds


class Counting(BaseModel):
    """How mitoses are counted: area and shape of the densest window, and which published scores are wanted, each of its own area in that shape.

    ``within`` names a model of regions that the answers are confined to, those of classifiers too.
    ``area_mm2`` None takes the model's own; ``field_mm`` is the diameter of a microscope's field, and ``fields`` how many there are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    area_mm2: float | None = Field(None, gt=0, le=1000)
    shape: Shape = "square"
    field_mm: float | None = Field(None, gt=0, le=10)
    fields: int = Field(10, ge=1, le=100)
    grading: tuple[str, ...] = ()
    within: str = ""

    @field_validator("grading")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in PRESETS:
                raise ValueError(f"no grading is called '{name}'; there are: {', '.join(PRESETS)}")
        return tuple(dict.fromkeys(names))

    def window(self, model_mm2: float) -> Window:
        """What to look for on a slide, with the model's own area where none was chosen."""
        if self.field_mm is not None:
            return Window.of_fields(self.field_mm, self.fields, self.shape)
        return Window(self.area_mm2 or model_mm2, self.shape, self.fields)


def counting_behind(names: Iterable[str], counting: Counting) -> dict[str, Any]:
    """What of this choice the features of these names rest on, as plain values: nothing of what is as the models say.

    >>> counting_behind(["mitosis.hotspot_per_mm2", "age"], Counting(area_mm2=1.0, grading=("fnclcc",)))
    {'area_mm2': 1.0}
    >>> counting_behind(["mitosis.per_mm2"], Counting(area_mm2=1.0))
    {}
    """
    wanted = set[str]()
    for name in names:
        if "." in name and not is_measured(name):
            wanted |= {"within"} | ({"area_mm2", "shape", "field_mm", "fields"} if name.endswith(".hotspot_per_mm2") else set())
    return {k: v for k, v in counting.model_dump(mode="json", exclude_defaults=True).items() if k in wanted}


_TYPED = {"area_mm2": "--hotspot-area", "shape": "--hotspot-shape", "field_mm": "--field-diameter", "fields": "--fields", "grading": "--grading"}


def parse_counting(**given: Any) -> Counting:
    """The settings that were given; those that are None have their defaults.

    Raises
    ------
    UsageError
        A number is out of its range, a name is not known, or both an area and a field are given.
    """
    chosen = {k: v for k, v in given.items() if v is not None}
    if "area_mm2" in chosen and "field_mm" in chosen:
        raise UsageError("give --hotspot-area, or --field-diameter with --fields, not both: each says how much is counted in")
    try:
        return Counting(**chosen)
    except ValidationError as e:
        first = e.errors()[0]
        name = str(first["loc"][0])
        raise UsageError(f"{_TYPED.get(name, name)}: {first['msg'].removeprefix('Value error, ')}") from e


class Grounds:
    """A slide's tissue, bool (H, W), a pixel of it covering ``downsample`` level-0 px (x, y), with the places of every window that was asked for."""

    def __init__(self, tissue: np.ndarray, downsample: Pair, mpp: Pair) -> None:
        self.tissue, self.downsample, self.mpp = tissue, downsample, mpp
        self._of: dict[Window, Ground] = {}

    @property
    def tissue_mm2(self) -> float:
        """Its area."""
        return float(self.tissue.sum()) * self.downsample[0] * self.downsample[1] * self.mpp[0] * self.mpp[1] / 1e6

    def hotspot(self, position: np.ndarray, window: Window) -> Hotspot | None:
        """The densest such window for these mitoses; None without tissue."""
        if window not in self._of:
            self._of[window] = Ground(self.tissue, self.downsample, self.mpp, window)
        return self._of[window].hotspot(position)


def count_mitoses(
    position: np.ndarray,
    below: int,
    threshold: float,
    grounds: Grounds,
    window: Window,
    *,
    gradings: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    error: DetectorError | None = None,
    chance: bool = True,
) -> dict[str, Any]:
    """A slide's answer from its counted mitoses (float64 (M, 2) level-0 px) and how many stayed ``below`` the threshold.

    With ``chance``, also how full the densest window would be if they lay at random, which takes 200 draws.
    """
    spot = grounds.hotspot(position, window)
    result = count_slide(len(position), below, threshold, grounds.tissue_mm2, spot)
    if spot is None:
        return result
    if chance and (null := _chance(position, grounds, window)):
        result["hotspot"]["chance"] = null
    if error is not None:
        result["corrected"] = _corrected(len(position), grounds.tissue_mm2, spot, error)
    if gradings:
        result["grading"] = {name: _graded(name, position, grounds, window.shape, facts or {}, error) for name in gradings}
    return result


def count_slide(count: int, below_threshold: int, threshold: float, tissue_mm2: float, hotspot: Hotspot | None) -> dict[str, Any]:
    """The mitotic count of a slide: ``count`` merged detections at or above the model's threshold, per mm² of tissue."""
    if tissue_mm2 <= 0 or hotspot is None:
        return {"status": "abstained", "reason": "the slide has no tissue", "count": None, "area_mm2": 0.0}
    low, high = poisson_interval(count, tissue_mm2)
    return {
        "status": "ok",
        "reason": "",
        "count": count,
        "area_mm2": round(tissue_mm2, 6),
        "per_mm2": round(count / tissue_mm2, 6),
        "low": round(low, 6),
        "high": round(high, 6),
        "below_threshold": below_threshold,
        "threshold": threshold,
        "hotspot": hotspot.to_json(),
    }


def near_threshold(score: np.ndarray, detection: Detection) -> dict[str, Any]:
    """How many detections, float32 (M,), score within `NEAR` of the threshold: counted ones, and others; those None where such low ones are not kept.

    >>> near_threshold(np.float32([0.35, 0.45, 0.55, 0.95]), Detection(threshold=0.5))
    {'within': 0.1, 'counted': 1, 'not_counted': 1}
    """
    counted = score >= np.float32(detection.threshold)
    near = np.abs(score - np.float32(detection.threshold)) <= NEAR
    all_kept = detection.keep_above <= detection.threshold - NEAR
    return {"within": NEAR, "counted": int((near & counted).sum()), "not_counted": int((near & ~counted).sum()) if all_kept else None}


def _graded(name: str, position: np.ndarray, grounds: Grounds, shape: Shape, facts: Mapping[str, str], error: DetectorError | None) -> dict[str, Any]:
    """A preset is counted in its own area, never in another and rescaled; as fields, in as many as its rule says."""
    spot = grounds.hotspot(position, Window(PRESETS[name].area_mm2, shape, FIELDS))
    assert spot is not None
    return grade(name, spot, facts, error)


def _chance(position: np.ndarray, grounds: Grounds, window: Window) -> dict[str, Any] | None:
    """What the densest window would hold by chance; None for fields, where there is only one place for it, or nothing to place."""
    if window.shape == "fields" or not 0 < len(position) <= MOST_DRAWN or grounds.tissue_mm2 < window.area_mm2:
        return None
    coarse = Ground(grounds.tissue, grounds.downsample, grounds.mpp, window, step_um=1000 * window.area_mm2**0.5 / NULL_STEPS)
    best = coarse.densest(position)
    return None if best is None or best.flags else expected_maximum(len(position), coarse, best.count)


def _corrected(count: int, tissue_mm2: float, spot: Hotspot, error: DetectorError) -> dict[str, Any]:
    """True figures behind the detections, if the detector errs here as it did on its validation data."""
    about: dict[str, Any] = {"from": {"tp": error.tp, "fp": error.fp, "fn": error.fn}, "factor": round(error.factor, 4)}
    for name, n, area in (("slide", count, tissue_mm2), ("hotspot", spot.count, spot.tissue_mm2)):
        about[name] = dict(zip(("per_mm2", "low", "high"), (round(v, 6) for v in corrected_rate(n, area, error)), strict=True))
    return about
