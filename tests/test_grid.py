"""Rasters, tiles and blocks: nothing left out, nothing twice, whatever the blocks' size."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wsikit.errors import ResolutionMismatchError, UsageError
from wsikit.geometry import Level, Size
from wsikit.grid import Block, BlockGrid, TileGrid, bilinear, make_raster, raster_at, summed_area

sizes = st.builds(Size, st.integers(1, 9000), st.integers(1, 9000))
mpps = st.tuples(st.floats(0.1, 1.0), st.floats(0.1, 1.0)).filter(lambda m: max(m) / min(m) < 1.5)

positions = st.lists(st.floats(0, 1), min_size=1, max_size=5)


def pyramid(size: Size, factors: tuple[int, ...] = (1, 4, 16)) -> list[Level]:
    """Levels as scanners store them: sides rounded down, so that downsamples are a little over the factor."""
    kept = [Size(size.w // f, size.h // f) for f in factors if min(size) // f > 0]
    return [Level(i, s, (size.w / s.w, size.h / s.h)) for i, s in enumerate(kept)]


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    raster = make_raster(pyramid(draw(sizes)), draw(mpps), draw(st.floats(1.0, 8.0)), upsample=True)
    tile = draw(st.integers(8, 300))
    return TileGrid(raster, tile, draw(st.integers(0, tile - 1)) // 2 * 2)


@settings(max_examples=150, deadline=None)
@given(sizes, mpps, st.floats(0.1, 30.0))
def test_a_raster_is_read_from_the_coarsest_level_that_is_fine_enough(size: Size, mpp: tuple[float, float], want: float) -> None:
    levels = pyramid(size)
    if want < max(mpp) / 1.11:
        with pytest.raises(ResolutionMismatchError, match="is needed"):
            make_raster(levels, mpp, want)
        return
    assume(want >= max(mpp) / 1.09)
    raster = make_raster(levels, mpp, want)
    used = levels[raster.level]
    assert all(s >= 1 for s in raster.step) or raster.level == 0
    coarser = [[want / (m * d) for m, d in zip(mpp, v.downsample, strict=True)] for v in levels[raster.level + 1 :]]
    assert all(min(step) < 0.98 + 1e-9 for step in coarser)
    for n, s, d, u, m, got in zip(raster.size, raster.step, raster.downsample, used.size, mpp, raster.mpp, strict=True):
        assert abs(got / want - 1) <= 0.0205
        assert got == pytest.approx(m * d)
        assert n * s >= u - 1e-3
        assert (n - 1) * s < u or n == 1


def test_levels_within_two_per_cent_are_taken_as_they_are() -> None:
    levels = pyramid(Size(8001, 6003))
    assert make_raster(levels, (0.25, 0.25), 0.2549).step == (1.0, 1.0)
    assert make_raster(levels, (0.25, 0.25), 0.2451).step == (1.0, 1.0)
    assert make_raster(levels, (0.25, 0.25), 0.26).step == pytest.approx((1.04, 1.04))
    snapped = make_raster(levels, (0.252, 0.249), 1.0)
    assert (snapped.level, snapped.step) == (1, (1.0, 1.0))
    assert snapped.mpp == pytest.approx((0.252 * 8001 / 2000, 0.249 * 6003 / 1500))


def test_a_level_snaps_per_axis() -> None:
    raster = make_raster([Level(0, Size(1000, 1000), (1.0, 1.0))], (0.5, 0.25), 0.5)
    assert raster.step == (1.0, 2.0)
    assert raster.size == (1000, 500)
    assert raster.mpp == (0.5, 0.5)


@pytest.mark.parametrize(("mpp", "fits"), [((0.55, 0.55), True), ((0.5501, 0.5501), False), ((0.5, 0.56), False), ((0.56, 0.5), False), ((0.25, 0.25), True)])
def test_enlarging_by_more_than_a_tenth_is_refused(mpp: tuple[float, float], fits: bool) -> None:
    levels = pyramid(Size(1000, 800))
    if fits:
        make_raster(levels, mpp, 0.5)
        return
    with pytest.raises(ResolutionMismatchError, match=rf"has {max(mpp):.4g} µm/px, 0.5 µm/px is needed.*1.1 ×.*use a slide"):
        make_raster(levels, mpp, 0.5)
    assert make_raster(levels, mpp, 0.5, upsample=True).step == pytest.approx(tuple(1.0 if abs(0.5 / m - 1) < 0.02 else 0.5 / m for m in mpp))


@pytest.mark.parametrize("want", [0.0, -0.5, math.nan, math.inf])
@pytest.mark.parametrize("upsample", [False, True])
def test_an_impossible_resolution_is_refused(want: float, upsample: bool) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        make_raster(pyramid(Size(1000, 800)), (0.5, 0.5), want, upsample=upsample)


@settings(max_examples=50, deadline=None)
@given(grids())
def test_a_raster_survives_json_bit_for_bit(grid: TileGrid) -> None:
    assert type(grid.raster).from_json(json.loads(json.dumps(grid.raster.to_json()))) == grid.raster


@settings(max_examples=50, deadline=None)
@given(grids(), st.integers(-50, 500), st.integers(1, 64))
def test_the_source_window_covers_the_pixels(grid: TileGrid, at: int, n: int) -> None:
    raster = grid.raster
    box = raster.source_window(at, at, n, n)
    for low, high, step in ((box.x, box.x1, raster.step[0]), (box.y, box.y1, raster.step[1])):
        assert low <= at * step + 0.01
        assert high >= (at + n) * step - 0.01
        assert high - low <= n * step + 2


@settings(max_examples=60, deadline=None)
@given(grids())
def test_cells_cover_the_raster_once_and_tiles_add_the_overlap(grid: TileGrid) -> None:
    assume(math.prod(grid.shape) < 20_000)
    cells = grid.all_cells()
    assert len(np.unique(cells, axis=0)) == len(cells) == math.prod(grid.shape)
    assert (np.lexsort((cells[:, 0], cells[:, 1])) == np.arange(len(cells))).all()
    for axis, (n, count) in enumerate(zip(grid.raster.size, grid.shape, strict=True)):
        assert (count - 1) * grid.stride_px < n <= count * grid.stride_px
        corners = np.unique(grid.corners_px(cells)[:, axis])
        assert (corners == np.arange(count) * grid.stride_px - grid.overlap_px // 2).all()
        assert (np.rint(corners * grid.raster.downsample[axis]) == np.unique(grid.origins(cells)[:, axis])).all()
        middle = (corners + grid.tile_px / 2) * grid.raster.downsample[axis]
        assert np.allclose(np.unique(grid.centres(cells)[:, axis]), middle)


@settings(max_examples=60, deadline=None)
@given(grids(), st.floats(40, 9000), st.floats(40, 9000))
def test_every_tile_is_in_exactly_one_block(grid: TileGrid, side_x: float, side_y: float) -> None:
    assume(math.prod(grid.shape) < 4000)
    blocks, cells = BlockGrid((side_x, side_y)), grid.all_cells()
    centres = grid.centres(cells)
    found = blocks.blocks(centres)
    assume(len(found) < 500)
    assert found == sorted(set(found))
    rows = [blocks.select(centres, block) for block in found]
    assert all(len(r) and (np.diff(r) > 0).all() for r in rows)
    assert (np.sort(np.concatenate(rows)) == np.arange(len(cells))).all()
    for block, r in zip(found, rows, strict=True):
        low = np.array([block.column * side_x, block.row * side_y])
        assert (centres[r] >= low - 1e-6).all()
        assert (centres[r] < low + [side_x, side_y] + 1e-6).all()


def test_no_tiles_make_no_blocks() -> None:
    blocks = BlockGrid((100.0, 100.0))
    assert blocks.blocks(np.empty((0, 2))) == []
    assert blocks.select(np.empty((0, 2)), Block(0, 0)).tolist() == []
    assert Block(3, 12).name == "r3c12"


def brute_covered(grid: TileGrid, mask: np.ndarray, downsample: tuple[float, float]) -> np.ndarray:
    """Share of each tile's area under the mask, pixel by pixel."""
    out = []
    for corner in grid.corners_px(grid.all_cells()):
        spans = []
        for at, d, md, n in zip(corner, grid.raster.downsample, downsample, mask.shape[::-1], strict=True):
            low, high = at * d / md, (at + grid.tile_px) * d / md
            pixel = np.arange(n)
            spans.append((np.minimum(high, pixel + 1) - np.maximum(low, pixel)).clip(0))
        full = math.prod(grid.tile_px * d / md for d, md in zip(grid.raster.downsample, downsample, strict=True))
        out.append(spans[1] @ mask @ spans[0] / full)
    return np.array(out)


