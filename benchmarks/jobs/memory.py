"""Does memory grow with the slide? The same work on slides of very different sizes; the column to read is peak GiB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from case import Case, Setup
from task import UNCOUNTED, Task
from verdict import GIB, Figures, Target

TILE, SCORE = "memory, tile", "memory, score"
SIDES = (1, 2, 7)  # pieces of 8192 px along a side: 0.07, 0.27 and 3.3 gigapixels
TISSUE = 6  # pieces of tissue at most, so that a large slide does not take hours
Work = Callable[[], int]


def cases(setup: Setup) -> list[Case]:
    """In one process, as one worker does it."""
    chosen = [(TILE, 1)] if setup.quick else [(TILE, side) for side in SIDES] + [(SCORE, side) for side in SIDES[:2]]
    return [Case(stage, said(side), "jobs.memory:work_on", options={"side": side, "score": stage == SCORE}) for stage, side in chosen]


def said(side: int) -> str:
    """How a slide of so many pieces is called."""
    return f"{side * side * 8192**2 / 1e9:.2g} gigapixels"


def targets(f: Figures) -> list[Target]:
    """Two gibibytes, and no more for the largest than for the smallest."""
    peak = {m.case.who: m.most("peak_bytes") for m in f.measured if m.case.stage == TILE and m.runs}
    small, large = (float(peak.get(said(side), np.nan)) for side in (SIDES[1], SIDES[-1]))
    return [
        Target("`wsikit tile`, one process, ≤ 2 GiB", max(peak.values(), default=np.nan) / GIB, 2, "GiB", at_most=True),
        Target(f"{said(SIDES[-1])} in no more than 1.1 × the memory of {said(SIDES[1])}", large / small, 1.1, at_most=True),
    ]


@contextmanager
def work_on(task: Task) -> Iterator[Work]:
    """`wsikit tile` or `wsikit score` of a slide that is written first, by another process, so that its memory is not counted."""
    import subprocess
    import sys

    from wsikit.run import score, tile_slides
    from wsikit.run.job import Pixels

    side, path = task.options["side"], Path(task.scratch).parent / "giant.tif"
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); from jobs.memory import write; write({str(path)!r}, {side})"
    subprocess.run([sys.executable, "-c", code, UNCOUNTED], check=True)

    def work() -> int:
        out = Path(task.scratch) / "run"
        run = score([path], out, ["sts-subtype", "mitosis"]) if task.options["score"] else tile_slides([path], out, pixels=Pixels(mpp=0.5, codec="jpeg:90"))
        if run.failed:
            raise RuntimeError(str(run.failed))
        return min(TISSUE, side * side) * 8192**2

    yield work


def write(path: str, side: int) -> None:
    """A slide of so many pieces along a side, a few of them with tissue."""
    from wsikit.testing.giant import PIECE_PX, write_giant
    from wsikit.testing.phantom import Spec, make_phantom

    piece, _ = make_phantom(Spec(5, "LMS", PIECE_PX, PIECE_PX, mpp=0.5))
    places = [(i % side, i * side // TISSUE % side) for i in range(TISSUE)] if side > 2 else [(x, y) for x in range(side) for y in range(side)]
    write_giant(Path(path), piece, sorted(set(places)), (side * PIECE_PX, side * PIECE_PX), mpp=0.5)
