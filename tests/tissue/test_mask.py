"""Tissue against the truth of phantoms, and what must never be taken for tissue."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage as ndi

from wsikit.resample import shrink
from wsikit.testing.flaws import dust
from wsikit.testing.phantom import RECIPES, Spec, Truth, make_phantom
from wsikit.tissue import TissueMask, find_tissue
from wsikit.tissue._look import look
from wsikit.tissue.mask import MIN_REGION_MM2, OTHER, find_foreign

MPP = (8.0, 8.0)
GREEN, CYAN, BLUE, RED, BLACK = (40, 160, 70), (30, 170, 190), (35, 70, 190), (200, 25, 30), (12, 12, 14)


@cache
def low_power(subtype: str = "LMS", seed: int = 1) -> tuple[np.ndarray, Truth]:
    """A phantom at 8 µm/px with its truth."""
    rgb, truth = make_phantom(Spec(seed, subtype, 2048, 1536))
    return shrink(rgb, 16), truth


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def glass(shape: tuple[int, int] = (96, 128), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(243, 1.5, (*shape, 3)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("subtype", sorted(RECIPES))
def test_the_outline_of_every_kind_of_phantom_is_found(subtype: str) -> None:
    picture, truth = low_power(subtype)
    found = find_tissue(picture, MPP)
    assert 0.1 < truth.tissue.mean() < 0.95
    assert iou(found.tissue, truth.tissue) > 0.9
    assert not found.foreign.any()
    assert not found.black.any()
    assert found.white_point == pytest.approx(243, abs=2)


def test_pale_tissue_is_still_tissue() -> None:
    """A third of the stain, beside dense tissue, at which Otsu alone would put its threshold."""
    picture, truth = low_power("LMS")
    pale = picture.copy()
    half = truth.tissue.copy()
    half[:, : half.shape[1] // 2] = False
    pale[half] = (243 - (243.0 - picture[half]) * 0.35).round()
    assert iou(find_tissue(pale, MPP).tissue, truth.tissue) > 0.9


@pytest.mark.parametrize("ink", [GREEN, CYAN, BLUE, RED], ids=["green", "cyan", "blue", "red"])
def test_ink_is_foreign_and_never_tissue(ink: tuple[int, int, int]) -> None:
    picture, truth = low_power("LMS")
    inked = picture.copy()
    stroke = np.zeros(truth.tissue.shape, bool)
    stroke[20:28, 10:110] = True  # over tissue and glass
    inked[stroke] = ink
    found = find_tissue(inked, MPP)
    assert found.foreign[stroke].mean() > 0.95
    assert not found.tissue[stroke].any()
    far = np.ones_like(stroke)
    far[12:36, 2:118] = False
    assert iou(found.tissue & far, truth.tissue & far) > 0.9
    assert not found.foreign[far].any()


@pytest.mark.parametrize("ink", [GREEN, BLUE, RED, BLACK], ids=["green", "blue", "red", "black"])
def test_a_dot_of_ink_in_tissue_is_not_filled_up_as_a_hole_and_its_rim_is_left_out(ink: tuple[int, int, int]) -> None:
    picture, truth = low_power("LMS")
    rows, columns = np.nonzero(truth.tissue)
    y, x = int(rows.mean()), int(columns.mean())
    dotted = picture.copy()
    dotted[y : y + 8, x : x + 8] = ink
    found = find_tissue(dotted, MPP)
    assert find_tissue(picture, MPP).tissue[y - 3 : y + 11, x - 3 : x + 11].all()
    assert (found.foreign | found.black)[y + 1 : y + 7, x + 1 : x + 7].all()
    assert not found.tissue[y - 1 : y + 9, x : x + 8].any()
    assert not found.tissue[y : y + 8, x - 1 : x + 9].any()
    assert found.tissue[y - 9 : y + 17, x - 9 : x + 17].mean() > 0.5


def test_ink_that_fades_out_over_glass_is_ink_to_its_end() -> None:
    """A wash of blue that thins out: what is left of it where it is no longer called blue must not be tissue."""
    picture, truth = low_power("LMS")
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    wash = np.clip(1.15 - np.hypot(y - 8, x - 40) / 22, 0, 0.95)[..., None]
    washed = (picture * (1 - wash) + np.array(BLUE) * wash).round().astype(np.uint8)
    found = find_tissue(washed, MPP)
    shadow = ~truth.tissue & (wash[..., 0] > 0.15)
    assert shadow.sum() > 200
    assert not found.tissue[shadow].any()
    assert found.foreign[shadow].mean() > 0.8
    assert iou(found.tissue & (wash[..., 0] == 0), truth.tissue & (wash[..., 0] == 0)) > 0.9


def test_dust_on_the_glass_has_no_colour_and_is_no_tissue() -> None:
    picture, truth = low_power("LMS")
    wide = np.pad(picture, ((0, 0), (0, 60), (0, 0)), constant_values=243)
    dusty, where = dust(wide, (picture.shape[1] + 30, 40), 12, 70)
    found = find_tissue(dusty, MPP)
    assert where.sum() * 64e-6 > MIN_REGION_MM2
    assert not found.tissue[:, picture.shape[1] :].any()
    assert (found.kind[where] == OTHER).mean() > 0.6
    assert iou(found.tissue[:, : picture.shape[1]], truth.tissue) > 0.9


def test_fragments_are_all_found() -> None:
    picture = glass((200, 300))
    for y in range(10, 190, 30):
        for x in range(10, 290, 40):
            picture[y : y + 20, x : x + 22] = (201, 130, 186)
    found = find_tissue(picture, MPP)
    assert ndi.label(found.tissue)[1] == 6 * 7
    assert found.tissue.sum() == pytest.approx(42 * 20 * 22, rel=0.12)


def test_black_ink_and_scanner_borders_are_black_and_never_tissue() -> None:
    picture, truth = low_power("LMS")
    framed = np.pad(picture, ((16, 16), (24, 0), (0, 0)))
    found = find_tissue(framed, MPP)
    inner = (slice(16, 16 + picture.shape[0]), slice(24, None))
    border = np.ones(found.tissue.shape, bool)
    border[inner] = False
    assert not found.tissue[border].any()
    assert found.black[border].mean() > 0.9
    assert iou(found.tissue[inner], truth.tissue) > 0.9


def none_found(found: TissueMask) -> bool:
    return not (found.tissue.any() or found.foreign.any())


def test_glass_alone_holds_no_tissue() -> None:
    assert none_found(find_tissue(np.full((64, 64, 3), 255, np.uint8), MPP))
    assert none_found(find_tissue(glass(), MPP))
    vignette = (glass() * np.linspace(0.94, 1, 128)[None, :, None]).astype(np.uint8)
    assert none_found(find_tissue(vignette, MPP))
    smudged = glass().astype(float)
    smudged[20:60, 30:90] -= (0, 6, 3)  # breath on the glass: a tint that is real, and far paler than any tissue
    assert none_found(find_tissue(smudged.astype(np.uint8), MPP))
    yellowish = (glass() * np.array([1, 0.99, 0.95])).astype(np.uint8)
    assert none_found(find_tissue(yellowish, MPP))


def test_a_slide_that_is_all_tissue_is_all_tissue() -> None:
    picture, truth = low_power("LMS")
    rows, columns = np.nonzero(truth.tissue)
    centre = (int(rows.mean()), int(columns.mean()))
    inside = picture[centre[0] - 20 : centre[0] + 20, centre[1] - 25 : centre[1] + 25]
    assert find_tissue(inside, MPP).tissue.mean() > 0.98


def test_a_dark_slide_holds_no_tissue() -> None:
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 12, (96, 128, 3)).astype(np.uint8)
    dark[40:60, 40:60, 2] = 90  # DAPI
    found = find_tissue(dark, MPP)
    assert not found.tissue.any()
    assert found.black.mean() > 0.8


def test_he_colours_are_not_foreign() -> None:
    """Pure haematoxylin, pure eosin and their mixtures in two laboratories, weak and strong."""
    for h, e in (((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581)), ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))):
        amount = np.stack(np.meshgrid(np.linspace(0, 1.6, 12), np.linspace(0, 1.2, 12)), -1)
        light = 243 * np.exp(-amount @ np.array([h, e]))
        picture = light.repeat(6, 0).repeat(6, 1).round().astype(np.uint8)
        assert not find_foreign(look(picture, (0.64, 0.64)).colour).any()


@pytest.mark.parametrize("mpp", [(8.0, 8.0), (4.0, 4.0), (8.0, 4.0)])
def test_specks_go_and_pieces_stay_by_their_area(mpp: tuple[float, float]) -> None:
    picture = glass((300, 300))

    def square(mm2: float) -> tuple[slice, slice]:
        side = np.sqrt(mm2) * 1000
        return slice(100, 100 + round(side / mpp[1])), slice(80, 80 + round(side / mpp[0]))

    speck, piece = picture.copy(), picture.copy()
    speck[square(MIN_REGION_MM2 * 0.5)] = (200, 120, 180)
    piece[square(MIN_REGION_MM2 * 3)] = (200, 120, 180)
    assert not find_tissue(speck, mpp).tissue.any()
    area = find_tissue(piece, mpp).tissue.sum() * mpp[0] * mpp[1] / 1e6
    assert area == pytest.approx(MIN_REGION_MM2 * 3, rel=0.35)


@pytest.mark.parametrize("turn", ["left-right", "up-down"])
def test_a_mirrored_slide_has_the_mirrored_mask(turn: str) -> None:
    picture, _ = low_power("MFS")
    axis = 1 if turn == "left-right" else 0
    plain, mirrored = find_tissue(picture, MPP).tissue, find_tissue(np.flip(picture, axis), MPP).tissue
    assert (np.flip(mirrored, axis) == plain).mean() > 0.999


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))), st.sampled_from([(8.0, 8.0), (0.5, 0.5), (8.0, 4.0)]))
def test_any_picture_has_a_mask_whose_parts_do_not_overlap(picture: np.ndarray, mpp: tuple[float, float]) -> None:
    found = find_tissue(picture, mpp)
    assert found.tissue.shape == picture.shape[:2]
    assert found.tissue.dtype == found.foreign.dtype == found.black.dtype == np.bool_
    assert not (found.tissue & (found.foreign | found.black)).any()
    assert 200 <= found.white_point <= 255
