"""What the figures say: targets reached or missed, the bottleneck, and how far each stage is from the decoder's speed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from cases import ALL, ARCHIVE, FLOOR, READ, STAIN
from runs import Measured

OURS, FLOOR_WHO, OPENSLIDE_WHO = "wsikit", "imagecodecs", "openslide + Pillow"
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

    def find(self, stage: str, who: str, cores: int = 1, slide: str = "mosaic") -> Measured | None:
        """The case, if it was measured."""
        same = (m for m in self.measured if m.case.stage == stage and m.case.who == who and m.case.cores == cores and m.case.slide == slide)
        return next((m for m in same if m.runs), None)

    def rate(self, stage: str, who: str, cores: int = 1, slide: str = "mosaic") -> float:
        """Its median MPx/s; NaN if there is none."""
        found = self.find(stage, who, cores, slide)
        if found is None:
            return math.nan
        return found.rate_per_core if self.per_core else found.rate

    def fastest(self, who: str, cores: int, codec: str = "") -> float:
        """The best of wsikit in one process and in workers, for one slide and for several, from slide to Zarr."""
        said = codec and f" {codec}"
        names = [f"{who}{how}{said}{several}" for how in ("", f" --workers {cores}") for several in ("", f", {ARCHIVE} slides")]
        rates = [r for name in names if not math.isnan(r := self.rate(ALL, name, cores))]
        return max(rates, default=math.nan)

    def scaling(self, who: str) -> float:
        """How much faster several slides are done by two worker processes on two cores than by one on one; unknown per core-second."""
        codec = who.removeprefix(OURS)
        one, two = (self.rate(ALL, f"{OURS} --workers {n}{codec}, {ARCHIVE} slides", n) for n in (1, 2))
        return math.nan if self.per_core else two / one

    def floor(self, measured: Measured) -> float:
        """The decoder's speed on as many cores and the same slide."""
        return self.rate(FLOOR, FLOOR_WHO, measured.case.cores, measured.case.slide)


def targets(f: Figures, megapixels: float) -> list[Target]:
    """The targets that were set before anything was measured."""
    n, floor, read = f.cores, f.rate(FLOOR, FLOOR_WHO), f.rate(READ, OURS)
    together = [m for m in f.measured if m.case.stage == ALL and m.case.who.startswith(OURS) and m.runs]
    most = max((m.most("peak_bytes") for m in together), default=math.nan) / GIB
    files = max((m.most("files") / m.case.options.get("slides", 1) for m in together if m.case.slide == "mosaic"), default=math.nan)
    tia = [f.rate(ALL, "TIAToolbox", n), f.rate(ALL, "TIAToolbox, one matrix", n)]
    return [
        Target("reading ≥ 0.8 × the decode floor, one core", read / floor, 0.8),
        Target("reading ≥ 5 × openslide + Pillow, one core", read / f.rate(READ, OPENSLIDE_WHO), 5),
        Target(f"reading ≥ 5 × openslide + Pillow, {n} cores each", f.rate(READ, OURS, n) / f.rate(READ, OPENSLIDE_WHO, n), 5),
        Target("Macenko applied at ≥ 170 MPx/s a core", f.rate(STAIN, OURS), 170, "MPx/s"),
        Target("slide → Zarr, lossless, ≥ 0.25 × the decode floor, one core", f.fastest(OURS, 1) / floor, 0.25),
        Target("slide → Zarr, jpeg:90, ≥ 0.35 × the decode floor, one core", f.fastest(OURS, 1, "jpeg:90") / floor, 0.35),
        Target(f"slide → Zarr ≥ 30 × TIAToolbox, {n} cores each", f.fastest(OURS, n) / tia[0], 30),
        Target(f"slide → Zarr ≥ 30 × TIAToolbox with one matrix, {n} cores each", f.fastest(OURS, n) / tia[1], 30),
        Target(f"slide → Zarr ≥ 15 × openslide + torchstain, {n} cores each", f.fastest(OURS, n) / f.rate(ALL, "openslide + torchstain script", n), 15),
        Target("resident memory of all processes together ≤ 2 GiB", most, 2, "GiB", at_most=True),
        *(Target(f"two cores ≥ 1.7 × one, {ARCHIVE} slides → Zarr{who.removeprefix(OURS)}", f.scaling(who), 1.7) for who in (OURS, f"{OURS} jpeg:90")),
        Target("files of a gigapixel slide ≤ 200", files / max(1.0, megapixels / 1000), 200, "files", at_most=True),
    ]


def breakdown(f: Figures) -> dict[str, Any]:
    """Where a run's time goes on one core, by its own clock, in ms per megapixel; and which stage is the largest."""
    found = f.find(ALL, OURS)
    if found is None:
        return {}
    names = sorted({stage for r in found.runs for stage in r["facts"].get("seconds_of", {})})
    per_mpx = {s: float(np.median([r["facts"]["seconds_of"].get(s, 0.0) / r["px"] * 1e9 for r in found.runs])) for s in names}
    whole = float(np.median([r["seconds"] / r["px"] * 1e9 for r in found.runs]))
    per_mpx["between the stages"] = max(0.0, whole - sum(per_mpx.values()))
    floor = 1000 / f.rate(FLOOR, FLOOR_WHO)
    out = {"ms_per_mpx": {k: round(v, 3) for k, v in sorted(per_mpx.items(), key=lambda i: -i[1])}, "whole": round(whole, 3), "decode_floor": round(floor, 3)}
    return out | {"bottleneck": next(iter(out["ms_per_mpx"]))}


def alone(f: Figures) -> dict[str, dict[str, float]]:
    """wsikit's stages one by one on one core: MPx/s, and times the decode floor."""
    floor = f.rate(FLOOR, FLOOR_WHO)
    rows = [m for m in f.measured if m.case.cores == 1 and m.case.who.startswith(OURS) and m.case.slide == "mosaic" and m.runs]
    return {f"{m.case.stage}, {m.case.who}": {"mpx_per_s": round(m.rate, 1), "of_floor": round(m.rate / floor, 3)} for m in rows}


def wrong_pixels(f: Figures) -> dict[str, int]:
    """How far each reader's first tile is from OpenSlide's: the largest difference in grey levels."""
    theirs = f.find(READ, OPENSLIDE_WHO)
    if theirs is None or "probe" not in theirs.runs[0]:
        return {}
    # cases that take other tiles begin with the same one
    right = theirs.runs[0]["probe"].astype(int)
    found = [m for m in f.measured if m.case.slide == "mosaic" and m.runs and "probe" in m.runs[0]]
    return {m.case.name: int(np.abs(m.runs[0]["probe"].astype(int) - right).max()) for m in found}
