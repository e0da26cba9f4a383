"""Carry out a job in a run's folder, from the check of the disk to the passport."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsikit.errors import OutputError, StoreMismatchError
from wsikit.run.copies import Copies
from wsikit.run.drive import Driver, Progress
from wsikit.run.engine import Where, open_pool
from wsikit.run.job import RUN_FILE, Job, merge_jobs, now, only_run, read_run, write_run
from wsikit.run.results import Results, table_digests
from wsikit.store import SlideStore, open_store
from wsikit.store.durable import write_atomic

MIN_FREE_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Run:
    """A run's folder and what it found.

    ``results`` are the slides' results by id, each read from ``slides/<slide_id>.json`` when asked for; ``failed`` says why each failed
    slide failed, by id; ``seconds`` is the workers' time by stage, added up over this run's blocks; ``answers`` counts, for each pipeline, the slides
    of each status (ok, abstained, refused, failed), and ``withheld`` has the first reason for which a pipeline gave none.
    """

    folder: Path
    results: Results
    failed: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)
    answers: dict[str, dict[str, int]] = field(default_factory=dict)
    withheld: dict[str, str] = field(default_factory=dict)

    def store(self, slide_id: str) -> SlideStore:
        """The store of a slide."""
        return open_store(self.folder / "slides" / f"{slide_id}.zarr")


def carry_out(folder: Path, job: Job, where: Where, on_progress: Callable[[Progress], None], *, debug: bool = False, copy_to: str = "") -> Run:
    """Do what is not done yet of a job, and of what was asked of this folder before.

    Raises
    ------
    StoreMismatchError
        Another run is working in the folder, or it holds other things.
    OutputError
        The folder cannot be written, or the disk is full; what is done is kept.
    EngineError
        The scheduler cannot be reached.
    """
    prepare_folder(folder)
    copies = Copies(folder, copy_to) if copy_to else None
    with only_run(folder):
        if (folder / RUN_FILE).exists():
            job = merge_jobs(Job.model_validate(read_run(folder)["job"]), job)
        started = now()
        write_run(folder, job, started=started)
        with open_pool(where, job.device) as pool:
            driver = Driver(folder, job, pool, on_progress, debug, task_seconds=where.task_seconds, copies=copies)
            results = driver.run()
        _clear_strays(folder, results)
        slides, failed = {}, {}
        answers: dict[str, Counter[str]] = {name: Counter() for name in job.models}
        withheld: dict[str, str] = {}
        for slide_id in (case.slide_id for case in job.slides):
            result = results[slide_id]
            if "slide" in result:
                slides[slide_id] = result["slide"]["digest"]
            if result["status"] == "failed":
                failed[slide_id] = result["reason"]
            for name, answer in result["pipelines"].items():
                answers[name][answer["status"]] += 1
                if answer["status"] != "ok":
                    withheld.setdefault(name, answer["reason"])
        seconds = {stage: round(value, 3) for stage, value in sorted(driver.clock.seconds.items())}
        done = {"started": started, "finished": now(), "workers": pool.workers, "worker_seconds": seconds, "slides_before": driver.before}
        write_run(folder, job, **done, slide_digests=slides, files=table_digests(folder))
        if copies is not None:
            copies.finish()
    return Run(folder, Results(folder, (case.slide_id for case in job.slides)), failed, seconds, {k: dict(v) for k, v in answers.items()}, withheld)


def _clear_strays(folder: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Remove parts of finished slides, once all workers are gone.

    When a worker dies whose result was just taken, dask does its block again, and that may end after the slide was put together.
    """
    for parts in folder.glob("slides/*.parts"):
        if results.get(parts.stem, {}).get("status") == "ok":
            shutil.rmtree(parts, ignore_errors=True)


def prepare_folder(folder: Path) -> None:
    """Make sure, before any work, that results can be written.

    Raises
    ------
    OutputError
        The folder cannot be made or written, or its disk is full.
    StoreMismatchError
        It is a folder with other things in it.
    """
    probe = folder / "slides" / ".writable"
    if folder.is_dir() and not (folder / RUN_FILE).exists() and any(p.name != "slides" and p.suffix != ".tmp" for p in folder.iterdir()):
        raise StoreMismatchError(f"{folder}: holds other files and no {RUN_FILE}; choose an empty or new folder with -o")
    try:
        write_atomic(probe, b"wsikit")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as e:
        why = getattr(e.__cause__ or e, "strerror", None) or e
        raise OutputError(f"{folder}: cannot be written ({why}); choose another folder with -o") from e
    if free < MIN_FREE_BYTES:
        raise OutputError(f"{folder}: only {free // 1024**2} MiB are free on this disk; free some space or choose another folder with -o")
