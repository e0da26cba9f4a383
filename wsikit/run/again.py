"""Work on a finished run: results again from columns, and every stored byte against its receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from wsikit.aggregate.counting import Counting
from wsikit.errors import DamagedStoreError, WeightsMismatchError
from wsikit.run.drive import Progress
from wsikit.run.engine import Where
from wsikit.run.finish import aggregate_slide
from wsikit.run.job import RUN_FILE, Job, choose_models, only_run, read_run, update_run
from wsikit.run.ledger import SLIDE, commit_results, is_undamaged, receipts_path, was_finished
from wsikit.run.prepare import load_plan, store_path
from wsikit.run.results import TABLES, read_result, read_results, table_digests, write_results
from wsikit.run.start import carry_out
from wsikit.store import SlideStore
from wsikit.store.durable import digest_of, sha256_file
from wsikit.store.receipts import read_receipts


def aggregate_run(folder: Path, counting: Counting | None = None) -> int:
    """Recompute the results of every finished slide from its columns; returns how many. ``counting`` replaces how the run counts mitoses.

    Raises
    ------
    StoreMismatchError
        The folder holds no run.
    DamagedStoreError
        Files of some slides are damaged or missing; the message names these slides, the others are done.
    OutputError
        It cannot be written.
    """
    job = Job.model_validate(read_run(folder)["job"])
    with only_run(folder):
        if counting is not None:
            job = job.model_copy(update={"counting": counting})
            update_run(folder, job=job.model_dump())
        done = {case.slide_id: _aggregate(folder, job, case.slide_id) for case in job.slides}
        write_results(folder, job, read_results(folder, job))
        update_run(folder, files=table_digests(folder))
    if damaged := [slide_id for slide_id, what in done.items() if what == "damaged"]:
        raise DamagedStoreError(f"{folder}: files are damaged or missing, and were not used, of {', '.join(damaged)}; score these slides again to repair them")
    return sum(what == "done" for what in done.values())


def _aggregate(folder: Path, job: Job, slide_id: str) -> str:
    """Make a slide's result again: ``done``, or not since it is ``unfinished`` or ``damaged``."""
    path = store_path(folder, slide_id)
    if SLIDE not in {r.block for r in read_receipts(receipts_path(path))}:
        return "unfinished"
    if not is_undamaged(path):
        return "damaged"
    plan = load_plan(str(path), digest_of(SlideStore(path).attributes))
    if not was_finished(path, plan, job):
        return "unfinished"
    aggregate_slide(str(folder), job.key, slide_id)
    commit_results(path, job)
    return "done"


def repair_run(folder: Path, workers: int | None = 0, on_progress: Callable[[Progress], None] = lambda _: None) -> list[Finding]:
    """Do again what is damaged, missing or unfinished of a run, from its slides and models; returns what is wrong even then.

    Raises
    ------
    StoreMismatchError
        The folder holds no run, or another process is working in it.
    DamagedStoreError
        Its ``run.json`` is damaged, so what was asked is not known.
    OutputError
        It cannot be written.
    UnknownModelError, CardError, WeightsMismatchError
        A model is gone, or is not the one that the run had.
    """
    job = Job.model_validate(read_run(folder)["job"])
    for name, ref in choose_models(list(job.models), {n: r.folder for n, r in job.models.items()}).items() if job.models else ():
        if ref.digest != job.models[name].digest:
            raise WeightsMismatchError(f"{ref.folder}: not the model that this run had for {name}; put that one back, or score the slides again with this one")
    carry_out(folder, job, Where(workers), on_progress)
    return list(verify_run(folder))


class Finding(NamedTuple):
    """Something wrong with a stored file: ``missing``, ``damaged``, ``unfinished`` or ``unknown``.

    ``slide_id`` is empty for a file of the run; ``file`` is relative to the run's folder for these, else to its ``slides``.
    """

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
    try:
        passport = read_run(folder)
        slides = [case["slide_id"] for case in passport["job"]["slides"]]
        yield from _verify_tables(folder, passport.get("files"))
    except DamagedStoreError:
        yield Finding("", "damaged", RUN_FILE)
        slides = sorted(p.stem for p in (folder / "slides").glob("*.zarr"))
    for slide_id in slides:
        yield from _verify_slide(folder, slide_id)


def _verify_tables(folder: Path, files: Mapping[str, str] | None) -> Iterator[Finding]:
    if files is None:
        yield Finding("", "unfinished", TABLES[0])
    else:
        yield from _compare("", folder, files)


def _verify_slide(folder: Path, slide_id: str) -> Iterator[Finding]:
    path = store_path(folder, slide_id)
    if _failed(folder, slide_id):
        return
    receipts = read_receipts(receipts_path(path))
    if SLIDE not in {r.block for r in receipts}:
        yield Finding(slide_id, "unfinished", path.name)
        return
    known = {name: digest for r in receipts for name, digest in r.files.items()}
    yield from _compare(slide_id, path.parent, known)
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        name = file.relative_to(path.parent).as_posix()
        if name not in known:
            yield Finding(slide_id, "unknown", name)


def _compare(slide_id: str, folder: Path, known: Mapping[str, str]) -> Iterator[Finding]:
    for name, digest in sorted(known.items()):
        file = folder / name
        if not file.is_file():
            yield Finding(slide_id, "missing", name)
        elif sha256_file(file) != digest:
            yield Finding(slide_id, "damaged", name)


def _failed(folder: Path, slide_id: str) -> bool:
    try:
        result = read_result(folder, slide_id)
    except DamagedStoreError:
        return False
    return result is not None and result["status"] == "failed"
