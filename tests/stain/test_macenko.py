"""Macenko: known vectors are found, pixels agree with torchstain, and what cannot be fitted is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

from wsikit.slide import open_slide
from wsikit.stain import StainFit
from wsikit.stain.macenko import METHOD, MIN_PIXELS, REFERENCE, REFERENCE_MAX, colour_matrix, implausible, optical_density

Make = Callable[..., np.ndarray]


def unit(rows: object) -> np.ndarray:
    rows = np.array(rows, float)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def degrees_apart(a: object, b: object) -> np.ndarray:
    return np.asarray(np.degrees(np.arccos(np.clip((unit(a) * unit(b)).sum(1), -1, 1))))


def test_constants_are_the_published_ones() -> None:
    oracle = NumpyMacenkoNormalizer()
    assert (oracle.HERef.T == REFERENCE).all()
    assert (oracle.maxCRef == REFERENCE_MAX).all()
    assert optical_density(np.array([[239, 0, 255]], np.uint8)) == pytest.approx(np.array([[0, np.log(240), -np.log(256 / 240)]]))


@settings(max_examples=25, deadline=None)
@given(
    h=st.tuples(st.floats(0.5, 0.68), st.floats(0.6, 0.75), st.floats(0.3, 0.45)),
    e=st.tuples(st.floats(0.17, 0.28), st.floats(0.78, 0.92), st.floats(0.42, 0.6)),
    strength=st.tuples(st.floats(1.2, 2.0), st.floats(1.0, 1.4)),
    seed=st.integers(0, 99),
)
def test_known_vectors_are_found_within_two_degrees(
    make_stained: Make, h: tuple[float, ...], e: tuple[float, ...], strength: tuple[float, float], seed: int
) -> None:
    truth = unit([h, e])
    fit = METHOD.fit(make_stained(truth, 20_000, strength, seed))
    assert fit.trusted, fit.reason
    assert degrees_apart(fit.vectors, truth).max() < 2
    assert np.array(fit.max_concentration) == pytest.approx(np.array(strength), rel=0.06)


def slides() -> dict[str, tuple[np.ndarray, tuple[float, float]]]:
    """Laboratories: their vectors and how strongly they stain."""
    return {
        "reference": (unit(REFERENCE), (1.97, 1.03)),
        "blue and strong": (unit([[0.66, 0.62, 0.42], [0.2, 0.85, 0.5]]), (2.2, 1.3)),
        "red and weak": (unit([[0.5, 0.75, 0.43], [0.25, 0.86, 0.44]]), (1.2, 1.0)),
    }


@pytest.mark.parametrize("name", slides())
def test_pixels_agree_with_torchstain(make_stained: Make, name: str) -> None:
    vectors, strength = slides()[name]
    image = make_stained(vectors, 160 * 160, strength, 5).reshape(160, 160, 3)
    dense = (optical_density(image.reshape(-1, 3)) >= 0.15).all(1).reshape(160, 160)
    image[~dense] = image[dense][0]  # torchstain takes its 99th percentile over glass too, so leave none
    fit = METHOD.fit(image.reshape(-1, 3))
    ours = METHOD.apply(torch.from_numpy(image), fit).numpy()
    theirs = NumpyMacenkoNormalizer().normalize(image, stains=False)[0]
    assert np.abs(ours.astype(int) - theirs).max() <= 1, "torchstain cuts decimals off, we round"
    assert ours.std() > 10


def test_the_colour_matrix_takes_each_stain_to_the_reference() -> None:
    vectors, strength = unit([[0.66, 0.62, 0.42], [0.2, 0.85, 0.5]]), np.array([2.2, 1.3])
    matrix = colour_matrix(StainFit(method="macenko", trusted=True, vectors=vectors.tolist(), max_concentration=strength.tolist()))
    for i in range(2):
        assert matrix @ (vectors[i] * strength[i]) == pytest.approx(REFERENCE[i] * REFERENCE_MAX[i])


def test_normalised_pixels_are_the_references_and_normalising_again_changes_little(make_stained: Make) -> None:
    vectors, strength = slides()["red and weak"]
    image = torch.from_numpy(make_stained(vectors, 40_000, strength, 2))
    once = METHOD.apply(image, METHOD.fit(image.numpy()))
    again = METHOD.fit(once.numpy())
    assert degrees_apart(again.vectors, REFERENCE).max() < 2
    assert np.array(again.max_concentration) == pytest.approx(REFERENCE_MAX, rel=0.05)
    twice = METHOD.apply(once, again)
    assert float((twice.float() - once.float()).abs().mean()) < 2
    assert float((once.float() - image.float()).abs().mean()) > 10, "the first time changed a lot"


def test_two_laboratories_come_out_alike() -> None:
    amount = np.random.default_rng(1).uniform(0.1, 1, (30_000, 2)) * (np.random.default_rng(2).uniform(size=(30_000, 2)) > 0.15)
    out = []
    for vectors, strength in slides().values():
        pixels = (240 * np.exp(-(amount * strength) @ vectors) - 1).round().clip(0, 255).astype(np.uint8)
        out.append(METHOD.apply(torch.from_numpy(pixels), METHOD.fit(pixels)).float())
    for other in out[1:]:
        assert float((other - out[0]).abs().mean()) < 4


def test_glass_does_not_change_the_fit(make_stained: Make) -> None:
    pixels = make_stained(unit(REFERENCE))
    fit = METHOD.fit(pixels)
    with_glass = METHOD.fit(np.concatenate([pixels, np.full((30_000, 3), 243, np.uint8)]))
    assert with_glass == fit
    assert 0 < fit.pixels < len(pixels) + 1


def test_few_pixels_are_refused_with_their_number(make_stained: Make) -> None:
    pixels = make_stained(unit([[0.6, 0.68, 0.42], [0.25, 0.8, 0.55]]), 60_000)
    dense = pixels[(optical_density(pixels) >= 0.15).all(1)]
    chosen = dense[:: len(dense) // (MIN_PIXELS + 5)]
    assert METHOD.fit(chosen[:MIN_PIXELS]).trusted
    refused = METHOD.fit(np.concatenate([chosen[: MIN_PIXELS - 1], np.full((9000, 3), 250, np.uint8)]))
    assert not refused.trusted
    assert refused.reason == f"only {MIN_PIXELS - 1} stained pixels, {MIN_PIXELS} are needed"
    assert refused.pixels == MIN_PIXELS - 1


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        ([[0.9, -0.3, 0.3], [0.2, 0.8, 0.55]], "negative"),
        ([[0.58, 0.70, 0.41], [0.56, 0.72, 0.41]], "apart"),
        ([[0.58, 0.70, 0.41], [0.507, 0.76, 0.41]], "nearly parallel"),
        ([[0.3, 0.85, 0.43], [0.05, 0.6, 0.8]], "wedge"),
        ([[0.95, 0.2, 0.24], [0.1, 0.99, 0.1]], "wedge"),
        ([[0.60, 0.70, 0.05], [0.1, 0.99, 0.1]], "wedge"),
        ([[0.70, 0.65, 0.30], [0.55, 0.75, 0.37]], "wedge"),
        (REFERENCE, ""),
        ([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], ""),
        ([[0.65, 0.70, 0.29], [0.2159, 0.8012, 0.5581]], ""),
        ([[0.40, 0.81, 0.42], [0.15, 0.67, 0.73]], ""),
    ],
)
def test_which_vectors_can_be_haematoxylin_and_eosin(vectors: object, words: str) -> None:
    reason = implausible(unit(vectors))
    assert words in reason if words else reason == ""


def test_a_slide_of_another_stain_is_left_alone() -> None:
    """Haematoxylin with DAB: brown must not be turned into pink."""
    rng = np.random.default_rng(4)
    amount = rng.uniform(0.1, 1.5, (20_000, 2)) * (rng.uniform(size=(20_000, 2)) > 0.2)
    pixels = (240 * np.exp(-amount @ unit([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]])) - 1).round().clip(0, 255).astype(np.uint8)
    fit = METHOD.fit(pixels)
    assert not fit.trusted
    assert fit.reason
    assert torch.equal(METHOD.apply(torch.from_numpy(pixels), fit), torch.from_numpy(pixels))


def test_a_real_field_has_torchstains_vectors_and_pixels(cmu: Path) -> None:
    image = open_slide(cmu).read((300, 500, 700, 700))
    oracle = NumpyMacenkoNormalizer()
    oracle.fit(image)
    fit = METHOD.fit(image.reshape(-1, 3))
    assert fit.trusted, fit.reason
    assert np.array(fit.vectors) == pytest.approx(oracle.HERef.T, abs=1e-5)
    same = fit.model_copy(update={"max_concentration": oracle.maxCRef.tolist()})  # it takes the percentile over glass too
    ours = METHOD.apply(torch.from_numpy(image), same).numpy()
    theirs = NumpyMacenkoNormalizer().normalize(image, stains=False)[0]
    assert np.abs(ours.astype(int) - theirs).max() <= 1