@settings(max_examples=40, deadline=None)
@given(grids(), st.integers(0, 99), st.floats(10, 60), st.floats(10, 60))
def test_covered_is_the_area_under_the_mask(grid: TileGrid, seed: int, dx: float, dy: float) -> None:
    assume(math.prod(grid.shape) < 400)
    size = [r * d for r, d in zip(grid.raster.size, grid.raster.downsample, strict=True)]
    mask = np.random.default_rng(seed).random((math.ceil(size[1] / dy), math.ceil(size[0] / dx))) < 0.6
    found = grid.covered(mask, (dx, dy))
    assert found.shape == (math.prod(grid.shape),)
    assert np.abs(found - brute_covered(grid, mask, (dx, dy))).max() < 2e-9


def test_beyond_the_slide_is_not_covered() -> None:
    raster = raster_at(Level(0, Size(100, 100), (1.0, 1.0)), (1.0, 1.0), (1.0, 1.0))
    share = TileGrid(raster, 80).covered(np.ones((10, 10), bool), (10.0, 10.0))
    assert share.tolist() == [1.0, 0.25, 0.25, 0.0625]
    overlapping = TileGrid(raster, 80, 30).covered(np.ones((10, 10), bool), (10.0, 10.0))
    assert overlapping[0] == pytest.approx((65 / 80) ** 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 99), positions, positions)
def test_summed_areas_are_integrals(height: int, width: int, seed: int, ys: list[float], xs: list[float]) -> None:
    values = np.random.default_rng(seed).random((height, width))
    table = summed_area(values)
    assert table.shape == (height + 1, width + 1)
    for j in range(height + 1):
        for i in range(width + 1):
            assert table[j, i] == pytest.approx(values[:j, :i].sum())
    y, x = np.array(ys) * height, np.array(xs) * width
    down = np.clip(y[:, None] - np.arange(height), 0, 1)
    across = np.clip(x[:, None] - np.arange(width), 0, 1)
    assert np.allclose(bilinear(table, y, x), down @ values @ across.T)


@pytest.mark.parametrize("mpp", [0.2450, 0.2515, 0.499, 0.5])
def test_tiles_are_the_same_with_or_without_a_level_in_between(mpp: float) -> None:
    full = Level(0, Size(40000, 30000), (1.0, 1.0))
    half = Level(1, Size(20000, 15000), (2.0, 2.0))
    for want in (0.5, 1.0):
        alone, pyramid = make_raster([full], (mpp, mpp), want), make_raster([full, half], (mpp, mpp), want)
        assert alone.downsample == pyramid.downsample
        assert alone.size == pyramid.size
        assert alone.mpp == pytest.approx((want, want), rel=0.02)
