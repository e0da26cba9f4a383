"""How much faster are several slides scored by more worker processes?"""

from __future__ import annotations

from case import Case, Floor, Setup
from jobs.score import PIPELINES
from verdict import Figures, Target

STAGE = "score, several slides"


def cases(setup: Setup) -> list[Case]:
    """One worker on one core, and so on; the roof is as many times one worker's speed."""
    return [_case(n, 2 if setup.quick else 2 * setup.cores) for n in setup.counts]


def _case(n: int, slides: int) -> Case:
    floors = () if n == 1 else (Floor(STAGE, _who(1), times=1 / n, cores=1),)
    return Case(STAGE, _who(n), "jobs.score:passes", n, options={"passes": [PIPELINES], "workers": n, "slides": slides}, slide="phantom", floors=floors)


def _who(n: int) -> str:
    return f"wsikit --workers {n}"


def targets(f: Figures) -> list[Target]:
    """Two cores, as from slide to Zarr."""
    return [Target("two workers on two cores ≥ 1.7 × one on one", f.rate(STAGE, _who(2), 2) / f.rate(STAGE, _who(1)), 1.7)]
