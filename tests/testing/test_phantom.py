"""Phantoms: the truth is in the pixels, everything follows from the seed, and other software reads the files alike."""

from __future__ import annotations

import json
import math
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile

from wsikit.slide import open_slide
from wsikit.testing.phantom import RECIPES, Spec, Truth, _scatter_clustered, make_phantom, write_phantom, write_pyramid


@cache
def phantom(subtype: str = "LMS", seed: int = 5) -> tuple[np.ndarray, Truth]:
    return make_phantom(Spec(seed, subtype, 1280, 1024, mitoses_per_mm2=60, lookalikes_per_mm2=40))


def dark_pixels(rgb: np.ndarray, at: np.ndarray, radius: int = 11) -> np.ndarray:
    """Where around a point it is darker than nuclei are: x, y relative to the point."""
    x, y = at.astype(int)
    x0, y0 = max(0, x - radius), max(0, y - radius)
    part = rgb[y0 : y + radius + 1, x0 : x + radius + 1].mean(-1)
    found = np.argwhere(part < 85)[:, ::-1] + (x0, y0) + 0.5 - at
    return found[np.hypot(*found.T) <= radius]


@pytest.mark.parametrize("subtype", sorted(RECIPES))
def test_the_same_seed_gives_the_same_phantom_and_another_another(subtype: str) -> None:
    spec = Spec(3, subtype, 512, 384)
    (a, truth), (b, again) = make_phantom(spec), make_phantom(spec)
    assert np.array_equal(a, b)
    assert (a.shape, a.dtype) == ((384, 512, 3), np.uint8)
    for name in ("tissue", "mitoses", "lookalikes", "stain"):
        assert np.array_equal(getattr(truth, name), getattr(again, name))
    assert not np.array_equal(a, make_phantom(Spec(4, subtype, 512, 384))[0])


def test_two_subtypes_of_one_seed_are_different_slides() -> None:
    assert phantom("LMS")[1].mitoses.tolist() != phantom("SS")[1].mitoses.tolist()


@pytest.mark.parametrize("subtype", sorted(RECIPES))
def test_the_tissue_mask_is_where_it_is_not_glass(subtype: str) -> None:
    rgb, truth = phantom(subtype)
    low = rgb.reshape(64, 16, 80, 16, 3).mean((1, 3))
    stained = low.max(-1) - low.min(-1) > 6
    both, either = (stained & truth.tissue).sum(), (stained | truth.tissue).sum()
    assert truth.tissue.shape == (64, 80)
    assert both / either > 0.9
    assert truth.tissue_mm2 == pytest.approx(truth.tissue.sum() * 64e-6)
    glass = low[~stained & ~truth.tissue]
    assert glass.mean() == pytest.approx(242.5, abs=1.5)


@pytest.mark.parametrize("subtype", ["LMS", "MFS", "UPS"])
def test_mitoses_are_dark_where_they_are_said_to_be_and_apart(subtype: str) -> None:
    rgb, truth = phantom(subtype)
    points = truth.mitoses
    assert len(points) >= 10
    assert (points >= 0).all()
    assert (points < (1280, 1024)).all()
    assert truth.tissue[(points[:, 1] // 16).astype(int), (points[:, 0] // 16).astype(int)].all()
    dark = [dark_pixels(rgb, p) for p in points]
    assert np.mean([len(d) >= 40 for d in dark]) > 0.9
    assert np.mean([np.hypot(*d.mean(0)) * 0.5 < 1.5 for d in dark if len(d)]) > 0.9, "their middle is the point, to 1.5 µm"
    elsewhere = (points + np.array([60, 0])) % (1280, 1024)
    assert np.mean([len(dark_pixels(rgb, p)) < 20 for p in elsewhere]) > 0.7, "but for some look-alikes"
    apart = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)) + np.eye(len(points)) * 1e9
    assert apart.min() * 0.5 > 20


def test_mitoses_have_the_density_that_was_asked_for_on_average() -> None:
    tissue = np.ones((192, 256), bool)  # a slide of the usual size, 3.1 mm²
    counts = [len(_scatter_clustered(np.random.default_rng(s), tissue, 20.0, 0.5)) for s in range(12)]
    area = (192 - 6) * (256 - 6) * 64e-6
    assert np.mean(counts) / area == pytest.approx(20, rel=0.2)


def test_no_mitoses_are_made_when_none_are_wanted() -> None:
    _, truth = make_phantom(Spec(1, "LMS", 512, 512, mitoses_per_mm2=0, lookalikes_per_mm2=0))
    assert (truth.mitoses.shape, truth.lookalikes.shape) == ((0, 2), (0, 2))


