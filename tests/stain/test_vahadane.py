"""Vahadane: known vectors are found, they are the best of the stated objective, and how its pixels differ from the paper's is what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from wsikit.slide import open_slide
from wsikit.stain import get_method
from wsikit.stain.macenko import BETA, IO, MIN_PIXELS, REFERENCE, REFERENCE_MAX, optical_density
from wsikit.stain.vahadane import METHOD, PENALTY, _dictionary
from wsikit.survey import survey

Make = Callable[..., np.ndarray]


def unit(rows: object) -> np.ndarray:
    rows = np.array(rows, float)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def degrees_apart(a: object, b: object) -> np.ndarray:
    return np.asarray(np.degrees(np.arccos(np.clip((unit(a) * unit(b)).sum(1), -1, 1))))


PAIRS = {
    "reference": REFERENCE,
    "Ruifrok": [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]],
    "QuPath": [[0.65, 0.70, 0.29], [0.2159, 0.8012, 0.5581]],
    "blue": [[0.66, 0.62, 0.42], [0.2, 0.85, 0.5]],
    "red": [[0.5, 0.75, 0.43], [0.25, 0.86, 0.44]],
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("strength", [(1.6, 1.2), (2.4, 2.4), (1.0, 0.6), (0.8, 0.8)])
def test_known_vectors_are_found_within_two_degrees(make_stained: Make, pair: str, strength: tuple[float, float]) -> None:
    truth = unit(PAIRS[pair])
    fit = METHOD.fit(make_stained(truth, 20_000, strength, 3))
    assert fit.trusted, fit.reason
    assert degrees_apart(fit.vectors, truth).max() < 2
    assert np.array(fit.max_concentration) == pytest.approx(np.array(strength), rel=0.06)


@settings(max_examples=15, deadline=None)
@given(
    h=st.tuples(st.floats(0.5, 0.68), st.floats(0.6, 0.75), st.floats(0.3, 0.45)),
    e=st.tuples(st.floats(0.08, 0.28), st.floats(0.78, 0.92), st.floats(0.3, 0.6)),
    strength=st.tuples(st.floats(0.8, 2.2), st.floats(0.8, 1.6)),
    seed=st.integers(0, 99),
)
def test_any_plausible_pair_is_found(make_stained: Make, h: tuple[float, ...], e: tuple[float, ...], strength: tuple[float, float], seed: int) -> None:
    truth = unit([h, e])
    fit = METHOD.fit(make_stained(truth, 12_000, strength, seed))
    assert fit.trusted, fit.reason
    assert degrees_apart(fit.vectors, truth).max() < 2


def test_eosin_that_lets_red_through_is_not_taken_for_glass(make_stained: Make) -> None:
    """Macenko's rule drops such pixels, so its eosin leans to haematoxylin by several degrees; this one is why there are two."""
    truth = unit(PAIRS["Ruifrok"])
    pixels = make_stained(truth, 20_000, (1.6, 1.2), 3)
    assert degrees_apart(get_method("macenko").fit(pixels).vectors, truth)[1] > 4
    assert degrees_apart(METHOD.fit(pixels).vectors, truth)[1] < 2


def objective(density: np.ndarray, vectors: np.ndarray) -> float:
    """Mean of ½ ‖d − cW‖² + penalty · Σc at the best c ≥ 0, found by repeated projection and not by our formula."""
    penalty = PENALTY * np.linalg.norm(density, axis=1).mean()
    c = np.zeros((len(density), 2))
    for _ in range(60):
        for k in range(2):
            c[:, k] = np.maximum((density - c[:, [1 - k]] * vectors[1 - k]) @ vectors[k] - penalty, 0)
    return float((((density - c @ vectors) ** 2).sum(1) / 2 + penalty * c.sum(1)).mean())


def on_the_sphere(angles: np.ndarray) -> np.ndarray:
    """Two unit vectors without negative components from four angles."""
    a, b = np.reshape(np.abs(np.sin(angles)) * np.pi / 2, (2, 2)).T
    return np.stack([np.cos(a), np.sin(a) * np.cos(b), np.sin(a) * np.sin(b)], 1)


@pytest.mark.parametrize("noise", [0, 6])
def test_no_other_vectors_are_better(make_stained: Make, noise: float) -> None:
    """A general optimiser, from several starts, gets no lower value of the objective; and the same vectors."""
    rng = np.random.default_rng(9)
    pixels = make_stained(unit(PAIRS["blue"]), 600, (1.5, 1.1), 1)
    pixels = (pixels + rng.normal(0, noise, pixels.shape)).round().clip(0, 255).astype(np.uint8)
    density = optical_density(pixels)
    density = density[(density >= BETA).any(1)]
    ours = _dictionary(density)
    assert ours is not None
    starts = [np.array([0.6, 0.6, 0.9, 0.3]), rng.uniform(0.2, 1.3, 4)]
    found = [minimize(lambda a: objective(density, on_the_sphere(a)), s, method="Nelder-Mead", options={"maxfev": 400, "fatol": 1e-10}) for s in starts]
    best = min(found, key=lambda r: r.fun)
    assert objective(density, ours) <= best.fun + 1e-6
    theirs = on_the_sphere(best.x)
    assert degrees_apart(ours, theirs[np.argsort(-theirs[:, 0])]).max() < 1


def test_the_fit_does_not_depend_on_the_order_of_the_pixels(make_stained: Make) -> None:
    pixels = make_stained(unit(REFERENCE), 30_000)
    fit = METHOD.fit(pixels)
    shuffled = METHOD.fit(np.random.default_rng(0).permutation(pixels))
    assert np.array(shuffled.vectors) == pytest.approx(np.array(fit.vectors), abs=2e-6)
    assert METHOD.fit(pixels) == fit


