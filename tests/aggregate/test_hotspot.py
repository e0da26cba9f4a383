"""The densest window against a search of all windows, areas by hand, and what is flagged."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsikit.aggregate.mitosis import Hotspot, density_map, find_hotspot, poisson_interval

Pair = tuple[float, float]


def overlap(start: float, end: float, n: int, size: float) -> np.ndarray:
    """How much of each of ``n`` pixels of ``size`` lies in [start, end)."""
    edges = np.arange(n + 1) * size
    return np.asarray(np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None))


def search(position: np.ndarray, tissue: np.ndarray, downsample: Pair, mpp: Pair, area: float) -> tuple[float, float, int, float, bool]:
    """Every window in turn: x, y, count, tissue mm² of the best, and whether it is partial."""
    side = math.sqrt(area) * 1000
    n = max(1, round(side / 16))
    step = (side / n / mpp[0], side / n / mpp[1])
    h, w = tissue.shape
    columns, rows = (max(n, math.ceil(k * d / s)) for k, d, s in ((w, downsample[0], step[0]), (h, downsample[1], step[1])))
    found = []
    for row in range(rows - n + 1):
        for column in range(columns - n + 1):
            x, y = column * step[0], row * step[1]
            px = overlap(y, y + n * step[1], h, downsample[1]) @ tissue @ overlap(x, x + n * step[0], w, downsample[0])
            inside = (position[:, 0] >= x) & (position[:, 0] < x + n * step[0]) & (position[:, 1] >= y) & (position[:, 1] < y + n * step[1])
            found.append((x, y, int(inside.sum()), round(px * mpp[0] * mpp[1] / 1e6, 8)))
    full = [f for f in found if f[3] >= 0.8 * area - 1e-8]
    if full:
        best = max(full, key=lambda f: (f[2], f[3], -f[1], -f[0]))
    else:
        most = max(f[3] for f in found)
        best = max((f for f in found if f[3] >= most / 2), key=lambda f: (f[2] / f[3], f[3], -f[1], -f[0]))
    return (*best, not full)


@settings(max_examples=120, deadline=None)
@given(
    tissue=arrays(np.bool_, st.tuples(st.integers(3, 14), st.integers(3, 14)), elements=st.sampled_from([True, True, True, False])),
    points=st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)), max_size=12),
    downsample=st.sampled_from([(64.0, 64.0), (64.3, 61.7), (32.0, 96.0)]),
    mpp=st.sampled_from([(0.5, 0.5), (0.25, 0.5), (0.497, 0.503)]),
    area=st.sampled_from([0.0023, 0.01, 0.02]),
)
def test_the_densest_window_is_that_of_a_search_of_all(tissue: np.ndarray, points: list[Pair], downsample: Pair, mpp: Pair, area: float) -> None:
    size = np.array(tissue.shape[::-1]) * downsample
    position = np.array(points, np.float64).reshape(-1, 2) * size
    found = find_hotspot(position, tissue, downsample, mpp, area)
    total = tissue.sum() * math.prod(downsample) * math.prod(mpp) / 1e6
    if not tissue.any():
        assert found is None
        return
    assert found is not None
    if total < area:
        assert found.flags == ("insufficient_area",)
        assert (found.count, found.tissue_mm2) == (len(position), pytest.approx(total))
        return
    x, y, count, tissue_mm2, partial = search(position, tissue, downsample, mpp, area)
    assert found.flags == (("partial",) if partial else ())
    assert found.count == count
    assert found.tissue_mm2 == pytest.approx(tissue_mm2, abs=2e-8)
    assert (found.x, found.y) == pytest.approx((x, y), abs=1e-6)
    assert found.w * mpp[0] == pytest.approx(math.sqrt(area) * 1000)
    assert found.h * mpp[1] == pytest.approx(math.sqrt(area) * 1000)


def sheet(width_mm: float, height_mm: float, mpp: Pair, downsample: float = 16.0) -> np.ndarray:
    """A slide that is all tissue."""
    return np.ones((math.ceil(height_mm * 1000 / mpp[1] / downsample), math.ceil(width_mm * 1000 / mpp[0] / downsample)), bool)


@pytest.mark.parametrize("mpp", [(0.25, 0.25), (0.5, 0.5), (0.25, 0.5)])
def test_two_square_millimetres_hold_what_was_put_there(mpp: Pair) -> None:
    """20 mitoses in 1 mm² far from the corner, 10 spread over the rest: by µm, whatever the resolution."""
    rng = np.random.default_rng(7)
    hot_um = np.array([3500.0, 2600.0]) + rng.uniform(-450, 450, (20, 2))
    rest_um = rng.uniform(0, 1500, (10, 2))
    position = np.concatenate([hot_um, rest_um]) / np.array(mpp)
    found = find_hotspot(position, sheet(5, 4, mpp), (16.0, 16.0), mpp, 2.0)
    assert found is not None
    assert found.flags == ()
    assert found.count == 20
    assert found.tissue_mm2 == pytest.approx(2.0, abs=1e-6)
    assert found.per_mm2 == pytest.approx(10.0)
    assert (found.low, found.high) == pytest.approx((6.1085, 15.4441), abs=1e-3)
    assert (found.w * mpp[0] / 1000) * (found.h * mpp[1] / 1000) == pytest.approx(2.0)
    box = (found.x * mpp[0], found.y * mpp[1], (found.x + found.w) * mpp[0], (found.y + found.h) * mpp[1])
    assert box[0] <= hot_um[:, 0].min() < hot_um[:, 0].max() < box[2]
    assert box[1] <= hot_um[:, 1].min() < hot_um[:, 1].max() < box[3]


def test_less_tissue_than_the_window_is_taken_whole_and_said() -> None:
    tissue = np.zeros((200, 300), bool)
    tissue[50:100, 60:160] = True  # 5000 px of 64 µm² = 0.32 mm²
    position = np.array([[1000.0, 900.0], [2000.0, 1500.0]])
    found = find_hotspot(position, tissue, (16.0, 16.0), (0.5, 0.5), 2.0)
    assert found is not None
    assert found.flags == ("insufficient_area",)
    assert (found.x, found.y, found.w, found.h) == (960, 800, 1600, 800)
    assert (found.count, found.tissue_mm2, found.per_mm2) == (2, pytest.approx(0.32), pytest.approx(6.25))
    assert (found.low, found.high) == pytest.approx(poisson_interval(2, 0.32))


def test_scattered_tissue_is_flagged_and_divided_by_tissue_not_by_window() -> None:
    """Stripes: half of any window is glass, so 80 % is nowhere reached."""
    tissue = np.zeros((400, 400), bool)
    tissue[::2] = True
    position = np.random.default_rng(0).uniform(2000, 3000, (9, 2))
    found = find_hotspot(position, tissue, (16.0, 16.0), (0.5, 0.5), 2.0)
    assert found is not None
    assert found.flags == ("partial",)
    assert found.count == 9
    assert found.tissue_mm2 == pytest.approx(1.0, rel=0.02)
    assert found.per_mm2 == pytest.approx(9 / found.tissue_mm2)


def test_without_tissue_there_is_no_hotspot() -> None:
    assert find_hotspot(np.array([[5.0, 5.0]]), np.zeros((40, 40), bool), (16.0, 16.0), (0.5, 0.5), 2.0) is None


def test_without_mitoses_the_first_full_window_is_named_with_its_upper_bound() -> None:
    found = find_hotspot(np.empty((0, 2)), sheet(4, 3, (0.5, 0.5)), (16.0, 16.0), (0.5, 0.5), 2.0)
    assert found is not None
    assert (found.x, found.y, found.count, found.per_mm2, found.low) == (0, 0, 0, 0, 0)
    assert found.high == pytest.approx(3.6889 / 2, abs=1e-4)


def test_the_json_has_the_centre_and_rounds_nothing_that_matters() -> None:
    spot = Hotspot(100.0, 200.0, 50.0, 30.0, 2.0, 7, 3.5, 1.40708, 7.21130, ("partial",))
    assert spot.to_json() == {
        "x": 100.0, "y": 200.0, "w": 50.0, "h": 30.0, "centre": [125.0, 215.0], "tissue_mm2": 2.0,
        "count": 7, "per_mm2": 3.5, "low": 1.40708, "high": 7.2113, "flags": ["partial"],
    }  # fmt: skip


@pytest.mark.parametrize("mpp", [(0.5, 0.5), (0.25, 0.5)])
def test_density_is_count_per_tissue_around_each_cell(mpp: Pair) -> None:
    rng = np.random.default_rng(3)
    tissue = np.ones((60, 90), bool)
    tissue[:, :30] = False
    downsample = (16.0 * 0.5 / mpp[0], 16.0)
    size = np.array([90 * downsample[0], 60 * downsample[1]])
    position = rng.uniform((0.34, 0), 1, (40, 2)) * size
    value, step = density_map(position, tissue, downsample, mpp)
    side_um = math.sqrt(0.2) * 1000
    n = round(side_um / 16)
    assert np.array(step) * mpp == pytest.approx([side_um / n] * 2)
    assert np.isnan(value[:, 0]).all(), "no tissue within reach"
    for row, column in rng.integers((0, 25), value.shape, (60, 2)):
        x, y = (column - n // 2) * step[0], (row - n // 2) * step[1]
        inside = (position >= (x, y)).all(1) & (position < (x + n * step[0], y + n * step[1])).all(1)
        px = overlap(y, y + n * step[1], 60, downsample[1]) @ tissue @ overlap(x, x + n * step[0], 90, downsample[0])
        area = px * mpp[0] * mpp[1] / 1e6
        if area >= 0.05 + 1e-6:
            assert value[row, column] == pytest.approx(inside.sum() / area, rel=1e-4)
        elif area < 0.05 - 1e-6:
            assert np.isnan(value[row, column])