def test_stain_vectors_are_unit_and_near_the_references() -> None:
    _, truth = phantom()
    assert np.linalg.norm(truth.stain, axis=1) == pytest.approx([1, 1])
    assert truth.stain == pytest.approx(np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]]), abs=0.12)


def test_resolution_changes_pixels_and_not_tissue_in_micrometres() -> None:
    """At half the µm/px, a nucleus has twice the pixels: the sharp detail is that of the same size in µm."""
    coarse, fine = (make_phantom(Spec(2, "UPS", n, n, mpp=mpp, mitoses_per_mm2=0))[1] for n, mpp in ((512, 0.5), (1024, 0.25)))
    assert coarse.tissue_mm2 == pytest.approx(fine.tissue_mm2, rel=0.35)
    assert coarse.tissue_mm2 <= 0.256**2 + 1e-9


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth, np.ndarray]:
    path = tmp_path_factory.mktemp("phantom") / "p.tif"
    spec = Spec(8, "LMS", 1301, 1043, mpp=0.4987, mitoses_per_mm2=40)
    return path, write_phantom(path, spec), make_phantom(spec)[0]


def test_the_file_says_what_it_is_and_holds_the_pixels(written: tuple[Path, Truth, np.ndarray]) -> None:
    path, _, rgb = written
    slide = open_slide(path)
    assert slide.is_phantom
    assert tuple(slide.size) == (1301, 1043)
    assert slide.mpp == pytest.approx((0.4987, 0.4987), rel=1e-5)
    assert slide.mpp_source == "tiff resolution"
    stored = slide.read((0, 0, 1301, 1043))
    assert np.abs(stored.astype(int) - rgb).mean() < 4, "JPEG"


def test_tifffile_and_openslide_see_the_same_levels(written: tuple[Path, Truth, np.ndarray]) -> None:
    path, _, _ = written
    sizes = [(1301, 1043), (650, 521), (325, 260)]
    assert [tuple(level.size) for level in open_slide(path).levels] == sizes
    with openslide.OpenSlide(path) as slide, tifffile.TiffFile(path) as tif:
        assert list(slide.level_dimensions) == sizes
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.4987, rel=1e-5)
        levels = tif.series[0].levels
        assert [level.shape for level in levels] == [(h, w, 3) for w, h in sizes]
        pages = [level.asarray() for level in levels]
        for n, (w, h) in enumerate(sizes):
            theirs = np.asarray(slide.read_region((0, 0), n, (w, h)).convert("RGB"))
            assert np.abs(theirs.astype(int) - pages[n]).mean() < 1.5
        assert all(page.is_tiled and page.tilewidth == 256 for page in tif.pages)
    for finer, coarser in pairwise(pages):
        h, w = coarser.shape[:2]
        mean = finer[: 2 * h, : 2 * w].reshape(h, 2, w, 2, 3).mean((1, 3))
        assert np.abs(mean - coarser).mean() < 4, "each level is the mean of the one before"


def test_the_truth_beside_the_file_is_the_truth(written: tuple[Path, Truth, np.ndarray]) -> None:
    path, truth, _ = written
    facts = json.loads(path.with_suffix(".truth.json").read_text())
    assert facts["mitoses"] == truth.mitoses.round(2).tolist()
    assert facts["lookalikes"] == truth.lookalikes.round(2).tolist()
    assert facts["tissue_mm2"] == pytest.approx(truth.tissue_mm2, abs=1e-4)
    assert Spec(**facts["spec"]) == truth.spec


def test_a_second_writing_gives_the_same_bytes(written: tuple[Path, Truth, np.ndarray], tmp_path: Path) -> None:
    path, truth, _ = written
    write_phantom(tmp_path / "q.tif", truth.spec)
    assert (tmp_path / "q.tif").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("mpp", [None, 0.25])
def test_other_pictures_are_written_with_or_without_resolution(tmp_path: Path, mpp: float | None) -> None:
    write_pyramid(tmp_path / "x.tif", np.full((600, 700, 3), 200, np.uint8), mpp, description="not a phantom")
    slide = open_slide(tmp_path / "x.tif")
    assert slide.mpp == (pytest.approx((mpp, mpp)) if mpp else None)
    assert not slide.is_phantom


def test_every_recipe_is_a_different_picture() -> None:
    """Mean colour or darkness of nuclei differs between any two kinds, so that there is something to learn."""
    facts: dict[str, Any] = {}
    for subtype in RECIPES:
        rgb, truth = phantom(subtype)
        pixels = rgb[truth.tissue.repeat(16, 0).repeat(16, 1)].astype(float)
        facts[subtype] = np.array([*pixels.mean(0), pixels.std(), (pixels.mean(-1) < 120).mean() * 100])
    names = list(facts)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert math.dist(facts[a], facts[b]) > 5, (a, b)
