"""Results for other tools: a hundred thousand detections as GeoJSON, CSV, Parquet and HDF5."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from case import Case, Floor, Setup
from task import Task

STAGE, FLOOR, JSON, DISK = "export", "floor", "json.dumps", "disk, CSV"
DETECTIONS = 100_000
Work = Callable[[], int]


def cases(setup: Setup) -> list[Case]:
    """As detections a second; the floor of GeoJSON is Python's own encoder on features that are plain dicts already."""
    n = {"n": 2000 if setup.quick else DETECTIONS}

    def ours(kind: str, *floors: Floor) -> Case:
        return Case(STAGE, f"wsikit, {kind}", "jobs.export:export", options=n | {"kind": kind}, unit="detections", floors=floors)

    return [
        Case(FLOOR, JSON, "jobs.export:dumps", options=n, unit="detections"),
        Case(FLOOR, DISK, "jobs.export:rewrite", options=n, unit="detections"),
        ours("geojson", Floor(FLOOR, JSON)),
        ours("csv", Floor(FLOOR, DISK, "disk")),
        ours("parquet"),
        ours("hdf5"),
    ]


def _run(task: Task) -> Path:
    from stretched import stretched_run

    return stretched_run(Path(task.scratch).parent, task.options["n"])


@contextmanager
def export(task: Task) -> Iterator[Work]:
    """`wsikit export` of a run with one slide."""
    from wsikit.export import export_run

    run = _run(task)
    export_run(run, Path(task.scratch), task.options["kind"])

    def work() -> int:
        done = export_run(run, Path(task.scratch), task.options["kind"])
        assert not done.skipped, done.skipped
        return int(task.options["n"])

    yield work


@contextmanager
def dumps(task: Task) -> Iterator[Work]:
    """The features that were exported, through Python's JSON encoder once more."""
    from wsikit.export import export_run

    (path,) = export_run(_run(task), Path(task.scratch), "geojson").files
    features = json.loads(path.read_bytes())

    def work() -> int:
        path.write_text(json.dumps(features, separators=(",", ":")))
        return int(task.options["n"])

    yield work


@contextmanager
def rewrite(task: Task) -> Iterator[Work]:
    """The bytes of the CSVs, written once more."""
    from wsikit.export import export_run

    files = {path: path.read_bytes() for path in export_run(_run(task), Path(task.scratch), "csv").files}

    def work() -> int:
        for path, data in files.items():
            path.write_bytes(data)
        return int(task.options["n"])

    yield work
