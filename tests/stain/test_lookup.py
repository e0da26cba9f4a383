"""The look-up tables of a stain matrix against the formula they stand for, on every path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit import threads
from wsikit.stain import StainFit, StainTarget
from wsikit.stain._lookup import _gather, _look_up, apply_tables, tables_of
from wsikit.stain.macenko import IO, colour_matrix, implausible

TILTS = st.tuples(*[st.floats(-0.12, 0.12)] * 6)
AMOUNTS = st.tuples(st.floats(0.3, 3.5), st.floats(0.3, 3.5))


def fit_of(tilt: tuple[float, ...], most: tuple[float, float]) -> StainFit:
    """A fit of tilted haematoxylin and eosin; untilted where the tilt is too much to be plausible."""
    middle = np.array([[0.6, 0.69, 0.37], [0.2, 0.82, 0.48]])
    vectors = middle + np.reshape(tilt, (2, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if implausible(vectors):
        vectors = middle / np.linalg.norm(middle, axis=1, keepdims=True)
    return StainFit(method="macenko", trusted=True, vectors=vectors.tolist(), max_concentration=list(most))


def formula(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.asarray((IO * np.exp(np.log((pixels.astype(float) + 1) / IO) @ matrix.T)).clip(0, 255))


@settings(max_examples=20, deadline=None)
@given(tilt=TILTS, most=AMOUNTS, to_tilt=TILTS, to_most=AMOUNTS, seed=st.integers(0, 2**31))
def test_tables_are_the_rounded_formula(
    tilt: tuple[float, ...], most: tuple[float, float], to_tilt: tuple[float, ...], to_most: tuple[float, float], seed: int
) -> None:
    target = StainTarget(image="a.png", digest="0" * 64, fit=fit_of(to_tilt, to_most))
    matrix = colour_matrix(fit_of(tilt, most).model_copy(update={"target": target}))
    pixels = np.random.default_rng(seed).integers(0, 256, (20_000, 3)).astype(np.uint8)
    exact = formula(pixels, matrix)
    tables = tables_of(matrix, IO)
    out = apply_tables(torch.from_numpy(pixels), tables).numpy()
    assert np.abs(out - exact).max() < 0.57, "a wrong level is next to the right one, and the formula between the two"
    wrong = np.abs(out.astype(int) - np.rint(exact).astype(int))
    assert wrong.max() <= 1
    # three roundings of half a step each: 240 / 8192 grey levels a step, times the mean size of a sum of three of them, 0.41 steps
    assert (wrong > 0).mean() < 1.1 * 0.41 * IO / 8192
    assert np.array_equal(gathered(pixels, tables), out), "the way of other devices gives the same bytes"


def gathered(pixels: np.ndarray, tables: object) -> np.ndarray:
    share, grey = tables  # type: ignore[misc]
    return np.asarray(_gather(torch.from_numpy(pixels), torch.from_numpy(share), [torch.from_numpy(g) for g in grey]))


def test_every_grey_of_one_channel_alone() -> None:
    """A ramp of all 256 levels through a diagonal matrix."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    for factor in (0.3, 1.0, 2.5):
        out = apply_tables(torch.from_numpy(ramp), tables_of(np.eye(3) * factor, IO)).numpy()
        assert np.abs(out - formula(ramp, np.eye(3) * factor)).max() < 0.57
        assert (np.diff(out.astype(int), axis=0) >= 0).all()


def test_the_identity_is_one_level_up_as_in_torchstain_or_exact_when_asked() -> None:
    ramp = torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 3).contiguous()
    assert torch.equal(apply_tables(ramp, tables_of(np.eye(3), IO, less=1)), ramp)
    assert torch.equal(apply_tables(ramp, tables_of(np.eye(3), IO)).int(), (ramp.int() + 1).clamp(max=255))


def test_a_matrix_that_multiplies_a_hundredfold_still_gives_greys() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 3)).astype(np.uint8)
    matrix = 100 * np.array([[1.0, -1.0, 0.5], [0.2, 1.0, -1.0], [-0.4, 0.3, 1.0]])
    out = apply_tables(torch.from_numpy(pixels), tables_of(matrix, IO)).numpy()
    with np.errstate(over="ignore"):
        assert (np.abs(out - formula(pixels, matrix)) > 3).mean() < 0.01


def test_threads_and_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tables_of(colour_matrix(fit_of((0.0,) * 6, (1.5, 1.0))), IO)
    pixels = np.random.default_rng(1).integers(0, 256, (2**20 + 4099, 3)).astype(np.uint8)
    whole = np.empty_like(pixels)
    _look_up(pixels, *tables, whole)
    for count in (1, 3):
        monkeypatch.setattr(threads, "count", lambda count=count: count)
        assert np.array_equal(apply_tables(torch.from_numpy(pixels), tables).numpy(), whole)


def test_views_that_are_not_contiguous_are_read_right() -> None:
    tables = tables_of(colour_matrix(fit_of((0.0,) * 6, (1.5, 1.0))), IO)
    image = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    assert torch.equal(apply_tables(image[5:30:2, 3:40], tables), apply_tables(image, tables)[5:30:2, 3:40])
