"""Folds drawn into phantoms are found, and dense tissue that is none is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wsikit.slide import open_slide
from wsikit.survey import overview_raster
from wsikit.testing.flaws import band, fold
from wsikit.testing.phantom import EOSIN, GLASS, HAEMATOXYLIN, RECIPES
from wsikit.tissue import TissueMask, find_tissue
from wsikit.tissue import _parts as parts
from wsikit.tissue.mask import FOLD

MPP = (8.0, 8.0)
PATH = [(520, 420), (980, 660), (1560, 640)]  # level-0 px of a section, well inside its tissue
At8 = Callable[[np.ndarray], np.ndarray]


def folds(found: TissueMask) -> np.ndarray:
    return np.asarray(found.kind == FOLD)


@pytest.mark.parametrize("subtype", sorted(RECIPES))
def test_a_fold_is_found_and_only_that(subtype: str, section: Callable, overview: At8) -> None:
    plain, _ = section(subtype)
    folded, where = fold(plain, PATH, 150)  # 75 µm
    found, truth = find_tissue(overview(folded), MPP), overview(where)
    assert not folds(find_tissue(overview(plain), MPP)).any()
    assert folds(found)[truth].mean() > 0.4
    assert truth[folds(found)].mean() > 0.85
    assert found.tissue[truth].mean() > 0.99, "a fold stays tissue"


@pytest.mark.parametrize(("width_um", "layers"), [(40, 2), (60, 3), (90, 2), (130, 2)])
def test_folds_narrow_and_wide(width_um: float, layers: int, section: Callable, overview: At8) -> None:
    folded, where = fold(section("LMS")[0], PATH, width_um * 2, layers)
    found, truth = folds(find_tissue(overview(folded), MPP)), overview(where)
    assert found[truth].mean() > 0.4
    assert truth[found].mean() > 0.75


def stained(shape: tuple[int, int], haem: np.ndarray | float, eosin: np.ndarray | float) -> np.ndarray:
    """A slide of 8 µm/px from amounts of stain, glass around it."""
    inside = np.zeros(shape, bool)
    inside[15:-15, 15:-15] = True
    amount = np.stack(np.broadcast_arrays(haem, eosin), -1) * inside[..., None]
    light = GLASS * np.exp(-(amount[..., :1] * HAEMATOXYLIN + amount[..., 1:] * EOSIN))
    return (light + np.random.default_rng(0).normal(0, 1.5, light.shape)).clip(0, 255).astype(np.uint8)


SHAPE = (150, 200)
LINE = band(SHAPE, [(40, 70), (110, 60), (160, 95)], 9)


def test_the_same_tissue_twice_as_thick_is_a_fold() -> None:
    found = folds(find_tissue(stained(SHAPE, 0.15 * (1 + LINE), 0.3 * (1 + LINE)), MPP))
    assert found[LINE].mean() > 0.6
    assert LINE[found].mean() > 0.85


def test_a_band_of_cells_is_no_fold() -> None:
    """As dense as a fold, but dense with nuclei: another colour."""
    assert not folds(find_tissue(stained(SHAPE, 0.15 + 0.55 * LINE, 0.3), MPP)).any()


def test_a_vessel_full_of_blood_is_no_fold() -> None:
    assert not folds(find_tissue(stained(SHAPE, 0.15 * ~LINE, 0.3 + 0.5 * LINE), MPP)).any()


@pytest.mark.parametrize(
    "where",
    [
        band(SHAPE, [(90, 75), (112, 75)], 9),
        band(SHAPE, [(60, 75), (140, 75)], 50),
        band(SHAPE, [(15, 40), (15, 110)], 9),
        np.indices(SHAPE)[0] > 75,
        band(SHAPE, [(50, 75), (150, 75)], 8) | band(SHAPE, [(100, 30), (100, 120)], 8) | band(SHAPE, [(60, 40), (140, 110)], 8),
    ],
    ids=["too short", "too wide", "the section's edge", "half the section", "a star"],
)
def test_dense_parts_of_another_shape_are_no_folds(where: np.ndarray) -> None:
    assert not folds(find_tissue(stained(SHAPE, 0.15 * (1 + where), 0.3 * (1 + where)), MPP)).any()


def test_a_fold_does_not_depend_on_the_strips_or_on_where_up_is(section: Callable, overview: At8, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = overview(fold(section("LMS")[0], PATH, 120)[0])
    whole = find_tissue(picture, MPP).kind
    assert (whole == FOLD).any()
    turned = np.rot90(find_tissue(np.ascontiguousarray(np.rot90(picture)), MPP).kind, -1)
    assert (turned != whole).mean() < 0.002
    monkeypatch.setattr(parts, "_STRIP_PX", 1000)
    assert np.array_equal(find_tissue(picture, MPP).kind, whole)


def test_real_sections_without_folds(data: Path) -> None:
    """A carotid artery and a core of prostate: at most 0.3 % of their tissue is called a fold, by mistake."""
    for name, mpp in (("large-he-carotid-top-12480x14848.tif", None), ("histoprep-slide_with_ink.jpeg", 2.0), ("histoprep-slide.jpeg", 0.5)):
        slide = open_slide(data / "slides" / name, mpp=mpp)
        raster = overview_raster(slide)
        found = find_tissue(slide.read_low_power(raster), raster.mpp)
        assert folds(found).sum() <= 0.003 * found.tissue.sum(), name


def test_the_public_slide_has_none(cmu: Path) -> None:
    slide = open_slide(cmu)
    raster = overview_raster(slide)
    assert not folds(find_tissue(slide.read_low_power(raster), raster.mpp)).any()
