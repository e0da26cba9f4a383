"""A preflight of many slides: each looked at in a process of its own, several at once; duplicates; what a run of them would take."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from wsikit.doctor.examine import total_bytes
from wsikit.errors import WsikitError
from wsikit.gate import gate_seconds, refusal
from wsikit.location import is_remote, locate
from wsikit.run.cases import Case
from wsikit.run.results import write_csv
from wsikit.sandbox import Sandbox, SandboxDiedError
from wsikit.slide import Slide
from wsikit.threads import cores

COLUMNS = ("slide_id", "path", "mpp", "patient", "expect_sha256", "focal_plane")  # of the CSV: what wsikit score reads


def look_at_all(cases: Sequence[Case], on_slide: Callable[[dict[str, Any]], None] = lambda _: None, processes: int | None = None) -> list[dict[str, Any]]:
    """One row per slide, in their order; ``on_slide`` gets each as it is done. A file that ends its process is refused in its row."""
    n = min(len(cases), processes or min(8, cores()))
    free: SimpleQueue[Sandbox] = SimpleQueue()
    for _ in range(n):
        free.put(Sandbox("wsikit.doctor.examine:examine", seconds=gate_seconds()))

    def look(case: Case) -> dict[str, Any]:
        sandbox = free.get()
        try:
            return _row(case, sandbox)
        finally:
            free.put(sandbox)

    rows: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(max(1, n)) as pool:
        futures = {pool.submit(look, case): case for case in cases}
        try:
            for future in as_completed(futures):
                rows[futures[future].slide_id] = row = future.result()
                on_slide(row)
        finally:
            pool.shutdown(cancel_futures=True)
            while not free.empty():
                free.get().close()
    found = [rows[case.slide_id] for case in cases]
    mark_duplicates(found)
    return found


def _row(case: Case, sandbox: Sandbox) -> dict[str, Any]:
    row: dict[str, Any] = {"slide_id": case.slide_id, "path": case.path, "patient": case.patient, "expect_sha256": case.expect_sha256}
    if case.refused:
        return row | {"verdict": case.refused}
    try:
        return row | sandbox.call(case.path, case.mpp, case.mpp_source)
    except SandboxDiedError as e:
        return row | {"verdict": str(refusal(case.path, e))}
    except WsikitError as e:
        return row | {"verdict": str(e)}


def mark_duplicates(rows: Sequence[dict[str, Any]]) -> None:
    """Name in ``duplicate_of`` the first slide that has the same bytes. Only files of the same size are read."""
    sizes: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        place = locate(row["path"])
        if not is_remote(place):
            sizes.setdefault(row.get("bytes") or total_bytes(place), []).append(row)
    for same in sizes.values():
        first: dict[str, str] = {}
        for row in same if len(same) > 1 else ():
            digest = _digest(row)
            if digest in first:
                row["duplicate_of"] = first[digest]
            elif digest:
                first[digest] = row["slide_id"]


def _digest(row: dict[str, Any]) -> str:
    try:
        with Slide(row["path"], reader=row["reader"]) as slide:
            return slide.digest
    except (KeyError, WsikitError, OSError):
        return ""


def write_cases(path: Path, rows: Sequence[dict[str, Any]]) -> int:
    """The slides that can be scored, each once, as a CSV that ``wsikit score`` takes; returns how many.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    good = [r | {"path": _beside(path, r["path"]), "mpp": _given(r)} for r in rows if r["verdict"] == "ok" and not r.get("duplicate_of")]
    used = [c for c in COLUMNS if c in ("slide_id", "path") or any(r.get(c) for r in good)]
    write_csv(path, used, good)
    return len(good)


def _given(row: dict[str, Any]) -> Any:
    """The mpp, where it is not what the file says anyway."""
    return row["mpp"][0] if row["mpp_source"] in ("override", "csv") else ""


def _beside(csv_path: Path, slide: str) -> str:
    """A slide's path as a CSV there has it: relative to it, unless it is an address."""
    place = locate(slide)
    return slide if is_remote(place) else os.path.relpath(Path(slide).absolute(), csv_path.absolute().parent)
