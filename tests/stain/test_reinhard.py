"""Reinhard: statistics and pixels agree with torchstain and with the formula, glass stays, and what cannot be scaled is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab
from torchstain.numpy.normalizers import NumpyReinhardNormalizer

from wsikit import threads
from wsikit.slide import open_slide
from wsikit.stain import StainFit, StainTarget
from wsikit.stain.macenko import BETA, MIN_PIXELS, REFERENCE, optical_density
from wsikit.stain.reinhard import (
    GLASS,
    MAX_GAIN,
    METHOD,
    REFERENCE_MEAN,
    REFERENCE_STD,
    _gather,
    _transfer,
    apply_tables,
    implausible,
    tables_of,
)

Make = Callable[..., np.ndarray]
XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([0.95047, 1.0, 1.08883])


def unit(rows: object) -> np.ndarray:
    rows = np.array(rows, float)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def fit_of(mean: object, std: object, target: StainTarget | None = None) -> StainFit:
    return StainFit(method="reinhard", trusted=True, mean=list(mean), std=list(std), target=target)  # type: ignore[call-overload]


def to(mean: object, std: object) -> StainTarget:
    return StainTarget(image="a.png", digest="0" * 64, fit=fit_of(mean, std))


def formula(pixels: np.ndarray, mean: object, std: object, to_mean: object, to_std: object) -> np.ndarray:
    """CIELAB there, scaled, and back, in double precision and not rounded."""
    lab = (rgb2lab(pixels[None] / 255.0)[0] - np.array(mean)) * (np.array(to_std) / np.array(std)) + np.array(to_mean)
    y = (lab[:, 0] + 16) / 116
    roots = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], 1)
    light = np.where(roots > 0.2068966, roots**3, (roots - 16 / 116) / 7.787) * WHITE @ np.linalg.inv(XYZ).T
    light = light.clip(0, 1)
    return np.asarray(255 * np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light))


def stained_only(pixels: np.ndarray) -> np.ndarray:
    return pixels[(optical_density(pixels) >= BETA).any(1)]


def test_the_reference_is_the_published_one() -> None:
    assert (*REFERENCE_MEAN, *REFERENCE_STD) == (57, 22, -8, 20, 10, 5)


@settings(max_examples=25, deadline=None)
@given(
    mean=st.tuples(st.floats(45, 75), st.floats(8, 38), st.floats(-30, 2)),
    std=st.tuples(st.floats(9, 22), st.floats(5, 14), st.floats(2.5, 12)),
    to_mean=st.tuples(st.floats(50, 75), st.floats(12, 35), st.floats(-15, 0)),
    to_std=st.tuples(st.floats(10, 20), st.floats(5, 11), st.floats(3, 8)),
    seed=st.integers(0, 2**31),
)
def test_stained_pixels_are_the_rounded_formula(
    mean: tuple[float, ...], std: tuple[float, ...], to_mean: tuple[float, ...], to_std: tuple[float, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    amount = rng.uniform(0, 1.8, (20_000, 2))
    pixels = (240 * np.exp(-amount @ unit(REFERENCE)) - 1 + rng.normal(0, 5, (20_000, 3))).round().clip(0, 255).astype(np.uint8)
    pixels = stained_only(pixels)
    out = METHOD.apply(torch.from_numpy(pixels), fit_of(mean, std, to(to_mean, to_std))).numpy().astype(int)
    exact = formula(pixels, mean, std, to_mean, to_std)
    wrong = np.abs(out - np.rint(exact).astype(int))
    assert wrong.max() <= 1
    assert (wrong > 0).mean() < 0.03, "where the spread grows, roundings grow with it"


def test_without_growth_less_than_one_pixel_in_a_hundred_is_beside_the_formula(make_stained: Make) -> None:
    pixels = stained_only(make_stained(unit(REFERENCE), 60_000))
    fit = METHOD.fit(pixels)
    out = METHOD.apply(torch.from_numpy(pixels), fit).numpy().astype(int)
    wrong = np.abs(out - np.rint(formula(pixels, fit.mean, fit.std, REFERENCE_MEAN, REFERENCE_STD)).astype(int))
    assert wrong.max() <= 1
    assert (wrong > 0).mean() < 0.01


def test_statistics_and_pixels_agree_with_torchstain(make_stained: Make) -> None:
    image = stained_only(make_stained(unit([[0.66, 0.62, 0.42], [0.2, 0.85, 0.5]]), 40_000, (1.5, 1.1), 1))[:30_000].reshape(150, 200, 3)
    target = stained_only(make_stained(unit([[0.5, 0.75, 0.43], [0.25, 0.86, 0.44]]), 40_000, (1.2, 1.0), 2))[:30_000].reshape(150, 200, 3)
    oracle = NumpyReinhardNormalizer()
    oracle.fit(target)
    wanted = METHOD.fit(target.reshape(-1, 3))
    assert wanted.mean == pytest.approx(oracle.target_means.tolist(), abs=2e-3)
    assert wanted.std == pytest.approx(oracle.target_stds.tolist(), abs=2e-3)
    fit = METHOD.fit(image.reshape(-1, 3)).model_copy(update={"target": StainTarget(image="t", digest="0" * 64, fit=wanted)})
    ours = METHOD.apply(torch.from_numpy(image), fit).numpy().astype(int)
    theirs = oracle.normalize(image).astype(int)
    assert np.abs(ours - theirs).max() <= 1, "torchstain cuts decimals off, we round"
    assert ((ours - theirs) >= 0).mean() > 0.99
    assert ours.std() > 10


def test_every_device_way_gives_the_same_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300_000, 3)).astype(np.uint8)
    for mean, std in (((48, 29, -13), (18, 10, 8)), ((72, 22, -5), (11, 8.7, 3.3)), ((60, 36, -38), (5.1, 2.6, 1.3))):
        tables = tables_of(fit_of(mean, std))
        there = _gather(torch.from_numpy(pixels), *[torch.from_numpy(t) for t in tables])
        assert torch.equal(there, apply_tables(torch.from_numpy(pixels), tables))


@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 5000])
def test_chunks_strips_and_threads_do_not_show(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    tables = tables_of(fit_of((60, 25, -10), (15, 8, 5)))
    pixels = np.random.default_rng(n).integers(0, 256, (n, 3)).astype(np.uint8)
    single = np.empty_like(pixels)
    for i in range(0, n, 7):
        _transfer(pixels[i : i + 7], *tables, single[i : i + 7])
    monkeypatch.setattr(threads, "count", lambda: 3)
    assert np.array_equal(apply_tables(torch.from_numpy(pixels), tables).numpy(), single)


def test_statistics_become_the_targets(make_stained: Make) -> None:
    """Where no colour leaves the cube: what Reinhard is for."""
    pixels = stained_only(make_stained(unit(REFERENCE), 40_000, (1.2, 1.0)))
    mean, std = (62.0, 24.0, -10.0), (9.0, 6.0, 4.0)
    out = METHOD.apply(torch.from_numpy(pixels), METHOD.fit(pixels).model_copy(update={"target": to(mean, std)})).numpy()
    lab = rgb2lab(out[None] / 255.0)[0]
    assert lab.mean(0) == pytest.approx(np.array(mean), abs=0.3)
    assert lab.std(0) == pytest.approx(np.array(std), rel=0.03)


def test_the_references_own_statistics_change_nothing() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (50_000, 3)).astype(np.uint8)
    out = METHOD.apply(torch.from_numpy(pixels), fit_of(REFERENCE_MEAN, REFERENCE_STD)).numpy()
    assert np.abs(out.astype(int) - pixels).max() <= 1
    assert (out != pixels).mean() < 0.01


def test_glass_stays_and_the_step_to_tissue_is_smooth() -> None:
    """Along a ramp from white to pink, the change grows from nothing to the whole formula without a jump."""
    fit = fit_of((48, 29, -13), (12, 8, 6))
    ramp = np.stack([np.linspace(255, 215, 400), np.linspace(255, 150, 400), np.linspace(255, 185, 400)], 1).round().astype(np.uint8)
    out = METHOD.apply(torch.from_numpy(ramp), fit).numpy().astype(float)
    density = optical_density(ramp).max(1)
    assert np.array_equal(out[density <= GLASS], ramp[density <= GLASS])
    full = formula(ramp, fit.mean, fit.std, REFERENCE_MEAN, REFERENCE_STD)
    assert np.abs(out - full)[density >= BETA].max() <= 1
    between = (density > GLASS) & (density < BETA)
    share = ((density - GLASS) / (BETA - GLASS))[between, None]
    assert np.abs(out[between] - (ramp[between] + share * (full[between] - ramp[between]))).max() <= 1.2
    assert np.abs(full - ramp)[between].max() > 5, "there is something to blend"


def test_glass_does_not_change_the_fit(make_stained: Make) -> None:
    pixels = make_stained(unit(REFERENCE))
    fit = METHOD.fit(pixels)
    assert METHOD.fit(np.concatenate([pixels, np.full((30_000, 3), 240, np.uint8)])) == fit
    assert fit.pixels == len(stained_only(pixels))
    assert fit.vectors == []


def test_too_little_tissue_is_refused_with_its_number(make_stained: Make) -> None:
    stained = stained_only(make_stained(unit(REFERENCE), 20_000))[::7]
    assert METHOD.fit(stained[:MIN_PIXELS]).trusted
    fit = METHOD.fit(np.concatenate([stained[: MIN_PIXELS - 1], np.full((9000, 3), 250, np.uint8)]))
    assert fit.reason == f"only {MIN_PIXELS - 1} stained pixels, {MIN_PIXELS} are needed"
    assert fit.mean == []


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        (REFERENCE_MEAN, REFERENCE_STD, ""),
        ((75, 11, -6), (12, 9, 12), ""),  # pale and loose
        ((67, 36, -39), (13, 8, 11), ""),  # violet
        ((60, 30, 14), (12, 8, 6), ""),  # orange eosin
        ((60, 22, -8), (20 / MAX_GAIN - 0.1, 10, 5), "one colour"),
        ((60, 22, -8), (20, 10, 5 / MAX_GAIN - 0.1), "one colour"),
        ((60, 1, -2), (20, 10, 5), "wedge"),  # grey
        ((60, 12, 30), (20, 10, 5), "wedge"),  # DAB
        ((50, -30, 20), (20, 10, 5), "wedge"),  # green ink
        ((35, 40, -66), (20, 10, 5), "wedge"),  # blue ink
        ((60, 2, -20), (20, 10, 5), "wedge"),  # haematoxylin with no eosin at all
    ],
)
def test_which_colours_can_be_haematoxylin_and_eosin(mean: tuple[float, ...], std: tuple[float, ...], words: str) -> None:
    reason = implausible(np.array(mean), np.array(std))
    assert words in reason if words else reason == ""


def test_a_real_field_comes_out_as_torchstain_makes_it(cmu: Path) -> None:
    image = open_slide(cmu).read((900, 1200, 600, 600))
    keep = (optical_density(image.reshape(-1, 3)) >= BETA).any(1)
    tissue = image.reshape(-1, 3)[keep][None]
    oracle = NumpyReinhardNormalizer()
    oracle.target_means, oracle.target_stds = np.array(REFERENCE_MEAN, np.float32), np.array(REFERENCE_STD, np.float32)
    fit = METHOD.fit(image.reshape(-1, 3))
    assert fit.trusted, fit.reason
    ours = METHOD.apply(torch.from_numpy(image), fit).numpy().reshape(-1, 3)
    assert np.abs(ours[keep].astype(int) - oracle.normalize(tissue)[0]).max() <= 1
