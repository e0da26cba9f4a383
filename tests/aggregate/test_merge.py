"""Detections seen twice are one: against the greedy rule written out, and across the edges of tiles and blocks."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.aggregate.mitosis import merge

Found = tuple[np.ndarray, np.ndarray]


@st.composite
def detections(draw: st.DrawFn, most: int = 40) -> Found:
    """Points on a coarse lattice, so that exact distances and equal scores are common."""
    n = draw(st.integers(0, most))
    xy = draw(st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), min_size=n, max_size=n))
    score = draw(st.lists(st.sampled_from([0.1, 0.5, 0.7, 0.9]), min_size=n, max_size=n))
    return np.array(xy, np.float64).reshape(-1, 2), np.array(score, np.float32)


def greedy(position: np.ndarray, score: np.ndarray, mpp: tuple[float, float], radius: float) -> list[int]:
    """Best first; each takes away what is left within the radius."""
    left = sorted(range(len(score)), key=lambda i: (-float(score[i]), position[i, 1], position[i, 0]))
    kept: list[int] = []
    for i in left:
        if all(np.hypot(*((position[i] - position[j]) * mpp)) > radius for j in kept):
            kept.append(i)
    return sorted(kept, key=lambda i: (position[i, 1], position[i, 0]))


@settings(max_examples=150, deadline=None)
@given(detections(), st.sampled_from([(1.0, 1.0), (0.5, 0.5), (0.5, 1.0), (2.0, 0.25)]), st.sampled_from([0.5, 2.5, 5.0, 13.0]))
def test_merging_is_the_greedy_rule(found: Found, mpp: tuple[float, float], radius: float) -> None:
    position, score = found
    kept = merge(position, score, mpp, radius)
    expected = greedy(position, score, mpp, radius)
    assert position[kept].tolist() == position[expected].tolist()
    assert score[kept].tolist() == score[expected].tolist()


@settings(max_examples=80, deadline=None)
@given(detections(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(found: Found, shuffle: random.Random) -> None:
    position, score = found
    order = np.array(shuffle.sample(range(len(score)), len(score)), int)
    a, b = merge(position, score, (0.5, 0.5), 7.5), merge(position[order], score[order], (0.5, 0.5), 7.5)
    assert position[a].tolist() == position[order][b].tolist()
    assert score[a].tolist() == score[order][b].tolist()


@settings(max_examples=50, deadline=None)
@given(detections())
def test_merging_again_changes_nothing(found: Found) -> None:
    position, score = found
    kept = merge(position, score, (0.5, 0.5), 5.0)
    again = merge(position[kept], score[kept], (0.5, 0.5), 5.0)
    assert again.tolist() == list(range(len(kept)))


@pytest.mark.parametrize("mpp", [(0.25, 0.25), (0.25, 0.5)])
@pytest.mark.parametrize("stride", [96, 160])
def test_objects_seen_by_several_tiles_are_counted_once(mpp: tuple[float, float], stride: int) -> None:
    """Objects 20 µm apart, seen with an error of up to 2 µm by every overlapping tile that holds them."""
    rng = np.random.default_rng(stride)
    grid = np.stack(np.meshgrid(np.arange(20, 780, 84.0), np.arange(20, 780, 84.0)), -1).reshape(-1, 2)
    truth = grid + rng.uniform(-1, 1, grid.shape)
    seen, score = [], []
    for x0 in range(0, 800, stride):
        for y0 in range(0, 800, stride):
            inside = ((truth >= (x0 - 32, y0 - 32)) & (truth < (x0 + stride + 32, y0 + stride + 32))).all(1)
            seen.append(truth[inside] + rng.uniform(-1.4, 1.4, (int(inside.sum()), 2)) / mpp)
            score.append(rng.uniform(0.2, 1, int(inside.sum())))
    position, values = np.concatenate(seen), np.concatenate(score).astype(np.float32)
    assert len(position) > len(truth) + 20, "many are seen more than once"
    kept = position[merge(position, values, mpp, 7.5)]
    assert len(kept) == len(truth)
    nearest = np.hypot(*((kept[:, None] - truth[None]) * mpp).transpose(2, 0, 1)).argmin(1)
    assert sorted(nearest) == list(range(len(truth)))


def test_distance_is_in_micrometres_and_the_radius_included() -> None:
    pair = np.array([[0.0, 0.0], [30.0, 0.0]])
    score = np.array([0.4, 0.6], np.float32)
    assert merge(pair, score, (0.25, 9.0), 7.5).tolist() == [1]
    assert merge(pair, score, (0.2501, 0.25), 7.5).tolist() == [0, 1]
    assert merge(pair[:, ::-1], score, (0.25, 0.2501), 7.5).tolist() == [0, 1]


def test_a_chain_keeps_its_ends() -> None:
    """The middle one is better than both neighbours, so they go; a worse middle one goes alone."""
    chain = np.array([[0.0, 0], [5, 0], [10, 0]])
    assert merge(chain, np.array([0.5, 0.9, 0.5], np.float32), (1.0, 1.0), 6.0).tolist() == [1]
    assert merge(chain, np.array([0.9, 0.5, 0.8], np.float32), (1.0, 1.0), 6.0).tolist() == [0, 2]
    assert merge(chain, np.array([0.9, 0.8, 0.7], np.float32), (1.0, 1.0), 6.0).tolist() == [0, 2]


def test_a_million_detections_take_seconds() -> None:
    """400,000 objects seen two or three times; 4 s on 2 cores, the limit leaves room for a busy machine."""
    rng = np.random.default_rng(0)
    seen = np.repeat(rng.uniform(0, 400_000, (400_000, 2)), np.tile([2, 3], 200_000), 0)
    seen += rng.normal(0, 4, seen.shape)
    score = rng.random(len(seen)).astype(np.float32)
    start = time.process_time()
    kept = merge(seen, score, (0.25, 0.25), 7.5)
    assert time.process_time() - start < 20
    assert 390_000 < len(kept) <= 400_100


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(60, 400), st.integers(16, 58), st.integers(-300, 300))
def test_the_same_mitoses_however_the_slide_is_cut(seed: int, tile: int, overlap: int, shift: int) -> None:
    """A detector that sees what it can see whole: each tile reports the objects of 10 px in it, in its own order; cut and shift do not matter."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(20, 780, (60, 2))
    score = rng.choice(np.array([0.2, 0.5, 0.9], np.float32), 60)
    seen, scores = [], []
    for x in range(shift - 400, 800, tile - overlap):
        for y in range(shift - 400, 800, tile - overlap):
            inside = ((truth >= (x + 5, y + 5)) & (truth < (x + tile - 5, y + tile - 5))).all(1)
            order = rng.permutation(int(inside.sum()))
            seen.append(truth[inside][order])
            scores.append(score[inside][order])
    position, values = np.concatenate(seen), np.concatenate(scores)
    kept, whole = merge(position, values, (0.5, 0.5), 7.5), merge(truth, score, (0.5, 0.5), 7.5)
    assert position[kept].tolist() == truth[whole].tolist()
    assert values[kept].tolist() == score[whole].tolist()
