"""Metrics against hand-worked and published figures, lifelines and maximum matchings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index as lifelines_index
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from wsikit.metrics import DetectionScore, balanced_accuracy, bootstrap, concordance_index, confusion, match_detections

Points = np.ndarray


def test_the_published_mitosis_figures_follow_from_their_counts() -> None:
    """Zehra et al. 2022."""
    score = DetectionScore(97, 33, 11)
    assert (round(score.precision, 4), round(score.recall, 4), round(score.f1, 4)) == (0.7462, 0.8981, 0.8151)


def test_the_readme_case_of_the_midog_evaluation() -> None:
    found = np.array([[10.0, 10], [100, 100], [300, 300]])
    truth = np.array([[12.0, 10], [100, 104]])
    score = match_detections(found, truth)
    assert (score.tp, score.fp, score.fn) == (2, 1, 0)
    assert (round(score.precision, 3), score.recall, round(score.f1, 3)) == (0.667, 1.0, 0.8)


def test_each_point_is_used_once() -> None:
    two, one = np.array([[0.0, 0], [1, 0]]), np.array([[0.5, 0.0]])
    assert match_detections(two, one) == DetectionScore(1, 1, 0)
    assert match_detections(one, two) == DetectionScore(1, 0, 1)


def test_the_radius_counts_and_beyond_it_nothing() -> None:
    assert match_detections(np.array([[7.5, 0.0]]), np.array([[0.0, 0.0]])).tp == 1
    assert match_detections(np.array([[7.5001, 0.0]]), np.array([[0.0, 0.0]])).tp == 0
    assert match_detections(np.array([[30.0, 0.0]]), np.array([[0.0, 0.0]]), 30.0).tp == 1


def test_true_points_take_their_nearest_in_order_as_midog_does() -> None:
    """The first takes the one that the second would have needed."""
    found, truth = np.array([[4.0, 0], [-7, 0]]), np.array([[0.0, 0], [8, 0]])
    assert match_detections(found, truth) == DetectionScore(1, 1, 1)
    assert match_detections(found, truth[::-1]) == DetectionScore(2, 0, 0)


def test_nothing_found_and_nothing_there_has_no_score() -> None:
    empty = np.empty((0, 2))
    score = match_detections(empty, empty)
    assert score == DetectionScore(0, 0, 0)
    assert all(math.isnan(v) for v in (score.precision, score.recall, score.f1))
    assert match_detections(empty, np.zeros((3, 2))) == DetectionScore(0, 0, 3)
    assert match_detections(np.zeros((3, 2)), empty) == DetectionScore(0, 3, 0)
    assert match_detections(empty, np.zeros((3, 2))).f1 == 0


lattice = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=15).map(lambda p: np.array(p, np.float64).reshape(-1, 2))


@settings(max_examples=100, deadline=None)
@given(lattice, lattice)
def test_a_matching_is_valid_maximal_and_at_least_half_the_best(found: Points, truth: Points) -> None:
    score = match_detections(found, truth)
    assert (score.tp + score.fp, score.tp + score.fn) == (len(found), len(truth))
    near = np.hypot(*(found[:, None] - truth[None]).transpose(2, 0, 1)) <= 7.5 if len(found) and len(truth) else np.zeros((0, 0))
    best = int((maximum_bipartite_matching(csr_array(near)) >= 0).sum()) if near.size else 0
    assert best / 2 <= score.tp <= best


def test_counts_of_cases_are_pooled() -> None:
    assert sum([DetectionScore(1, 2, 3), DetectionScore(4, 0, 1)], DetectionScore(0, 0, 0)) == DetectionScore(5, 2, 4)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.integers(0, 4)), min_size=2, max_size=25))
def test_concordance_is_that_of_lifelines_with_ties_in_time_event_and_risk(rows: list[tuple[int, bool, int]]) -> None:
    time, event, risk = (np.array(c, float) for c in zip(*rows, strict=True))
    ours = concordance_index(time, event, risk)
    if ours.concordant + ours.discordant + ours.tied_risk == 0:
        assert math.isnan(ours.c_index)
        with pytest.raises(ZeroDivisionError):
            lifelines_index(time, -risk, event)
    else:
        assert ours.c_index == pytest.approx(lifelines_index(time, -risk, event))


def test_concordance_by_hand() -> None:
    """Five patients; pairs that can be compared: 1-2 1-3 1-4 1-5, 2-3 (censored at the same time), 2-4 2-5, 4-5."""
    time, event = np.array([1.0, 3, 3, 4, 6]), np.array([True, True, False, True, False])
    found = concordance_index(time, event, np.array([5.0, 2, 4, 2, 1]))
    assert (found.concordant, found.discordant, found.tied_risk) == (6, 1, 1)
    assert found.c_index == pytest.approx(6.5 / 8)
    assert concordance_index(time, event, np.array([5.0, 2 + 5e-9, 4, 2, 1])).tied_risk == 1, "rounding is not an order"


def test_without_events_there_is_no_concordance() -> None:
    assert math.isnan(concordance_index(np.array([1.0, 2]), np.array([False, False]), np.array([1.0, 2])).c_index)


def mean_of(x: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda rows: float(x[rows].mean())


def test_intervals_repeat_with_the_seed_and_differ_with_another() -> None:
    x = np.random.default_rng(0).normal(size=30)
    groups = [str(i) for i in range(30)]
    first = bootstrap(mean_of(x), groups, draws=200)
    assert bootstrap(mean_of(x), groups, draws=200) == first
    assert bootstrap(mean_of(x), groups, draws=200, seed=1) != first
    assert first.value == pytest.approx(x.mean())
    assert first.low < first.value < first.high


def test_patients_are_resampled_and_not_their_rows() -> None:
    """Ten copies of each patient's row must not make the interval narrower."""
    x = np.random.default_rng(0).normal(size=20)
    names = [f"p{i:02d}" for i in range(20)]
    one = bootstrap(mean_of(x), names, draws=300)
    ten = bootstrap(mean_of(np.repeat(x, 10)), np.repeat(names, 10), draws=300)
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high))
    rows = bootstrap(mean_of(np.repeat(x, 10)), [str(i) for i in range(200)], draws=300)
    assert rows.high - rows.low < 0.6 * (one.high - one.low)


