"""The plan is pure, and the work it describes is the same however the slide is cut into blocks."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.geometry import Level, Size
from wsikit.grid import TileGrid, make_raster, raster_at
from wsikit.run.plan import BLOCK_MULTIPLE, PIXELS, Plan, block_grid, finest_downsample, grid_info, grid_of, make_stage, pyramid_sizes, shard_px, stored_tile_px

SIZE = Size(7001, 5003)
LEVELS = [Level(0, SIZE, (1.0, 1.0)), Level(1, Size(1750, 1250), (7001 / 1750, 5003 / 1250))]
MPP = (0.5, 0.51)
OVERVIEW = raster_at(LEVELS[1], MPP, (4.0, 4.0))
WANTS = {"a": (0.5, 256, 0), "b": (1.0, 224, 32), "c": (0.9, 640, 64)}


def mask(seed: int = 0) -> np.ndarray:
    """Blobs on the overview, bool (H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: OVERVIEW.size.h, : OVERVIEW.size.w]
    out = np.zeros(y.shape, bool)
    for _ in range(6):
        out |= (x - rng.uniform(0, OVERVIEW.size.w)) ** 2 + (y - rng.uniform(0, OVERVIEW.size.h)) ** 2 < rng.uniform(10, 90) ** 2
    return out


def grids() -> dict[str, TileGrid]:
    return {name: TileGrid(make_raster(LEVELS, MPP, mpp), tile, overlap) for name, (mpp, tile, overlap) in WANTS.items()}


def make_plan(block_px: int, seed: int = 0) -> Plan:
    found = grids()
    stages = {name: make_stage(name, f"key of {name}", grid, mask(seed), OVERVIEW, 0.3) for name, grid in found.items()}
    return Plan(block_grid(found, block_px), stages)


def test_tiles_with_enough_tissue_are_taken() -> None:
    grid, tissue = grids()["b"], mask()
    share = grid.covered(tissue, OVERVIEW.downsample)
    stage = make_stage("b", "k", grid, tissue, OVERVIEW, 0.3)
    assert 0 < len(stage.cells) < len(share)
    assert (stage.tissue >= 0.3).all()
    assert np.array_equal(stage.tissue, share[share >= 0.3])
    assert np.array_equal(stage.cells, grid.all_cells()[share >= 0.3])
    assert (np.diff(stage.cells[:, 1] * grid.shape[0] + stage.cells[:, 0]) > 0).all()


def test_a_threshold_of_nought_still_wants_some_tissue() -> None:
    grid, tissue = grids()["a"], mask()
    stage = make_stage("a", "k", grid, tissue, OVERVIEW, 0.0)
    assert (stage.tissue > 0).all()
    assert len(make_stage("a", "k", grid, np.zeros_like(tissue), OVERVIEW, 0.0).cells) == 0


def test_exactly_the_threshold_is_enough() -> None:
    raster = raster_at(Level(0, Size(64, 64), (1.0, 1.0)), (1.0, 1.0), (1.0, 1.0))
    low = raster_at(Level(0, Size(64, 64), (1.0, 1.0)), (1.0, 1.0), (32.0, 32.0))
    half = np.array([[True, False], [True, False]])
    assert len(make_stage("a", "k", TileGrid(raster, 64), half, low, 0.5).cells) == 1
    assert len(make_stage("a", "k", TileGrid(raster, 64), half, low, 0.5001).cells) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(64, 9000), st.integers(0, 20))
def test_every_tile_is_done_once_whatever_the_block_size(block_px: int, seed: int) -> None:
    plan = make_plan(block_px, seed)
    work = plan.work()
    assert list(work) == sorted(work)
    for name, stage in plan.stages.items():
        rows = [plan.rows(name, block) for block, names in work.items() if name in names]
        done = np.concatenate(rows) if rows else np.empty(0, np.int64)
        assert np.array_equal(np.sort(done), np.arange(len(stage.cells)))
        assert all(len(r) for r in rows)
        assert all(not len(plan.rows(name, block)) for block, names in work.items() if name not in names)


