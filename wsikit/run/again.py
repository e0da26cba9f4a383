"""Work on a finished run: results again from columns, and every stored byte against its receipt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wsikit.run.finish import aggregate_slide
from wsikit.run.job import Job, read_run
from wsikit.run.ledger import SLIDE, commit_slide, finished_stages, receipts_path
from wsikit.run.plan import PIXELS
from wsikit.run.prepare import load_plan, store_path
from wsikit.run.results import read_results, write_results
from wsikit.store import SlideStore
from wsikit.store.durable import digest_of, sha256_file
from wsikit.store.receipts import read_receipts


def aggregate_run(folder: Path) -> int:
    """Recompute the results of every finished slide from its columns; returns how many.

    Raises
    ------
    StoreMismatchError
        The folder holds no run.
    OutputError
        It cannot be written.
    """
    job = Job.model_validate(read_run(folder)["job"])
    count = 0
    for case in job.slides:
        path = store_path(folder, case.slide_id)
        if not path.exists():
            continue
        plan = load_plan(str(path), digest_of(SlideStore(path).attributes))
        if finished_stages(path, plan) >= set(plan.stages) - {PIXELS}:
            aggregate_slide(str(folder), job.key, case.slide_id)
            commit_slide(path, plan)
            count += 1
    write_results(folder, job, read_results(folder, job))
    return count


class Finding(NamedTuple):
    """Something wrong with a stored file: ``missing``, ``damaged``, ``unfinished`` or ``unknown``."""

    slide_id: str
    problem: str
    file: str


def verify_run(folder: Path) -> Iterator[Finding]:
    """Compare every stored byte of a run with its receipt.

    Raises
    ------
    StoreMismatchError
        The folder holds no run.
    """
    job = Job.model_validate(read_run(folder)["job"])
    results = read_results(folder, job)
    for case in job.slides:
        if results.get(case.slide_id, {}).get("status") == "failed":
            continue
        path = store_path(folder, case.slide_id)
        receipts = read_receipts(receipts_path(path))
        if SLIDE not in {r.block for r in receipts}:
            yield Finding(case.slide_id, "unfinished", path.name)
            continue
        known = {name: digest for r in receipts for name, digest in r.files.items()}
        for name, digest in sorted(known.items()):
            file = path.parent / name
            if not file.is_file():
                yield Finding(case.slide_id, "missing", name)
            elif sha256_file(file) != digest:
                yield Finding(case.slide_id, "damaged", name)
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            name = file.relative_to(path.parent).as_posix()
            if name not in known:
                yield Finding(case.slide_id, "unknown", name)