def test_one_patient_has_no_spread_to_show() -> None:
    found = bootstrap(mean_of(np.array([1.0, 5.0])), ["a", "a"], draws=50)
    assert (found.value, found.low, found.high) == (3, 3, 3)


def test_draws_without_a_value_are_left_out_and_counted() -> None:
    label = np.array([1, 0, 0, 0])

    def recall(rows: np.ndarray) -> float:
        return 1.0 if label[rows].any() else math.nan

    found = bootstrap(recall, list("abcd"), draws=1000)
    assert (found.value, found.low, found.high) == (1, 1, 1)
    assert 250 < found.degenerate < 390, "(3/4)⁴ = 0.316 of the draws miss the one patient"
    nothing = bootstrap(lambda rows: math.nan, list("abcd"), draws=20)
    assert (nothing.degenerate, math.isnan(nothing.low), math.isnan(nothing.high)) == (20, True, True)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    names = [str(i) for i in range(40)]
    hits = 0
    for i in range(150):
        x = rng.exponential(1.0, 40)
        found = bootstrap(mean_of(x), names, draws=200, seed=i)
        hits += found.low <= 1.0 <= found.high
    assert 0.86 <= hits / 150 <= 0.99


def test_confusion_and_balanced_accuracy_by_hand() -> None:
    table = confusion(["A", "A", "A", "B", "B", "A"], ["A", "B", "", "B", "B", "A"], ["A", "B", "C"])
    assert table.tolist() == [[2, 1, 0, 1], [0, 2, 0, 0], [0, 0, 0, 0]]
    assert balanced_accuracy(table) == pytest.approx((0.5 + 1.0) / 2), "a withheld call is not right, a class that is not there does not count"
    assert math.isnan(balanced_accuracy(np.zeros((2, 3), int)))


def test_an_unknown_true_class_is_an_error() -> None:
    with pytest.raises(ValueError, match="D"):
        confusion(["D"], ["A"], ["A", "B"])