def test_a_pale_slide_has_the_vectors_of_a_dark_one(make_stained: Make) -> None:
    truth = unit(PAIRS["QuPath"])
    pale, dark = (METHOD.fit(make_stained(truth, 20_000, (s, 0.7 * s), 6)) for s in (0.9, 2.2))
    assert degrees_apart(pale.vectors, dark.vectors).max() < 0.6
    assert np.array(dark.max_concentration) / pale.max_concentration == pytest.approx(np.full(2, 2.2 / 0.9), rel=0.05)


def test_more_pixels_than_the_sample_are_thinned_evenly(make_stained: Make) -> None:
    pixels = make_stained(unit(REFERENCE), 30_000)
    assert degrees_apart(METHOD.fit(np.concatenate([pixels] * 8)).vectors, METHOD.fit(pixels).vectors).max() < 0.3


def papers(pixels: np.ndarray, vectors: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The paper's pixels: least-squares concentrations that are not negative, one pixel at a time."""
    amount = np.array([nnls(vectors.T, d)[0] for d in optical_density(pixels)])
    return np.asarray(IO * np.exp(-(amount * (REFERENCE_MAX / most)) @ REFERENCE))


def test_pixels_between_the_stains_are_the_papers_and_others_keep_their_difference(make_stained: Make) -> None:
    vectors = unit(PAIRS["blue"])
    fit = METHOD.fit(make_stained(vectors, 20_000, (1.5, 1.1), 2))
    most = np.array(fit.max_concentration)
    amount = np.random.default_rng(0).uniform(0.1, 0.9, (400, 2))
    inside = (IO * np.exp(-amount @ np.array(fit.vectors)) - 1).round().astype(np.uint8)
    ours = METHOD.apply(torch.from_numpy(inside), fit).numpy()
    assert np.abs(ours - papers(inside, np.array(fit.vectors), most)).max() < 0.6
    blood = np.array([[170, 30, 40]], np.uint8)
    redder = METHOD.apply(torch.from_numpy(blood), fit).numpy()[0].astype(float) - papers(blood, np.array(fit.vectors), most)[0]
    assert redder[0] > 5, "the paper makes blood as red as eosin; here it stays redder"


@pytest.mark.parametrize("n", [MIN_PIXELS - 1, 0])
def test_too_little_tissue_is_refused_with_its_number(make_stained: Make, n: int) -> None:
    fit = METHOD.fit(np.concatenate([make_stained(unit(REFERENCE), 40_000)[-n:] if n else np.empty((0, 3), np.uint8), np.full((9000, 3), 245, np.uint8)]))
    assert not fit.trusted
    assert fit.reason == f"only {fit.pixels} stained pixels, {MIN_PIXELS} are needed"


def test_another_stain_is_left_alone() -> None:
    """Haematoxylin with DAB: brown must not be turned into pink."""
    rng = np.random.default_rng(4)
    amount = rng.uniform(0.1, 1.5, (20_000, 2)) * (rng.uniform(size=(20_000, 2)) > 0.2)
    pixels = (IO * np.exp(-amount @ unit([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]])) - 1).round().clip(0, 255).astype(np.uint8)
    fit = METHOD.fit(pixels)
    assert not fit.trusted
    assert "wedge" in fit.reason


def test_one_axis_of_colour_is_one_colour() -> None:
    """Only red is absorbed: both vectors are drawn to the same axis, which must end in a reason and not in a division by zero."""
    rng = np.random.default_rng(5)
    pixels = np.stack([rng.integers(20, 200, 6000), rng.integers(238, 241, 6000), rng.integers(238, 241, 6000)], 1).astype(np.uint8)
    fit = METHOD.fit(pixels)
    assert not fit.trusted
    assert fit.reason


def test_a_real_slide_comes_out_near_macenko(cmu: Path) -> None:
    slide = open_slide(cmu)
    fit, macenko = survey(slide, "vahadane").stain, survey(slide, "macenko").stain
    assert fit.trusted, fit.reason
    assert degrees_apart(fit.vectors, macenko.vectors).max() < 3
    image = slide.read((800, 1000, 800, 800))
    ours, theirs = (get_method(f.method).apply(torch.from_numpy(image), f).float() for f in (fit, macenko))
    assert float((ours - theirs).abs().mean()) < 8
    assert float((ours - torch.from_numpy(image).float()).abs().mean()) > 8
    some = np.random.default_rng(0).permutation(slide.read((800, 1000, 800, 800), mpp=1.0).reshape(-1, 3))[:1000]
    apart = np.abs(METHOD.apply(torch.from_numpy(some), fit).numpy() - papers(some, np.array(fit.vectors), np.array(fit.max_concentration)).clip(0, 255))
    assert apart.mean() < 1, "rounding is 0.25 of it"
    assert (apart.max(1) > 5).mean() < 0.1


def test_noise_in_the_dark_does_not_carry_haematoxylin_off(make_stained: Make) -> None:
    """Black nuclei through a noisy camera: their densities point everywhere."""
    truth = unit(PAIRS["reference"])
    pixels = make_stained(truth, 30_000, (1.6, 1.2), 1)
    black = (np.random.default_rng(2).uniform(0, 14, (2000, 3))).round().astype(np.uint8)
    assert degrees_apart(METHOD.fit(np.concatenate([pixels, black])).vectors, truth).max() < 2
