"""How much faster are several slides scored by more worker processes, and how much faster are their networks alone?"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from multiprocessing.synchronize import Barrier
from typing import Any

from case import Case, Floor, Setup
from jobs.score import PIPELINES, Work, models
from jobs.tile import DECODE, FLOOR, decode_floor
from task import Task
from verdict import Figures, Target

STAGE, MODELS = "score, several slides", "three models, a process a core"
_PATIENCE_SECONDS = 600


def cases(setup: Setup) -> list[Case]:
    """One worker on one core, and so on; the floor is their networks in as many processes, for cores share memory and power."""
    return [c for n in setup.counts for c in (decode_floor(n, "phantom"), _models(n), _workers(n, 2 if setup.quick else 2 * setup.cores))]


def _models(n: int) -> Case:
    return Case(FLOOR, MODELS, "jobs.scaling:models_at_once", n, slide="phantom")


def _workers(n: int, slides: int) -> Case:
    options = {"passes": [PIPELINES], "workers": n, "slides": slides}
    return Case(STAGE, _who(n), "jobs.score:passes", n, options=options, slide="phantom", floors=(Floor(FLOOR, MODELS), Floor(FLOOR, DECODE)))


def _who(n: int) -> str:
    return f"wsikit --workers {n}"


def targets(f: Figures) -> list[Target]:
    """Two cores, as from slide to Zarr; and what they give when nothing but the networks runs on them."""
    ours, floor = f.rate(STAGE, _who(2), 2) / f.rate(STAGE, _who(1)), f.rate(FLOOR, MODELS, 2) / f.rate(FLOOR, MODELS)
    return [
        Target("two workers on two cores ≥ 1.7 × one on one", ours, 1.7),
        Target(f"the same ≥ 0.95 × what the networks alone gain ({floor:.2f} ×)", ours / floor, 0.95),
    ]


@contextmanager
def models_at_once(task: Task) -> Iterator[Work]:
    """The networks in a process a core, each on all tiles of a slide: nothing is read, cut, stained or written."""
    spawn = multiprocessing.get_context("spawn")
    gate = spawn.Barrier(task.cores + 1)  # passed when all are ready, when they start, and when they are done
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None] * task.cores
    alone = asdict(replace(task, cores=1, facts={}))
    processes = [spawn.Process(target=_one, args=(alone, core, gate), daemon=True) for core in cores]
    task.facts["cpu_seconds"] = None  # it is spent in other processes
    for process in processes:
        process.start()
    gate.wait(_PATIENCE_SECONDS)

    def work() -> int:
        gate.wait(_PATIENCE_SECONDS)
        gate.wait(_PATIENCE_SECONDS)
        return task.cores * len(task.corners()) * task.tile**2

    yield work
    for process in processes:
        process.join()


def _one(task: dict[str, Any], core: int | None, gate: Barrier) -> None:
    if core is not None:
        os.sched_setaffinity(0, [core])
    with models(Task(**task)) as work:
        gate.wait(_PATIENCE_SECONDS)
        gate.wait(_PATIENCE_SECONDS)
        work()
        gate.wait(_PATIENCE_SECONDS)
