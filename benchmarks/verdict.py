"""What the figures say: targets reached or missed, where a run's time went, and how far a stage is from its floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from case import Floor
from runs import Measured

GIB = 2**30


@dataclass(frozen=True)
class Target:
    """One promise: ``value`` is what was measured, ``wanted`` what was promised; ``at_most`` where less is better."""

    what: str
    value: float
    wanted: float
    unit: str = "×"
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """``reached``, ``missed``, or ``not measured``."""
        if math.isnan(self.value):
            return "not measured"
        return "reached" if (self.value <= self.wanted) == self.at_most or self.value == self.wanted else "missed"

    def to_json(self) -> dict[str, Any]:
        value = None if math.isnan(self.value) else round(self.value, 3)
        return {"what": self.what, "value": value, "wanted": self.wanted, "unit": self.unit, "at_most": self.at_most, "verdict": self.verdict}


class Figures:
    """All cases, to be asked for: how fast by the clock, or per second of a core at work."""

    def __init__(self, measured: list[Measured], *, per_core: bool = False) -> None:
        self.measured, self.per_core = measured, per_core
        self.cores = max((m.case.cores for m in measured), default=1)

    def find(self, stage: str, who: str, cores: int = 1, slide: str | None = None) -> Measured | None:
        """The case, if it was measured; on the first slide that it was measured on, or on this one."""
        same = (m for m in self.measured if m.case.stage == stage and m.case.who == who and m.case.cores == cores and slide in (None, m.case.slide))
        return next((m for m in same if m.runs), None)

    def rate(self, stage: str, who: str, cores: int = 1, slide: str | None = None) -> float:
        """Its median units a second; NaN if there is none."""
        found = self.find(stage, who, cores, slide)
        if found is None:
            return math.nan
        return found.rate_per_core if self.per_core else found.rate


def roofline(m: Measured, f: Figures) -> dict[str, Any]:
    """The rate that the floors of a case leave it, the share of it that was reached, and which floor is the largest; empty where there is none.

    While the processor works on one block the disk takes another, so the slower of the two is the roof; what the processor does, it does
    one after the other.
    """
    seconds = {floor: _seconds(floor, m, f) for floor in m.case.floors}
    of = {kind: sum(s for floor, s in seconds.items() if floor.resource == kind and not math.isnan(s)) for kind in ("processor", "disk")}
    kind = max(of, key=lambda k: of[k])
    if not m.runs or not of[kind] or any(math.isnan(s) for s in seconds.values()):
        return {}
    largest = max((floor for floor in seconds if floor.resource == kind), key=lambda floor: seconds[floor])
    share = m.rate * of[kind]
    return {
        "roof": _figures(1 / of[kind]),
        "of_roof": round(share, 3),
        "bound": largest.who,
        "floor_seconds_per_unit": {floor.who: _figures(s) for floor, s in seconds.items()},
        "seconds_per_unit": _figures(1 / m.rate),
    }


def _seconds(floor: Floor, m: Measured, f: Figures) -> float:
    return floor.times / f.rate(floor.stage, floor.who, floor.cores or m.case.cores, m.case.slide)


def _figures(value: float) -> float:
    return float(f"{value:.4g}")


def breakdown(m: Measured) -> dict[str, float]:
    """Where a run's time went on one core, by its own clock, in ms per unit; the largest first, and what no stage accounts for."""
    if m.case.cores > 1 or not any(r["facts"].get("seconds_of") for r in m.runs):
        return {}
    names = sorted({stage for r in m.runs for stage in r["facts"].get("seconds_of", {})})
    ms = {s: float(np.median([r["facts"]["seconds_of"].get(s, 0.0) / m.amount(r) * 1e3 for r in m.runs])) for s in names}
    whole = float(np.median([r["seconds"] / m.amount(r) * 1e3 for r in m.runs]))
    ms["between the stages"] = max(0.0, whole - sum(ms.values()))
    return {k: round(v, 3) for k, v in sorted(ms.items(), key=lambda i: -i[1])}


def wrong_pixels(f: Figures) -> dict[str, int]:
    """How far each reader's first tile is from OpenSlide's: the largest difference in grey levels."""
    theirs = next((m for m in f.measured if m.case.who.startswith("openslide") and m.runs and "probe" in m.runs[0]), None)
    if theirs is None:
        return {}
    # cases that take other tiles begin with the same one
    right = theirs.runs[0]["probe"].astype(int)
    found = [m for m in f.measured if m.case.slide == theirs.case.slide and m.runs and "probe" in m.runs[0]]
    return {m.case.name: int(np.abs(m.runs[0]["probe"].astype(int) - right).max()) for m in found}
