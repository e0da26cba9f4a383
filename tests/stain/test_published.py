"""The numbers and pictures that histolab publishes as expected for its tiles, from its stain normalisers."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch

from wsikit.stain import StainFit, StainTarget, get_method
from wsikit.stain._lookup import apply_tables, tables_of
from wsikit.stain.macenko import BETA, IO, optical_density
from wsikit.stain.reinhard import GLASS

TARGET, MEDIUM, LOW = "tissue-level0-7352-11762-7864-12274", "medium-nuclei-score-level1", "low-nuclei-score-level0"
# columns: haematoxylin, eosin, and the direction across both
MATRIX = {
    TARGET: [[0.520699, 0.2073588, 0.1242305], [0.7606757, 0.8483905, -0.5166961], [0.3876146, 0.4870686, 0.847108]],
    MEDIUM: [[0.5388396, 0.1261264, 0.1762086], [0.7349083, 0.8172188, -0.5763255], [0.4117787, 0.5623572, 0.7979971]],
    LOW: [[0.65048231, 0.26120907, 0.63583375], [0.72242689, 0.62082336, -0.68680445], [0.23446141, 0.73915369, 0.35215775]],
}
MOST = {TARGET: [2.1701043, 1.2563618, 0.0523954], MEDIUM: [1.1295585, 1.3438867, 0.1440942], LOW: [0.74900284, 0.52391914, 0.09494156]}
LAB = {
    TARGET: ([57.77235476, 30.6667066, -12.3231239], [15.37156544, 10.19152132, 5.33366456]),
    MEDIUM: ([63.60525855, 34.10860319, -3.26439523], [13.75089992, 13.89511025, 6.91485312]),
    LOW: ([82.67172754, 8.5236446, -4.30401803], [12.48770309, 8.40158118, 10.3241243]),
}
SOURCES = pytest.mark.parametrize("name", [MEDIUM, LOW])


@pytest.fixture(scope="module")
def histolab(data: Path) -> Path:
    return data / "labelled/stain_reference/histolab/tests"


def tile(histolab: Path, name: str) -> np.ndarray:
    return np.array(imagecodecs.png_decode((histolab / f"fixtures/tiles/{name}.png").read_bytes())[..., :3])


def expected(histolab: Path, name: str, method: str) -> np.ndarray:
    return np.array(imagecodecs.png_decode((histolab / f"expectations/pil-images-rgb/{TARGET}--{name}--{method}.png").read_bytes()))


@pytest.mark.parametrize(("name", "apart"), [(TARGET, 3e-5), (MEDIUM, 3e-3)])
def test_macenko_vectors(histolab: Path, name: str, apart: float) -> None:
    """On the same pixels but for histolab's tissue mask, which we do not have."""
    fit = get_method("macenko").fit(tile(histolab, name).reshape(-1, 3))
    assert np.array(fit.vectors) == pytest.approx(np.array(MATRIX[name])[:, :2].T, abs=apart)


def test_yellow_tissue_whose_published_vectors_are_no_stains_is_refused(histolab: Path) -> None:
    """histolab's 'eosin' of this tile absorbs more blue than green; we say so and leave the tile alone."""
    fit = get_method("macenko").fit(tile(histolab, LOW).reshape(-1, 3))
    assert not fit.trusted
    assert "wedge" in fit.reason


@SOURCES
def test_macenko_pixels(histolab: Path, name: str) -> None:
    """histolab takes the direction across both stains along; with its matrix, our tables give its picture, which cuts decimals off."""
    matrix = np.array(MATRIX[TARGET]) @ np.diag(np.array(MOST[TARGET]) / MOST[name]) @ np.linalg.inv(MATRIX[name])
    image = tile(histolab, name)
    ours = apply_tables(torch.from_numpy(image), tables_of(matrix, IO)).numpy().astype(int)
    above = ours - expected(histolab, name, "macenko")
    assert set(np.unique(above)) <= {0, 1}
    exact = (IO * np.exp(-optical_density(image.reshape(-1, 3)) @ matrix.T)).clip(0, 255).reshape(image.shape)
    assert (np.floor(exact) == expected(histolab, name, "macenko")).mean() > 0.9999


@SOURCES
def test_macenko_of_two_stains_differs_little(histolab: Path, name: str) -> None:
    fits = {k: StainFit(method="macenko", trusted=True, vectors=np.array(MATRIX[k])[:, :2].T.tolist(), max_concentration=MOST[k][:2]) for k in (TARGET, name)}
    fit = fits[name].model_copy(update={"target": StainTarget(image=TARGET, digest="0" * 64, fit=fits[TARGET])})
    image = tile(histolab, name)
    ours = get_method("macenko").apply(torch.from_numpy(image), fit).numpy().astype(int)
    apart = np.abs(ours - expected(histolab, name, "macenko"))
    assert apart.mean() < 1.6
    assert np.abs(image.astype(int) - expected(histolab, name, "macenko")).mean() > 6


@SOURCES
def test_reinhard_pixels(histolab: Path, name: str) -> None:
    """Where histolab and we agree on what is tissue, the pictures are the same; glass stays in both."""
    fits = {k: StainFit(method="reinhard", trusted=True, mean=LAB[k][0], std=LAB[k][1]) for k in (TARGET, name)}
    fit = fits[name].model_copy(update={"target": StainTarget(image=TARGET, digest="0" * 64, fit=fits[TARGET])})
    image, wanted = tile(histolab, name), expected(histolab, name, "reinhard").astype(int)
    ours = get_method("reinhard").apply(torch.from_numpy(image), fit).numpy().astype(int)
    density = optical_density(image.reshape(-1, 3)).max(1).reshape(image.shape[:2])
    theirs_is_tissue = (wanted != image).any(-1)
    both = theirs_is_tissue & (density >= BETA)
    assert both.mean() > 0.15
    assert np.abs(ours - wanted)[both].max() <= 1
    assert (ours == wanted)[both].mean() > 0.97
    glass = ~theirs_is_tissue & (density <= GLASS)
    assert glass.mean() > 0.25
    assert np.array_equal(ours[glass], wanted[glass])


@pytest.mark.parametrize(("name", "apart"), [(TARGET, 3), (MEDIUM, 4)])
def test_reinhard_statistics(histolab: Path, name: str, apart: float) -> None:
    """histolab's mask keeps some glass inside of tissue, so its means are paler; not far off where a tile is all tissue."""
    fit = get_method("reinhard").fit(tile(histolab, name).reshape(-1, 3))
    mean, std = LAB[name]
    assert np.abs(np.array(fit.mean) - mean).max() < apart
    assert np.abs(np.array(fit.std) - std).max() < apart
    assert fit.mean[0] < mean[0]
