"""Cutting a block: each level is read once, and every tile has the pixels it would have had alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import wsikit as wk
from wsikit.cut import Want, cut, normalise
from wsikit.errors import RegionError
from wsikit.geometry import Region
from wsikit.grid import TileGrid
from wsikit.slide import Slide
from wsikit.stain import StainFit, get_method
from wsikit.testing.phantom import Spec, write_phantom

NONE = StainFit(method="none", trusted=True)


class Counted(Slide):
    """A slide that counts what is read of its levels."""

    reads: list[tuple[int, Region]]

    def read_level(self, level: int, region: Region, lost: list[Region] | None = None) -> np.ndarray:
        self.reads.append((level, region))
        return super().read_level(level, region, lost)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Counted:
    path = tmp_path_factory.mktemp("cut") / "a.tif"
    write_phantom(path, Spec(3, "LMS", 1400, 1100))
    counted = Counted(path)
    counted.reads = []
    return counted


@pytest.fixture(scope="module")
def fit(slide: Slide) -> StainFit:
    rgb = slide.read((200, 200, 800, 700))
    found = get_method("macenko").fit(rgb.reshape(-1, 3))
    assert found.trusted
    return found


def grid(slide: Slide, mpp: float, tile: int, overlap: int = 0) -> TileGrid:
    return TileGrid(slide.raster(mpp), tile, overlap)


def alone(slide: Slide, want: Want) -> np.ndarray:
    """Each tile read and normalised by itself."""
    t, raster, method = want.grid.tile_px, want.grid.raster, get_method(want.stain.method)
    tiles = [slide.read_raster(raster, x, y, t, t) for x, y in want.grid.corners_px(want.cells).tolist()]
    return method.apply(torch.from_numpy(np.stack(tiles)), want.stain).numpy()


@settings(max_examples=25, deadline=None)
@given(
    mpps=st.lists(st.sampled_from([0.5, 0.62, 1.0, 1.3]), min_size=1, max_size=3),
    overlap=st.sampled_from([0, 32]),
    block=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    plain=st.booleans(),
)
def test_tiles_are_what_they_are_alone(slide: Counted, fit: StainFit, mpps: list[float], overlap: int, block: tuple[int, int], plain: bool) -> None:
    """For several models at once, also at the slide's edges, in the slide's colours and in the reference's."""
    wants = {}
    for i, mpp in enumerate(mpps):
        cells = np.stack(np.meshgrid(np.arange(2) + block[0], np.arange(2) + block[1]), -1).reshape(-1, 2)
        wants[f"model {i}"] = Want(grid(slide, mpp, 160, overlap), cells, NONE if plain and i == 0 else fit)
    expected = {name: alone(slide, want) for name, want in wants.items()}
    slide.reads.clear()
    canvases = cut(slide, wants)
    levels = [level for level, _ in slide.reads]
    assert len(levels) == len(set(levels)), "each stored level is read once"
    assert set(levels) == {want.grid.raster.level for want in wants.values()}
    for name, want in wants.items():
        tiles = canvases[name].tiles(want.grid.corners_px(want.cells))
        assert tiles.dtype == torch.uint8
        assert np.array_equal(tiles.numpy(), expected[name])


def test_models_of_one_resolution_and_stain_share_their_pixels(slide: Counted, fit: StainFit) -> None:
    cells = np.array([[0, 0], [1, 1]])
    canvases = cut(
        slide, {"a": Want(grid(slide, 1.0, 224), cells, fit), "b": Want(grid(slide, 1.0, 128), cells, fit), "c": Want(grid(slide, 1.0, 224), cells, NONE)}
    )
    assert canvases["a"].pixels is canvases["b"].pixels
    assert canvases["a"].pixels is not canvases["c"].pixels


def test_a_model_without_tiles_here_gets_nothing_and_costs_nothing(slide: Counted) -> None:
    slide.reads.clear()
    assert cut(slide, {"a": Want(grid(slide, 1.0, 224), np.empty((0, 2), np.int64), NONE)}) == {}
    assert slide.reads == []


def test_beyond_the_slide_is_white(slide: Counted) -> None:
    want = Want(grid(slide, 0.5, 256), np.array([[5, 4]]), NONE)
    (tile,) = cut(slide, {"a": want})["a"].tiles(want.grid.corners_px(want.cells)).numpy()
    assert (tile[1100 - 1024 :] == 255).all()
    assert (tile[:, 1400 - 1280 :] == 255).all()
    assert np.array_equal(tile[: 1100 - 1024, : 1400 - 1280], slide.read((1280, 1024, 120, 76)))


def test_tiles_too_far_apart_are_refused(slide: Counted) -> None:
    with pytest.raises(RegionError, match="px at once; read up to"):
        cut(slide, {"a": Want(grid(slide, 0.5, 256), np.array([[0, 0], [200, 200]]), NONE)})


def test_a_pixel_does_not_depend_on_its_neighbours(slide: Counted, fit: StainFit) -> None:
    rgb = slide.read((100, 100, 300, 700))
    whole = np.asarray(normalise(rgb, fit))
    assert whole.shape == rgb.shape
    assert not np.array_equal(whole, rgb)
    for part in (np.s_[:1], np.s_[333:340], np.s_[::7, 5:6], np.s_[::-1, ::-1]):
        assert np.array_equal(np.asarray(normalise(rgb[part], fit)), whole[part])


def test_a_slide_opened_twice_is_cut_alike(slide: Counted, fit: StainFit, tmp_path: Path) -> None:
    want = Want(grid(slide, 0.62, 224, 32), np.array([[1, 1], [2, 1]]), fit)
    a, b = (cut(s, {"m": want})["m"].pixels for s in (slide, wk.open_slide(slide.path)))
    assert np.array_equal(np.asarray(a), np.asarray(b))
