"""Two runs side by side: every cause is named, and every result that moved, and nothing else."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

import wsikit as wk
from wsikit.errors import StoreMismatchError
from wsikit.run.compare import causes, moved
from wsikit.run.job import read_run, update_run


def test_a_run_is_like_itself_and_its_copy(undisturbed: Path, run_copy: Path) -> None:
    assert list(causes(undisturbed, run_copy)) == []
    assert list(moved(undisturbed, run_copy)) == []


def test_each_kind_of_cause_is_named(undisturbed: Path, run_copy: Path) -> None:
    run = read_run(run_copy)
    job = run["job"]
    job["stain"] = "reinhard"
    job["models"]["mitosis"]["digest"] = "0" * 64
    digests = {"small": "f" * 64}
    update_run(run_copy, job=job, slide_digests=digests, software=run["software"] | {"numpy": "0.1"}, machine=run["machine"] | {"device": "cuda"})
    found = {(c.kind, c.name): (c.a, c.b) for c in causes(undisturbed, run_copy)}
    assert set(found) == {("input", "small"), ("model", "mitosis"), ("parameter", "stain"), ("software", "numpy"), ("machine", "device")}
    assert found["parameter", "stain"] == ("macenko", "reinhard")
    assert found["software", "numpy"][1] == "0.1"


def test_what_moved_is_told_with_its_step(undisturbed: Path, run_copy: Path) -> None:
    table = run_copy / "slides.csv"
    with table.open(newline="") as f:
        (row,) = csv.DictReader(f)
    was = float(row["mitosis.per_mm2"])
    row |= {"mitosis.per_mm2": str(was + 1.5), "path": "elsewhere"}
    with table.open("w", newline="") as f:
        writer = csv.DictWriter(f, row)
        writer.writeheader()
        writer.writerow(row)
    (found,) = moved(undisturbed, run_copy)
    assert (found.slide_id, found.column) == ("small", "mitosis.per_mm2")
    assert found.by == pytest.approx(1.5)


def test_a_slide_of_one_run_only_moved_in_all_it_has(undisturbed: Path, run_copy: Path) -> None:
    table = run_copy / "slides.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")
    found = list(moved(undisturbed, run_copy))
    assert {m.slide_id for m in found} == {"small"}
    assert all(m.b is None for m in found)


def test_a_run_without_a_table_is_refused(undisturbed: Path, run_copy: Path) -> None:
    (run_copy / "slides.csv").unlink()
    with pytest.raises(StoreMismatchError, match="let the run finish"):
        list(moved(undisturbed, run_copy))


def test_two_real_runs(undisturbed: Path, slide: Path, tmp_path: Path) -> None:
    """The same slide in other colours and another place: the parameter is the cause, the input is none."""
    copied = tmp_path / slide.name
    shutil.copy(slide, copied)
    for extra in slide.parent.glob(f"{slide.stem}.*"):
        shutil.copy(extra, tmp_path)
    options: dict[str, Any] = {"pipelines": ["sts-subtype", "mitosis"], "stain": "reinhard", "keep_tiles": True}
    wk.score([copied], tmp_path / "run", **options)
    kinds = {(c.kind, c.name) for c in causes(undisturbed, tmp_path / "run")}
    assert ("parameter", "stain") in kinds
    assert not any(kind in ("input", "model", "software", "machine") for kind, _ in kinds)