def test_tiles_do_not_depend_on_the_block_size() -> None:
    small, large = make_plan(512), make_plan(4096)
    assert len(small.work()) > 4 * len(large.work())
    for name, stage in small.stages.items():
        assert np.array_equal(stage.cells, large.stages[name].cells)
        assert np.array_equal(stage.tissue, large.stages[name].tissue)


def test_the_same_mask_makes_the_same_plan() -> None:
    tissue = mask(3)
    before = tissue.copy()
    first, second = make_plan(1024, 3), make_plan(1024, 3)
    assert first.work() == second.work()
    assert first.blocks == second.blocks
    assert [first.part_key(name) for name in WANTS] == [second.part_key(name) for name in WANTS]
    make_stage("a", "k", grids()["a"], tissue, OVERVIEW, 0.3)
    assert np.array_equal(tissue, before)


def test_a_part_belongs_to_its_stage_and_to_how_blocks_are_cut() -> None:
    plan, other = make_plan(1024), make_plan(2048)
    keys = {plan.part_key(name) for name in WANTS} | {other.part_key(name) for name in WANTS}
    assert len(keys) == 2 * len(WANTS)
    changed = Plan(plan.blocks, {"a": make_stage("a", "another model", grids()["a"], mask(), OVERVIEW, 0.3)})
    assert changed.part_key("a") != plan.part_key("a")


def test_blocks_are_measured_at_the_finest_resolution_that_is_read() -> None:
    found = grids()
    finest = finest_downsample(found.values())
    assert finest == (1.0, 1.0)
    assert block_grid(found, 4096).side == (4096.0, 4096.0)
    assert block_grid({"b": found["b"]}, 4096).side == pytest.approx(tuple(4096 * d for d in found["b"].raster.downsample))
    assert finest_downsample([]) == (1.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(16, 1024), st.floats(0.3, 6.0), st.integers(256, 8192))
def test_a_shard_holds_whole_tiles_and_is_one_block(tile: int, mpp: float, block_px: int) -> None:
    grid = TileGrid(make_raster(LEVELS, MPP, mpp, upsample=True), tile)
    shard = shard_px(grid, (1.0, 1.0), block_px)
    unit = math.lcm(tile, BLOCK_MULTIPLE)
    assert shard > 0
    assert shard % unit == 0
    assert shard == unit or abs(shard - block_px / grid.raster.downsample[0]) <= unit / 2
    blocks, cells = block_grid({PIXELS: grid}, block_px, shard), grid.all_cells()
    owners = blocks.owners(grid.centres(cells))
    assert np.array_equal(owners, cells[:, ::-1] * tile // shard)


@pytest.mark.parametrize("name", WANTS)
def test_a_grid_survives_the_store(name: str) -> None:
    assert grid_of(grid_info(grids()[name])) == grids()[name]


@settings(max_examples=60, deadline=None)
@given(st.builds(Size, st.integers(1, 300_000), st.integers(1, 300_000)))
def test_the_pyramid_goes_by_fours_and_loses_no_pixel(size: Size) -> None:
    sizes = pyramid_sizes(size)
    assert sizes[0] == size
    assert max(sizes[-1]) <= 512
    assert all(max(s) > 512 for s in sizes[:-1])
    for fine, coarse in pairwise(sizes):
        assert all(4 * (c - 1) < f <= 4 * c for f, c in zip(fine, coarse, strict=True))


@given(st.integers(16, 4096))
def test_no_tile_makes_a_huge_block(tile_px: int) -> None:
    """A block's pixels stay within memory whatever the side of the tiles, and it is whole chunks and whole coarse pixels."""
    grid = TileGrid(make_raster([Level(0, Size(50_000, 40_000), (1.0, 1.0))], (0.5, 0.5), 0.5), stored_tile_px(tile_px))
    shard = shard_px(grid, (1.0, 1.0), 4096)
    assert shard <= 6144
    assert shard % grid.tile_px == 0
    assert shard % BLOCK_MULTIPLE == 0
    assert 0 <= grid.tile_px - tile_px < BLOCK_MULTIPLE
