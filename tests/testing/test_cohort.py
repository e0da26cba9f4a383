"""Phantom patients: the files, the CSV and the follow-up agree with the truth."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from wsikit.metrics import concordance_index
from wsikit.testing.cohort import FOLLOW_UP_MONTHS, Patient, _follow, log_hazard, specs, write_cohort
from wsikit.testing.phantom import STS_CLASSES, Spec, Truth
from wsikit.train.labels import read_labels


def truth(mitoses: int, subtype: str = "LMS") -> Truth:
    """A truth of 1 mm² of tissue."""
    tissue = np.zeros((125, 125), bool)
    tissue.flat[: round(1e6 / 64)] = True
    return Truth(Spec(0, subtype), tissue, np.zeros((mitoses, 2)), np.zeros((0, 2)), np.zeros((2, 3)))


def test_specs_are_balanced_distinct_and_repeatable() -> None:
    wanted = specs(STS_CLASSES, 4, seed=3)
    assert wanted == specs(STS_CLASSES, 4, seed=3)
    assert [sum(s.subtype == c for s in wanted) for c in STS_CLASSES] == [4] * 5
    assert len({s.seed for s in wanted}) == 20
    assert not {s.seed for s in wanted} & {s.seed for s in specs(STS_CLASSES, 4, seed=4)}, "another cohort has other slides"
    density = [s.mitoses_per_mm2 for s in wanted]
    assert 1 <= min(density) < 4 < 15 < max(density) <= 40


def test_the_hazard_is_the_one_that_is_stated() -> None:
    assert log_hazard(truth(0)) == 0
    assert log_hazard(truth(9)) == pytest.approx(1.8 * math.log(10), rel=1e-3)
    assert log_hazard(truth(9, "UPS")) == pytest.approx(1.8 * math.log(10) + 0.8, rel=1e-3)


def test_follow_up_is_positive_censored_and_in_the_order_of_the_hazard() -> None:
    rng = np.random.default_rng(0)
    patients = [_follow(rng, f"P{i}", Path("x"), truth(int(n))) for i, n in enumerate(rng.integers(0, 60, 300))]
    time, event, risk = (np.array([getattr(p, k) for p in patients]) for k in ("time_months", "event", "log_hazard"))
    assert time.min() > 0
    assert time.max() <= FOLLOW_UP_MONTHS
    assert 0.2 < event.mean() < 0.98
    assert concordance_index(time, event, risk).c_index > 0.75


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Patient]]:
    folder = tmp_path_factory.mktemp("cohort") / "new"
    seen: list[Path] = []
    patients = write_cohort(folder, [Spec(1, "LMS", 512, 512), Spec(2, "UPS", 512, 512), Spec(3, "LMS", 512, 512)], seed=5, on_slide=seen.append)
    assert seen == [p.path for p in patients]
    return folder, patients


def test_the_csv_names_every_slide_with_its_follow_up(cohort: tuple[Path, list[Patient]]) -> None:
    folder, patients = cohort
    with (folder / "cases.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert [r["patient"] for r in rows] == [p.patient for p in patients] == ["P01", "P02", "P03"]
    assert [r["label"] for r in rows] == ["LMS", "UPS", "LMS"]
    for row, patient in zip(rows, patients, strict=True):
        assert folder / row["path"] == patient.path
        assert patient.path.is_file()
        assert float(row["time_months"]) == pytest.approx(patient.time_months, abs=0.006)
        assert row["event"] == str(int(patient.event))
    assert [i.label for i in read_labels(folder / "cases.csv", STS_CLASSES)] == ["LMS", "UPS", "LMS"]


def test_the_same_cohort_is_written_again(cohort: tuple[Path, list[Patient]], tmp_path: Path) -> None:
    folder, patients = cohort
    write_cohort(tmp_path, [p.truth.spec for p in patients], seed=5, processes=1)
    assert (tmp_path / "cases.csv").read_bytes() == (folder / "cases.csv").read_bytes()
    for patient in patients:
        assert (tmp_path / patient.path.name).read_bytes() == patient.path.read_bytes()
