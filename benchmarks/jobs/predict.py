"""Does `wsikit bench --slides-per-hour` foretell what an archive takes? Both in turn on the same machine: the second is the first one's floor."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from case import Case, Floor, Setup
from task import Task
from verdict import Figures, Target

PREDICTED, REAL = "predicted", "real"
Work = Callable[[], float]


def _kinds(setup: Setup) -> dict[str, dict[str, Any]]:
    """Slides with much and little tissue, one model and three, each with as many of them as keep all workers busy for a while."""
    n = 2 if setup.quick else 8
    phantom = {"pipelines": ["sts-subtype"], "slides": n}
    return {
        "phantom, one pipeline": phantom,
        "phantom, three pipelines": phantom | {"pipelines": ["sts-subtype", "rms-subtype", "mitosis"], "slides": max(2, n // 2)},
    }


def cases(setup: Setup) -> list[Case]:
    """Each kind predicted, and done, with all workers."""
    found = []
    for kind, what in _kinds(setup).items():
        options = what | {"workers": setup.cores}
        floors = (Floor(PREDICTED, kind),)
        found.append(Case(PREDICTED, kind, "jobs.predict:predicted", setup.cores, options=options, slide="phantom", unit="slides"))
        found.append(Case(REAL, kind, "jobs.predict:real", setup.cores, options=options, slide="phantom", unit="slides", floors=floors))
    return found


def targets(f: Figures) -> list[Target]:
    """Within 20 %, either way."""
    found = []
    for kind in (m.case.who for m in f.measured if m.case.stage == REAL):
        ratio = f.rate(PREDICTED, kind, f.cores) / f.rate(REAL, kind, f.cores)
        found.append(Target(f"slides an hour, {kind}: predicted / real within 20 % ({ratio:.2f})", abs(ratio - 1), 0.2, "off", at_most=True))
    return found


@contextmanager
def predicted(task: Task) -> Iterator[Work]:
    """One slide as `predict` says it takes; how long predicting takes is among the facts."""
    from wsikit.bench.predict import predict

    def work() -> float:
        start = time.perf_counter()
        found = predict(Path(task.slide), task.options["pipelines"], workers=task.options["workers"])
        task.facts |= {"said": found | {"predicting it took, s": round(time.perf_counter() - start, 1)}, "cpu_seconds": None}
        n = task.options["slides"]
        task.facts["seconds"] = found["start_seconds"] + n * found["seconds_per_slide"]
        return float(n)

    yield work


@contextmanager
def real(task: Task) -> Iterator[Work]:
    """An archive of copies of the slide, from a cold start to the tables."""
    from wsikit.run import score

    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{i}{Path(task.slide).suffix}" for i in range(task.options["slides"])]
        for path in paths:
            shutil.copyfile(task.slide, path)

        def work() -> float:
            task.facts["cpu_seconds"] = None
            run = score(paths, Path(task.scratch) / "run", task.options["pipelines"], workers=task.options["workers"])
            if run.failed:
                raise RuntimeError(str(run.failed))
            task.facts["seconds_of"] = run.seconds
            return float(len(paths))

        yield work
