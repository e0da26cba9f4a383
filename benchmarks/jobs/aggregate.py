"""Results again from stored columns: a gigapixel slide with a hundred thousand detections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from case import Case, Floor, Setup
from task import Task

STAGE, FLOOR, READ = "aggregate", "floor", "read the columns"
Work = Callable[[], int]


def cases(setup: Setup) -> list[Case]:
    """What `wsikit aggregate` does of such a slide, beside reading what it has to read."""
    found = []
    for n in (1000,) if setup.quick else (1000, 100_000):
        said = f"{n:,} detections"
        found.append(Case(FLOOR, f"{READ}, {said}", "jobs.aggregate:read", options={"n": n}, unit="slides"))
        found.append(Case(STAGE, f"wsikit, {said}", "jobs.aggregate:aggregate", options={"n": n}, unit="slides", floors=(Floor(FLOOR, f"{READ}, {said}"),)))
    return found


@contextmanager
def aggregate(task: Task) -> Iterator[Work]:
    """Calls, counts, hotspot, overlays, shapes and the picture, as the end of a run does them; nothing is checked against receipts."""
    from stretched import stretched_run

    from wsikit.run.finish import aggregate_slide
    from wsikit.run.job import Job, read_run

    run = stretched_run(Path(task.scratch).parent, task.options["n"])
    key = Job.model_validate(read_run(run)["job"]).key
    aggregate_slide(str(run), key, "lms")

    def work() -> int:
        aggregate_slide(str(run), key, "lms")
        return 1

    yield work


@contextmanager
def read(task: Task) -> Iterator[Work]:
    """Every column of the store, as arrays."""
    from stretched import stretched_run

    from wsikit.store import open_store

    path = stretched_run(Path(task.scratch).parent, task.options["n"]) / "slides/lms.zarr"

    def work() -> int:
        for table in open_store(path).tables().values():
            for name in table:
                np.asarray(table[name])
        return 1

    work()
    yield work
