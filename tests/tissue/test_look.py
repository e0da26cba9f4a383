"""The integer look at a picture against floats, and against hue and saturation by scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi
from skimage.color import rgb2hsv

from wsikit.tissue import _look
from wsikit.tissue._look import BLACK, BLUE, CHROMA, GREEN, GREY, HINT, RED, gaussian, look

SIGMA = (0.64, 0.9)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def uniform(colours: np.ndarray) -> np.ndarray:
    """Each colour (N, 3) alone, wide enough that a small Gaussian sees nothing else."""
    return colours.astype(np.uint8)[:, None].repeat(9, 0).repeat(9, 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (5, 3), (130, 70)])
@pytest.mark.parametrize("sigma", [(0.64, 0.64), SIGMA, (3.0, 1.2)])
def test_grey_and_chroma_are_those_of_a_gaussian(shape: tuple[int, int], sigma: tuple[float, float]) -> None:
    rgb = noise(*shape)
    smooth = ndi.gaussian_filter(rgb.astype(np.float64), (*sigma, 0), mode="nearest")
    seen = look(rgb, sigma)
    assert np.abs(seen.grey / GREY - smooth.mean(-1)).max() < 0.25
    assert np.abs(seen.chroma / CHROMA - (smooth.max(-1) - smooth.min(-1))).max() < 0.5


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_flat_picture_stays_exactly_what_it_is(value: int) -> None:
    seen = look(np.full((20, 30, 3), value, np.uint8), (2.3, 0.7))
    assert (seen.grey == value * GREY).all()
    assert (seen.chroma == 0).all()


@given(st.floats(0.05, 12))
def test_weights_are_symmetric_and_sum_to_one(sigma: float) -> None:
    weights = gaussian(sigma)
    assert weights.sum() == 4096
    assert (weights == weights[::-1]).all()
    assert (weights >= 0).all()
    bell = np.exp(-0.5 * ((np.arange(weights.size) - weights.size // 2) / sigma) ** 2)
    assert np.abs(weights / 4096 - bell / bell.sum()).max() < 1.6 / 4096


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 90), st.integers(1, 30), st.integers(1, 70))
def test_strips_do_not_show(height: int, width: int, strip: int) -> None:
    rgb = noise(height, width)
    before = _look._STRIP
    try:
        whole = look(rgb, SIGMA)
        _look._STRIP = strip
        cut = look(rgb, SIGMA)
    finally:
        _look._STRIP = before
    assert all(np.array_equal(a, b) for a, b in zip(whole, cut, strict=True))


def test_colours_are_told_by_hue_and_saturation() -> None:
    """The whole colour cube in steps of 15, each colour far enough from a limit that rounding does not matter."""
    axis = np.arange(0, 256, 15)
    cube = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    hue, saturation, _ = rgb2hsv(cube[None] / 255.0)[0].T
    degrees, (r, g, b) = hue * 360, cube.T.astype(float)
    chroma = cube.max(1).astype(float) - cube.min(1)
    black = (cube.mean(1) < 50) & (chroma < 25)
    green = (degrees > 70) & (degrees < 195) & (saturation > 0.18)
    blue = (degrees >= 195) & (degrees < 245) & (saturation > 0.3) & (b - r > 40) & (g >= r - 5)
    red = ((degrees < 12) | (degrees > 350)) & (saturation > 0.6) & (r - np.maximum(g, b) > 90) & (np.abs(g - b) < 25)
    expected = np.select([black, green, blue, red], [BLACK, GREEN, BLUE, RED], 0)
    edges = (np.abs(degrees[:, None] - (12, 70, 195, 245, 350)).min(1) > 0.01) & (np.abs(saturation[:, None] - (0.18, 0.3, 0.6)).min(1) > 1e-6)
    seen = look(uniform(cube), (0.1, 0.1)).colour[4::9, 4]
    sure = np.where(seen > HINT, 0, seen)
    assert all((expected == c).sum() > 10 for c in (BLACK, GREEN, BLUE, RED))
    assert np.array_equal(sure[edges], expected[edges])


def test_a_faint_tint_is_a_hint_of_its_ink_and_grey_is_nothing() -> None:
    faint = np.array([(215, 222, 240), (205, 225, 205), (240, 225, 225), (230, 230, 232), (128, 128, 128)])
    assert look(uniform(faint), (0.1, 0.1)).colour[4::9, 4].tolist() == [BLUE + HINT, GREEN + HINT, 0, 0, 0]
