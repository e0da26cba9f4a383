"""Immunohistochemistry is recognised by its brown, and no H&E is taken for it."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from skimage.transform import downscale_local_mean

import wsikit as wk
from wsikit.errors import UnsupportedFormatError
from wsikit.survey import survey
from wsikit.testing.phantom import GLASS, RECIPES, Spec, make_phantom
from wsikit.tissue.brown import IHC_SHARE, brown_share

DAB = np.array([0.27, 0.57, 0.78])


def in_dab(rgb: np.ndarray, stain: np.ndarray, positive: float) -> np.ndarray:
    """A phantom whose eosin is gone, and whose tissue has DAB instead in a share of its columns."""
    density = -np.log10((rgb.astype(float) + 1) / (GLASS + 1))
    amounts = density.reshape(-1, 3) @ np.linalg.pinv(stain)
    amounts = amounts.reshape(*rgb.shape[:2], 2)
    here = (np.arange(rgb.shape[1]) % 100 < 100 * positive)[:, None]
    mixed = amounts[..., :1] * stain[0] + amounts[..., 1:] * here * DAB
    return np.clip((GLASS + 1) * 10**-mixed - 1, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("positive", [0.3, 1.0])
def test_brown_tissue_is_refused_unless_wanted(positive: float, tmp_path: Path) -> None:
    rgb, truth = make_phantom(Spec(5, "LMS", 1536, 1024))
    np.save(tmp_path / "ihc.npy", in_dab(rgb, truth.stain, positive))
    with wk.open_slide(tmp_path / "ihc.npy", mpp=0.5) as slide:
        with pytest.raises(UnsupportedFormatError, match=r"ihc\.npy: \d+% of the tissue is brown, so it is immunohistochemistry.*--any-stain"):
            survey(slide)
        assert survey(slide, any_stain=True).brown > IHC_SHARE


@pytest.mark.parametrize("subtype", sorted(RECIPES))
def test_phantoms_of_he_are_not_brown(subtype: str) -> None:
    rgb, truth = make_phantom(Spec(2, subtype, 1024, 768))
    small = downscale_local_mean(rgb, (16, 16, 1)).round().astype(np.uint8)
    assert brown_share(small, truth.tissue[: small.shape[0], : small.shape[1]], GLASS) < IHC_SHARE / 10


def test_nothing_stained_is_not_brown() -> None:
    assert brown_share(np.full((9, 9, 3), 243, np.uint8), np.ones((9, 9), bool), 243) == 0
    assert brown_share(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), bool), 243) == 0


def test_real_he_is_not_brown(data: Path) -> None:
    """From eight sources, sarcomas among them."""
    found = []
    for folder in ("osteosarcoma_ut/tiles", "midesec/images", "crc_val_he_sample", "cmc_hardneg_fields/images", "sts_foersch/tiles", "stain_reference"):
        for path in sorted(p for p in (data / "labelled" / folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif", ".tiff"))[:12]:
            rgb = imagecodecs.imread(path)[..., :3]
            small = downscale_local_mean(rgb, (4, 4, 1)).round().astype(np.uint8)
            found.append(brown_share(small, np.ones(small.shape[:2], bool), 243))
    assert len(found) > 40
    assert max(found) < IHC_SHARE / 4
