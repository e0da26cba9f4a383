"""How long does a pathologist wait? Opening a gigapixel slide with its overlays, panning over a million detections, keeping a review's change.

Needs a screen: ``xvfb-run -a -s "-screen 0 1920x1200x24" uv run python benchmarks/run.py viewer``. Without a graphics card every
pixel is drawn by the processor, so that figures from Xvfb are the slowest there are.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from case import Case, Setup
from stretched import put_detections, stretched_run
from task import CannotError, Task
from verdict import Figures, Target

from wsikit.run.reviewed import open_review

MOVES, CHANGES = 20, 10


def median_ms(work: Any, times: int) -> float:
    """Median milliseconds of ``work(i)``."""
    seconds = []
    for i in range(times):
        start = time.perf_counter()
        work(i)
        seconds.append(time.perf_counter() - start)
    return round(1000 * float(np.median(seconds)), 1)


def measure(folder: Path) -> dict[str, Any]:
    """Seconds to open, milliseconds of a pan and of a change, MiB of memory."""
    import napari

    from wsikit.view.app import dress, session_of
    from wsikit.view.tools import settled

    viewer: Any = napari.Viewer()
    dress(viewer)
    viewer.add_image(np.zeros((8, 8)))  # what napari imports with the first layer is not the slide's
    settled(viewer)
    viewer.layers.clear()
    session = session_of(viewer)
    start = time.perf_counter()
    session.open([folder])
    settled(viewer)
    found: dict[str, Any] = {"first overlays, s": round(time.perf_counter() - start, 2)}
    session.add_all()
    settled(viewer)
    found["all layers, s"] = round(time.perf_counter() - start, 2)
    shown = session.detections["mitosis"]
    found["detections"] = len(shown.found.score)
    w, h = session.store.attributes["slide"]["size"]  # type: ignore[union-attr]

    def pan(i: int, across_um: float) -> None:
        session.look_at((w * (0.3 + 0.02 * i), h * 0.5), across_um)
        shown.refresh()
        settled(viewer)

    found["pan far, ms"] = median_ms(lambda i: pan(i, 12_000.0), MOVES)
    found["pan near, ms"] = median_ms(lambda i: pan(i, 300.0), MOVES)
    found["points near"] = len(shown.points.data)
    found["level of detail near, ms"] = median_ms(lambda _: shown.refresh(), MOVES)
    review = session.review
    assert review is not None
    review.by = "AB"
    positions = review.objects("mitosis").position

    def change(i: int) -> None:
        review.label("mitosis", (float(positions[i, 0]), float(positions[i, 1])), "lookalike")
        review.answer("mitosis")

    change(CHANGES)
    found["a change kept and counted again, ms"] = median_ms(change, CHANGES)
    found["and shown, ms"] = median_ms(lambda i: (change(CHANGES + 1 + i), session.changed(), settled(viewer)), CHANGES)
    found["drawn by"] = renderer()
    viewer.close()
    found["peak memory, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def renderer() -> str:
    """What draws the canvas: llvmpipe is Mesa's software renderer."""
    from vispy.gloo import gl

    return str(gl.glGetParameter(gl.GL_RENDERER))


def count_again(folder: Path) -> float:
    """Milliseconds to keep a change and count again, without a window."""
    review = open_review(folder, "lms", "AB")
    positions = review.objects("mitosis").position
    review.answer("mitosis")

    def change(i: int) -> None:
        review.label("mitosis", (float(positions[i, 0]), float(positions[i, 1])), "lookalike")
        review.answer("mitosis")

    change(CHANGES)
    return median_ms(change, CHANGES)


def cases(setup: Setup) -> list[Case]:
    """The gigapixel slide with its detections; in a small run with few of them."""
    return [Case("viewer", "wsikit, overlays of a gigapixel slide", "jobs.viewer:opening", options={"n": 1000 if setup.quick else 1_000_000}, unit="slides")]


def targets(f: Figures) -> list[Target]:
    """What a pathologist would call at once."""
    facts = next((m.runs[-1]["facts"]["said"] for m in f.measured if m.runs), {})
    return [
        Target("first overlays of a gigapixel slide < 3 s", facts.get("first overlays, s", math.nan), 3, "s", at_most=True),
        Target("panning over a million detections ≤ 100 ms a step", facts.get("pan near, ms", math.nan), 100, "ms", at_most=True),
        Target("a change counted again at 100,000 detections ≤ 200 ms", facts.get("a change counted again at 100,000, ms", math.nan), 200, "ms", at_most=True),
    ]


@contextmanager
def opening(task: Task) -> Iterator[Callable[[], int]]:
    """Everything that is looked at in one go; the rate is that of the first overlays, the rest is among the facts."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise CannotError("needs a screen: see jobs/viewer.py")
    folder = stretched_run(Path(task.scratch).parent, min(task.options["n"], 100_000), pixels=True)
    store = folder / "slides/lms.zarr"
    task.facts["said"] = {"a change counted again at 100,000, ms": count_again(folder)}
    store.with_suffix(".review.jsonl").unlink()
    put_detections(store, task.options["n"])

    def work() -> int:
        found = measure(folder)
        task.facts["said"] |= found
        task.facts |= {"seconds": found["first overlays, s"], "cpu_seconds": None}
        return 1

    yield work
