"""Damaged files: whatever the damage, an outcome that is named, and never more silent ones than a bare reader has.

The default suite takes a tenth of what ``pytest -m slow tests/fuzz`` does, and real slides where WSIKIT_DATA names some.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsikit.readers._container import missing_tiles
from wsikit.testing.corruptions import CLASSES, corruptions
from wsikit.testing.structured import CASES

NAMES = ["a.svs", "a.ome.tif", "dicom/a.dcm"]
TYPED = {"refused", "identical", "missing", "silent sizes", "silent pixels", "silent mpp"}


@pytest.mark.parametrize("case", CASES)
def test_files_made_to_harm(case: str, readers: Any, tmp_path: Path) -> None:
    make, expected = CASES[case]
    path = make(tmp_path / "a.tif")
    outcome = readers.outcome(path, {"sizes": None})
    if expected == "refused":
        assert outcome == "refused"
        return
    found = readers.open(path)
    if expected == "missing":
        assert found["missing"] == 1
    elif expected == "no mpp":
        assert found["mpp"] is None
    elif expected != "reads":
        assert found["mpp"] == [pytest.approx(expected)] * 2


def fuzz(readers: Any, path: Path, folder: Path, share: float) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Outcomes of all damaged copies of a slide: ours, bare OpenSlide's, and ours with the digest known."""
    whole, bare_whole = readers.open(path), readers.bare.call(str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    ours, bare, promised = Counter[str](), Counter[str](), Counter[str]()
    by_class: dict[str, Counter[str]] = {}
    for name, _, data in corruptions(path, share):
        damaged = folder / path.name
        damaged.write_bytes(data)
        outcome = readers.outcome(damaged, whole)
        ours[outcome] += 1
        by_class.setdefault(name, Counter())[outcome] += 1
        bare[readers.bare_outcome(damaged, bare_whole)] += 1
        promised[readers.promised(damaged, digest)] += 1
    report = {"slide": path.name, "ours": ours, "OpenSlide": bare, "with the digest": promised, "ours by class": by_class}
    print(json.dumps(report, indent=1))  # noqa: T201
    if where := os.environ.get("WSIKIT_FUZZ_REPORT"):
        with Path(where).open("a") as f:
            f.write(json.dumps(report) + "\n")
    return ours, bare, promised


def silent(outcomes: Counter[str]) -> int:
    return sum(n for what, n in outcomes.items() if what.startswith("silent"))


def check(ours: Counter[str], bare: Counter[str], promised: Counter[str]) -> None:
    assert set(ours) <= TYPED, "a crash or a hang behind the gate"
    assert set(promised) <= {"refused", "another file"}
    if ours.total() >= 200:  # of an OME-TIFF bare OpenSlide sees one level, so a few files say little
        assert silent(ours) <= silent(bare)


def fuzz_all(readers: Any, whole: Callable[[str], Path], folder: Path, share: float) -> list[Counter[str]]:
    """The outcomes of all three slides together."""
    totals = [Counter[str](), Counter[str](), Counter[str]()]
    for name in NAMES:
        for total, more in zip(totals, fuzz(readers, whole(name), folder, share), strict=True):
            total.update(more)
    return totals


def test_some_damage_of_every_kind(readers: Any, whole: Callable[[str], Path], tmp_path: Path) -> None:
    check(*fuzz_all(readers, whole, tmp_path, 0.1))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_200_damaged_files_of_each_format(readers: Any, whole: Callable[[str], Path], tmp_path: Path) -> None:
    assert sum(CLASSES.values()) == 200
    ours, bare, promised = fuzz_all(readers, whole, tmp_path, 1.0)
    check(ours, bare, promised)
    assert ours.total() == 600
    assert silent(ours) < silent(bare)
    assert silent(ours) / 600 < 0.24, "what bare OpenSlide was measured at"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "derived-cmu-small.ome.tif", "gcp-camelyon-jpeg.dcm"])
def test_200_damaged_files_of_real_slides(name: str, data: Path, readers: Any, tmp_path: Path) -> None:
    check(*fuzz(readers, data / "slides" / name, tmp_path, 1.0))


def test_whole_slides_are_not_damaged(whole: Callable[[str], Path], readers: Any) -> None:
    for name in NAMES:
        found = readers.open(whole(name))
        assert readers.outcome(whole(name), found) == "identical"
        assert missing_tiles(whole(name)) == []
