"""Reviews of a run's slides: opened with the run's models, and put into its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from wsikit.aggregate.features import read_inputs
from wsikit.errors import DamagedStoreError, StoreMismatchError, UsageError
from wsikit.review import Review
from wsikit.review.files import call_rows, from_qupath, from_table, point_rows
from wsikit.run.finish import REVIEW, SURVIVAL_INPUTS
from wsikit.run.job import Job, only_run, read_run, update_run
from wsikit.run.ledger import replace_result
from wsikit.run.prepare import store_path
from wsikit.run.results import read_result, read_results, table_digests, write_csv, write_results
from wsikit.store import open_store


def open_review(folder: str | Path, slide_id: str, by: str = "") -> Review:
    """The review of a slide of a run; it is begun with the first thing that is said.

    Raises
    ------
    UsageError
        The run has no such slide, or it has no result.
    StoreMismatchError, DamagedStoreError
        The folder holds no run; the journal or the store is damaged, or of another slide.
    """
    job = Job.model_validate(read_run(Path(folder))["job"])
    if slide_id not in {c.slide_id for c in job.slides}:
        raise UsageError(f"{folder}: no slide of this run is called '{slide_id}'")
    result = read_result(Path(folder), slide_id)
    if result is None or result["status"] != "ok":
        raise UsageError(f"{slide_id}: has no result to review{f' ({reason})' if result and (reason := result['reason']) else ''}")
    inputs = read_inputs(result[SURVIVAL_INPUTS]) if SURVIVAL_INPUTS in result else None
    store = open_store(store_path(folder, slide_id))
    return Review(store, job.cards(), by, counting=job.counting, facts=job.case(slide_id).extra, risk=job.risk(), inputs=inputs)


def open_reviews(folder: Path, by: str = "", slide_id: str | None = None) -> dict[str, Review]:
    """The reviews of all slides of a run that have a result, or of one, by id, in the run's order.

    Raises
    ------
    UsageError, StoreMismatchError, DamagedStoreError
        As for `open_review`; or no slide has a result.
    """
    job = Job.model_validate(read_run(folder)["job"])
    if slide_id is not None:
        return {slide_id: open_review(folder, slide_id, by)}
    done = [k for k, r in read_results(folder, job).items() if r["status"] == "ok"]
    if not done:
        raise UsageError(f"{folder}: no slide of this run has a result to review")
    return {k: open_review(folder, k, by) for k in done}


def apply_file(path: Path, reviews: Mapping[str, Review], pipeline: str) -> dict[str, int]:
    """Take corrections in, from a CSV or QuPath's GeoJSON; returns how many changes of which slide. Doing it again changes nothing.

    Raises
    ------
    LabelsError
        The file cannot be used; nothing was taken.
    UsageError
        Initials are missing, or it is not told which slide a GeoJSON is of.
    OutputError
        The journal cannot be written.
    """
    if not all(review.by for review in reviews.values()):
        raise UsageError("say whose corrections these are, with --by INITIALS")
    if path.suffix.lower() in (".geojson", ".json"):
        slide_id = path.stem if path.stem in reviews else next(iter(reviews))
        if path.stem != slide_id and len(reviews) > 1:
            raise UsageError(f"{path}: say which slide it is of, with --slide ID, or name it ID.geojson")
        said = {slide_id: from_qupath(path, reviews[slide_id], pipeline)}
    else:
        said = from_table(path, reviews)
    for slide_id, changes in said.items():
        if changes:
            reviews[slide_id].say(changes)
    return {slide_id: len(changes) for slide_id, changes in said.items() if changes}


def export_labels(folder: Path, reviews: Mapping[str, Review], out: Path) -> dict[Path, int]:
    """Write what people said as ``<pipeline>.csv``, as ``wsikit train --labels`` takes it; returns how many rows of each file.

    Raises
    ------
    OutputError
        ``out`` cannot be written.
    """
    cases = {c.slide_id: c for c in Job.model_validate(read_run(folder)["job"]).slides}
    rows: dict[str, list[dict[str, object]]] = {}
    for slide_id, review in reviews.items():
        case = cases[slide_id]
        about = {"path": case.path, "patient": case.patient or slide_id, "mpp": case.mpp or ""}
        for name in review.results:
            make = point_rows if name in review.detectors else call_rows
            rows.setdefault(name, []).extend(make(review, name, about))
    written = {}
    for name, found in rows.items():
        if found:
            write_csv(out / f"{name}.csv", list(found[0]), found)
            written[out / f"{name}.csv"] = len(found)
    return written


def commit_reviews(folder: Path, slide_ids: list[str]) -> None:
    """Put what people said into the results of these slides and the run's tables, beside what the models said.

    The journal is the truth: results can be made from it again at any time, with ``wsikit aggregate``.

    Raises
    ------
    StoreMismatchError
        Another process is working in the folder.
    DamagedStoreError
        A result is not what was written; run ``wsikit aggregate``.
    OutputError
        It cannot be written.
    """
    job = Job.model_validate(read_run(folder)["job"])
    with only_run(folder):
        for slide_id in slide_ids:
            summary = open_review(folder, slide_id).summary()
            result = read_result(folder, slide_id)
            if result is None:
                raise DamagedStoreError(f"{slide_id}: its result is missing; run wsikit aggregate on the run folder")
            kept = {k: v for k, v in result.items() if k != REVIEW}
            changed = kept if summary is None else kept | {REVIEW: summary}
            if changed != result:
                replace_result(store_path(folder, slide_id), (json.dumps(changed, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
        write_results(folder, job, read_results(folder, job))
        update_run(folder, files=table_digests(folder))


def run_of(store: Path) -> Path:
    """The run's folder that a store lies in.

    Raises
    ------
    StoreMismatchError
        It lies in none.
    """
    folder = store.parent.parent
    if not (folder / "run.json").is_file():
        raise StoreMismatchError(f"{store}: lies in no run's folder, so its models are not known; review the store where wsikit score wrote it")
    return folder
