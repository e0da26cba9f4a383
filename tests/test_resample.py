"""Area resampling against a brute-force mean, and the same pixel from every window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit import threads
from wsikit.resample import area_weights, resample, shrink, source_span

TWO_PASSES = 0.5 + 1 / 32 + 1e-9  # a grey level is rounded once at 1/16 and once at 1
steps = st.one_of(st.floats(0.91, 9.0), st.sampled_from([1.0, 2.0, 4.0, 1.5, 2.004, 16.0, 65.0, 100.5, 130.0]))
starts = st.integers(-40, 3000)


def picture(height: int, width: int, seed: int = 0, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (height, width, 3), dtype=np.uint8)


def window(start: tuple[int, int], count: tuple[int, int], step: tuple[float, float], seed: int = 0, **limits: int) -> np.ndarray:
    (x0, x1), (y0, y1) = (source_span(s, n, t) for s, n, t in zip(start, count, step, strict=True))
    return picture(y1 - y0, x1 - x0, seed, **limits)


def shares(start: int, count: int, step: float, grain: int | None) -> np.ndarray:
    """How much of each source pixel lies in each output pixel: float64 (count, window); edges on 1/grain px, or where they are."""
    first, end = source_span(start, count, step)
    edges = np.arange(start, start + count + 1) * step
    edges = np.rint(edges * grain) / grain if grain else edges
    pixel = np.arange(first, end)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return overlap.clip(0)


def area_mean(image: np.ndarray, start: tuple[int, int], count: tuple[int, int], step: tuple[float, float], grain: int | None) -> np.ndarray:
    across, down = (shares(s, n, t, grain) for s, n, t in zip(start, count, step, strict=True))
    weighted = np.einsum("jy,yxc,ix->jic", down, image.astype(float), across)
    return weighted / (down.sum(1)[:, None, None] * across.sum(1)[None, :, None])


@settings(max_examples=50, deadline=None)
@given(start=st.tuples(starts, starts), count=st.tuples(st.integers(1, 9), st.integers(1, 40)), step=st.tuples(steps, steps), seed=st.integers(0, 99))
def test_every_pixel_is_the_mean_of_its_area(start: tuple[int, int], count: tuple[int, int], step: tuple[float, float], seed: int) -> None:
    image = window(start, count, step, seed)
    found = resample(image, start, count, step)
    assert found.shape == (count[1], count[0], 3)
    assert found.dtype == np.uint8
    assert np.abs(found - area_mean(image, start, count, step, 256)).max() <= TWO_PASSES


@settings(max_examples=40, deadline=None)
@given(start=st.tuples(starts, starts), count=st.tuples(st.integers(1, 9), st.integers(1, 9)), step=st.tuples(steps, steps))
def test_rounding_positions_costs_little(start: tuple[int, int], count: tuple[int, int], step: tuple[float, float]) -> None:
    """Against areas that are not on a grid of 1/256 px: each of four edges is off by 1/512 px at most."""
    image = window(start, count, step, low=100, high=140)
    found = resample(image, start, count, step)
    slack = sum(2 * 40 / 512 / t for t in step)
    assert np.abs(found - area_mean(image, start, count, step, None)).max() <= TWO_PASSES + slack


@settings(max_examples=60, deadline=None)
@given(start=st.tuples(starts, starts), count=st.tuples(st.integers(2, 40), st.integers(2, 60)), step=st.tuples(steps, steps), data=st.data())
def test_a_pixel_is_the_same_from_every_window(start: tuple[int, int], count: tuple[int, int], step: tuple[float, float], data: st.DataObject) -> None:
    if max(step) > 20:
        step = (step[0] % 9 + 1, step[1] % 9 + 1)
    image = window(start, count, step)
    whole = resample(image, start, count, step)
    x, y = data.draw(st.integers(0, count[0] - 1)), data.draw(st.integers(0, count[1] - 1))
    w, h = data.draw(st.integers(1, count[0] - x)), data.draw(st.integers(1, count[1] - y))
    (ox, _), (oy, _) = (source_span(s, n, t) for s, n, t in zip(start, count, step, strict=True))
    (x0, x1), (y0, y1) = source_span(start[0] + x, w, step[0]), source_span(start[1] + y, h, step[1])
    part = resample(image[y0 - oy : y1 - oy, x0 - ox : x1 - ox], (start[0] + x, start[1] + y), (w, h), step)
    assert np.array_equal(part, whole[y : y + h, x : x + w])


@settings(max_examples=40, deadline=None)
@given(start=starts, count=st.integers(1, 20), step=steps, value=st.integers(0, 255))
def test_an_even_grey_stays(start: int, count: int, step: float, value: int) -> None:
    image = np.full_like(window((start, start), (count, 3), (step, step * 1.01)), value)
    assert (resample(image, (start, start), (count, 3), (step, step * 1.01)) == value).all()


@pytest.mark.parametrize("step", [(2.5, 2.5), (1.25, 5.0), (4.0, 4.0), (1.0, 2.0), (3.0, 1.0)])
def test_the_mean_is_kept(step: tuple[float, float]) -> None:
    image = picture(200, 240)
    found = resample(image, (0, 0), (round(240 / step[0]), round(200 / step[1])), step)
    ties = 0.5 / (step[0] * step[1]) if (step[0] * step[1]) % 2 == 0 else 0.0  # the mean of n pixels lies half way in 1 of n cases, and goes up
    assert np.abs(found.mean((0, 1)) - image.mean((0, 1))).max() < ties + 0.05


@settings(max_examples=60, deadline=None)
@given(start=starts, count=st.integers(1, 50), step=steps)
def test_the_window_is_just_large_enough(start: int, count: int, step: float) -> None:
    first, end = source_span(start, count, step)
    assert first <= start * step + 1 / 512
    assert end >= (start + count) * step - 1 / 512
    assert first + 1 > start * step - 1 / 512
    assert end - 1 < (start + count) * step + 1 / 512
    weights = area_weights(start, count, step)
    assert (weights.weight.sum(0) == weights.total).all()
    assert np.abs(weights.total / 256 - step).max() <= 1 / 256


@settings(max_examples=40, deadline=None)
@given(factor=st.integers(1, 64), rows=st.integers(1, 5), columns=st.integers(1, 5), channels=st.integers(1, 4), seed=st.integers(0, 99))
def test_shrink_rounds_half_up(factor: int, rows: int, columns: int, channels: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (rows * factor, columns * factor, channels), dtype=np.uint8)
    total = image.reshape(rows, factor, columns, factor, channels).astype(np.int64).sum((1, 3))
    assert np.array_equal(shrink(image, factor), (2 * total + factor**2) // (2 * factor**2))


def test_white_stays_white_at_the_largest_factors() -> None:
    for factor in (64, 65, 257, 1025):
        assert (resample(np.full((factor, factor, 3), 255, np.uint8), (0, 0), (1, 1), (factor, factor)) == 255).all(), factor


def test_a_step_of_one_changes_nothing() -> None:
    image = picture(7, 9)
    assert np.array_equal(resample(image, (3, 5), (9, 7), (1.0, 1.0)), image)


@pytest.mark.parametrize("step", [(2.7, 2.7), (4.0, 4.0)])
def test_threads_do_not_show(step: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    image = window((5, 7), (50, 300), step)
    found = []
    for threads_count in (1, 2, 7):
        monkeypatch.setattr(threads, "count", lambda n=threads_count: n)
        found.append(resample(image, (5, 7), (50, 300), step))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_a_view_is_read_as_it_stands() -> None:
    """Windows cut from larger pictures are not contiguous."""
    large = picture(60, 80)
    for step, count in (((2.5, 2.5), (8, 8)), ((4.0, 4.0), (5, 5))):
        view = large[10:30, 20:40]
        assert np.array_equal(resample(view, (0, 0), count, step), resample(view.copy(), (0, 0), count, step))
