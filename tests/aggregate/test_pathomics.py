"""Pathomics of drawn nuclei whose number, size and stain are known; and when there are none."""

from __future__ import annotations

import numpy as np
import pytest

from wsikit.aggregate.features import all_names, measured
from wsikit.aggregate.pathomics import FORMULAS, measure, of_slide
from wsikit.run import Run
from wsikit.stain.macenko import IO, REFERENCE


def tissue(n: int, radius_um: float, mpp: float, haem: float = 1.5, eosin: float = 0.5, wave_um: float = 0.0) -> np.ndarray:
    """Two tiles of 256 µm with n round nuclei each on a lattice, in the reference's colours."""
    side = round(256 / mpp)
    y, x = np.mgrid[:side, :side] * mpp
    h = np.full((side, side), 0.05)
    step = 256 / np.sqrt(n)
    for cy in np.arange(step / 2, 256, step):
        for cx in np.arange(step / 2, 256, step):
            h[(y - cy) ** 2 + (x - cx) ** 2 <= radius_um**2] = haem
    e = eosin * (1 + (0.4 * np.sin(2 * np.pi * x / wave_um) if wave_um else 0.0)) * np.ones_like(h)
    rgb = IO * np.exp(-(h[..., None] * REFERENCE[0] + e[..., None] * REFERENCE[1])) - 1
    return np.stack([rgb.clip(0, 255).round().astype(np.uint8)] * 2)


@pytest.mark.parametrize("mpp", [0.25, 0.5])
@pytest.mark.parametrize(("n", "radius"), [(64, 4.0), (144, 5.0)])
def test_nuclei_are_counted_and_sized(mpp: float, n: int, radius: float) -> None:
    found = measure(tissue(n, radius, mpp), mpp, REFERENCE)
    assert found["nuclei_per_mm2"] == pytest.approx(n / 0.256**2, rel=0.02)
    assert found["nucleus_um2"] == pytest.approx(np.pi * radius**2, rel=0.12)
    assert found["nucleus_um2_spread"] < 0.05
    assert found["nucleus_eccentricity"] < 0.4
    assert found["eosin"] == pytest.approx(0.5, abs=0.03)
    assert set(found) == set(FORMULAS)


def test_texture_is_what_waves() -> None:
    flat, fine, coarse = (measure(tissue(64, 4, 0.5, wave_um=w), 0.5, REFERENCE) for w in (0.0, 8.0, 64.0))
    assert flat["texture_contrast"] < 0.03 < coarse["texture_contrast"] < fine["texture_contrast"]
    assert flat["texture_entropy"] < coarse["texture_entropy"]


def test_plain_glass_has_none() -> None:
    found = measure(np.full((1, 64, 64, 3), 239, np.uint8), 0.5, REFERENCE)
    assert (found["nuclei_per_mm2"], found["nucleus_um2"]) == (0, 0)
    assert all(np.isfinite(v) for v in found.values())


def test_of_a_phantom_with_kept_pixels(scored: Run) -> None:
    store = scored.store("lms")
    found, reason = of_slide(store)
    assert reason == ""
    assert 1000 < found["nuclei_per_mm2"] < 3500, "the phantom has 2300, some of which touch"
    assert 15 < found["nucleus_um2"] < 120
    inputs = measured(store, all_names(store))
    assert inputs.features["pathomics.eosin"] == found["eosin"]
    assert inputs.features["sts-subtype.f0"] == pytest.approx(float(store.tables()["sts-subtype"]["feature"][:, 0].astype(float).mean()))
    assert inputs.weight == max(len(store.tables()[p]["feature"]) for p in ("sts-subtype", "rms-subtype"))
