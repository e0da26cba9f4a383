"""The figures of a detector follow from its cases: pooled, by tumour, with intervals over patients and not fields."""

from __future__ import annotations

import numpy as np
import pytest

from wsikit.evaluate.detector import detector_figures
from wsikit.metrics.matching import Case


def case(hits: int, false: int, missed: int, area_mm2: float = 2.0) -> Case:
    """So many of each, far apart; false ones score 0.6, hits 0.8, and one hit more stays below the threshold."""
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2) * 40.0
    truth = grid[: hits + missed]
    low = truth[hits : hits + 1] + 1.0
    found = np.concatenate([truth[:hits] + 2.0, grid[:false] + 20.0, low])
    return Case(found, np.array([0.8] * hits + [0.6] * false + [0.3] * len(low), np.float32), truth, area_mm2)


def test_cases_are_pooled_and_told_by_tumour() -> None:
    cases = [case(9, 1, 2), case(5, 4, 1), case(0, 3, 0, 1.0), case(8, 0, 0)]
    facts = detector_figures(cases, ["A", "B", "B", "C"], ["sarcoma", "sarcoma", "", "breast"], 0.5, 0.1)
    assert (facts["tp"], facts["fp"], facts["fn"]) == (22, 8, 3)
    assert facts["optimal"]["f1"].value == facts["f1"].value == pytest.approx(44 / 55)
    assert facts["f1"].low < facts["f1"].value < facts["f1"].high
    assert facts["fp_per_mm2"].value == pytest.approx(8 / 7)
    assert facts["fp_per_mm2 without mitoses"] == 3.0
    assert {k: (v["tp"], v["fp"], v["fn"]) for k, v in facts["tumours"].items()} == {"sarcoma": (14, 5, 3), "breast": (8, 0, 0), "not told": (0, 3, 0)}
    froc = facts["recall at false positives per mm²"]
    assert froc["0.25"] == pytest.approx(22 / 25), "hits above all false ones"
    assert froc["2"] == pytest.approx(24 / 25), "those below the threshold count for the curve"
    assert 0.9 < facts["average_precision"] < 1


def test_intervals_are_over_patients() -> None:
    """Ten fields of one patient tell no more than one; of ten patients they do."""
    cases = [case(9 if n % 2 else 3, n, 1) for n in range(10)]
    one = detector_figures(cases, ["A"] * 10, [""] * 10, 0.5, 0.1)
    many = detector_figures(cases, list("ABCDEFGHIJ"), [""] * 10, 0.5, 0.1)
    assert one["precision"].low == one["precision"].high == one["precision"].value == many["precision"].value
    assert many["precision"].high - many["precision"].low > 0.1
    assert "tumours" not in one


def test_the_threshold_itself_counts_at_the_precision_that_scores_are_stored_in() -> None:
    point = np.zeros((1, 2))
    facts = detector_figures([Case(point, np.array([0.7], np.float32), point, 1.0)], ["A"], [""], 0.7, 0.1)
    assert facts["tp"] == 1
