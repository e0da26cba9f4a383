"""Matchings and curves: against rules written out, brute force, pycocotools, and published figures."""

from __future__ import annotations

import contextlib
import io
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.metrics import DetectionScore, match_detections
from wsikit.metrics.matching import Case, average_precision, counts, froc, match_midog, match_optimal, recall_at

POINTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=6).map(lambda p: np.array(p, np.float64).reshape(-1, 2) * 2.5)


def test_the_published_triple_of_zehra_et_al() -> None:
    """97 hits, 33 false and 11 missed ones, laid out as points."""
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2) * 40.0
    truth, found = grid[:108], np.concatenate([grid[:97] + np.array([3.0, 4.0]), grid[:33] + 20.0])
    for matching in ("midog", "optimal"):
        score = counts(found, truth, matching)
        assert (score.tp, score.fp, score.fn) == (97, 33, 11)
        assert [round(v, 4) for v in (score.precision, score.recall, score.f1)] == [0.7462, 0.8981, 0.8151]


@settings(max_examples=150, deadline=None)
@given(POINTS, POINTS)
def test_midogs_matching_is_the_rule_written_out(found: np.ndarray, truth: np.ndarray) -> None:
    left, expected = set(range(len(found))), []
    for point in truth:
        near = sorted((float(np.hypot(*(found[j] - point))), j) for j in left if np.hypot(*(found[j] - point)) <= 7.5)
        expected.append(near[0][1] if near else -1)
        left -= {expected[-1]}
    assert match_midog(found, truth).tolist() == expected
    assert counts(found, truth) == match_detections(found, truth)


@settings(max_examples=100, deadline=None)
@given(POINTS.filter(lambda p: len(p) <= 5), POINTS.filter(lambda p: len(p) <= 5))
def test_optimal_matching_has_most_pairs_and_then_least_distance(found: np.ndarray, truth: np.ndarray) -> None:
    mine = match_optimal(found, truth)
    hits = mine[mine >= 0]
    assert len(set(hits.tolist())) == len(hits)
    padded = [*range(len(found)), *[-1] * len(truth)]
    best = (0, 0.0)
    for chosen in set(permutations(padded, len(truth))) if len(truth) else []:
        distance = [np.hypot(*(found[j] - truth[i])) for i, j in enumerate(chosen) if j >= 0]
        if all(d <= 7.5 for d in distance):
            best = max(best, (len(distance), -round(float(sum(distance)), 6)))
    total = sum(float(np.hypot(*(found[j] - truth[i]))) for i, j in enumerate(mine) if j >= 0)
    assert (len(hits), -round(total, 6)) == best
    assert len(hits) >= (match_midog(found, truth) >= 0).sum()


def test_a_true_point_on_the_radius_counts() -> None:
    for matching in ("midog", "optimal"):
        assert counts(np.array([[7.5, 0.0]]), np.zeros((1, 2)), matching) == DetectionScore(1, 0, 0)
        assert counts(np.array([[4.5, 6.0]]), np.zeros((1, 2)), matching) == DetectionScore(1, 0, 0)
        assert counts(np.array([[7.5001, 0.0]]), np.zeros((1, 2)), matching) == DetectionScore(0, 1, 1)
        assert counts(np.zeros((2, 2)), np.zeros((1, 2)), matching) == DetectionScore(1, 1, 0)
        assert counts(np.zeros((1, 2)), np.zeros((2, 2)), matching) == DetectionScore(1, 0, 1)
        assert counts(np.empty((0, 2)), np.empty((0, 2)), matching) == DetectionScore(0, 0, 0)


def random_case(rng: np.random.Generator, ties: bool) -> Case:
    truth = rng.uniform(0, 400, (rng.integers(0, 12), 2))
    near = truth[rng.random(len(truth)) < 0.8]
    found = np.concatenate([near + rng.normal(0, 4, near.shape), rng.uniform(0, 400, (rng.integers(0, 9), 2))])
    score = rng.choice([0.2, 0.5, 0.9], len(found)) if ties else rng.random(len(found))
    return Case(found, score, truth, 0.16)


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_pycocotools(seed: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(seed)
    cases = [random_case(rng, ties=False) for _ in range(8)]
    truth, found = COCO(), []
    boxes = [[*(p - 11.25), 22.5, 22.5] for c in cases for p in c.truth_um]
    image = [i + 1 for i, c in enumerate(cases) for _ in c.truth_um]
    marks = [{"id": n + 1, "image_id": i, "category_id": 1, "bbox": b, "area": 506.25, "iscrowd": 0} for n, (b, i) in enumerate(zip(boxes, image, strict=True))]
    truth.dataset = {"images": [{"id": i + 1} for i in range(8)], "annotations": marks, "categories": [{"id": 1}], "info": {}}
    for i, c in enumerate(cases):
        found += [{"image_id": i + 1, "category_id": 1, "bbox": [*(p - 11.25), 22.5, 22.5], "score": s} for p, s in zip(c.found_um, c.score, strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(found), "bbox")
        judge.params.iouThrs = np.array([0.5])
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    assert average_precision(cases) == pytest.approx(float(judge.eval["precision"][0, :, 0, 0, -1].mean()), abs=1e-12)


def test_average_precision_of_all_right_none_right_and_nothing_to_find() -> None:
    truth = np.array([[10.0, 10], [100, 100]])
    assert average_precision([Case(truth, np.array([0.9, 0.8]), truth, 1.0)]) == 1.0
    assert average_precision([Case(truth + 500, np.array([0.9, 0.8]), truth, 1.0)]) == 0.0
    assert average_precision([Case(np.empty((0, 2)), np.empty(0), truth, 1.0)]) == 0.0
    assert np.isnan(average_precision([Case(truth, np.array([0.9, 0.8]), np.empty((0, 2)), 1.0)]))


@pytest.mark.parametrize("seed", range(4))
def test_each_point_of_the_froc_is_a_threshold_counted_by_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cases = [random_case(rng, ties=True) for _ in range(5)]
    threshold, false, recall = froc(cases)
    assert threshold.tolist() == sorted({float(s) for c in cases for s in c.score}, reverse=True)
    assert (np.diff(recall) >= 0).all()
    for t, f, r in zip(threshold, false, recall, strict=True):
        kept = [Case(c.found_um[c.score >= t], c.score[c.score >= t], c.truth_um, c.area_mm2) for c in cases]
        _, alone_f, alone_r = froc(kept)
        assert (alone_f[-1], alone_r[-1]) == pytest.approx((f, r))
        assert f * 0.8 + r * sum(len(c.truth_um) for c in cases) == pytest.approx(sum(len(c.score) for c in kept))
    found = recall_at(cases, (1e9, -1.0))
    assert found == {1e9: recall[-1], -1.0: 0.0}
