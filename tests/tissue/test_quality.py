"""Quality of tiles: shares against brute force, the reason of each, and blur against plain NumPy and against a Gaussian of known width."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.geometry import Level, Size
from wsikit.grid import TileGrid, raster_at
from wsikit.testing.flaws import unfocused
from wsikit.tissue.mask import DARK, FOLD, GLASS, INKS, OTHER, TISSUE
from wsikit.tissue.quality import EMPTY, LITTLE, PEN, PENS, SCANNER, USED, Window, blur, left_out, slide_shares, tile_shares

KINDS = (GLASS, TISSUE, *INKS.values(), DARK, FOLD, OTHER)


def kinds(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(KINDS, (height, width)).astype(np.uint8)


def grid(width: int, height: int, tile_px: int) -> TileGrid:
    """Tiles of a slide whose level 0 is its raster."""
    return TileGrid(raster_at(Level(0, Size(width, height), (1.0, 1.0)), (1.0, 1.0), (1.0, 1.0)), tile_px)


def everywhere(height: int, width: int, tissue: np.ndarray | None = None) -> Window:
    """Each pixel on its own pixel of the mask."""
    return Window(np.ones((height, width), bool) if tissue is None else tissue, np.arange(height), np.arange(width))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_shares_are_counted_pixels(columns: int, rows: int, seed: int) -> None:
    kind = kinds(rows * 4, columns * 4, seed)
    found = tile_shares(kind, (8.0, 8.0), grid(columns * 32, rows * 32, 32))
    tiles = kind.reshape(rows, 4, columns, 4).swapaxes(1, 2).reshape(-1, 16)
    names = {f"pen_{c}": v for c, v in INKS.items()} | {"fold": FOLD, "black": DARK, "white": GLASS, "other": OTHER}
    for name, value in names.items():
        assert found[name] == pytest.approx((tiles == value).mean(1)), name
    assert found["tissue"] == pytest.approx(((tiles == TISSUE) | (tiles == FOLD)).mean(1)), "folds are tissue"
    parts = sum(found[n] for n in ("tissue", *PENS, "black", "white", "other"))
    assert parts == pytest.approx(1)
    assert (found["fold"] <= found["tissue"] + 1e-9).all()


def test_a_tile_over_the_slides_edge_is_only_in_part_of_anything() -> None:
    found = tile_shares(np.full((3, 5), TISSUE, np.uint8), (8.0, 8.0), grid(40, 24, 32))
    assert found["tissue"].tolist() == [24 / 32, 8 * 24 / 32**2]
    assert not found["white"].any()


def test_shares_of_the_slide() -> None:
    kind = np.array([[GLASS] * 5 + [TISSUE] * 3 + [FOLD], [INKS["green"]] * 2 + [INKS["blue"]] + [INKS["red"]] * 3 + [DARK] * 2 + [OTHER]], np.uint8)
    found = slide_shares(kind)
    assert found == {
        "tissue": round(4 / 18, 6), "pen_green": round(2 / 18, 6), "pen_blue": round(1 / 18, 6), "pen_red": round(3 / 18, 6),
        "black": round(2 / 18, 6), "white": round(5 / 18, 6), "fold": 0.25,
    }  # fmt: skip
    assert slide_shares(np.zeros((4, 4), np.uint8))["fold"] == 0


def reason(**shares: float) -> int:
    names = ("tissue", *PENS, "black", "other")
    return int(left_out({n: np.array([shares.get(n, 0.0)]) for n in names})[0])


def test_why_a_tile_is_left_out() -> None:
    assert reason(tissue=0.5, pen_red=0.5) == USED
    assert reason(tissue=0.499) == LITTLE
    assert reason(tissue=0.3, pen_blue=0.2) == PEN, "it would have been used but for the ink"
    assert reason(tissue=0.3, pen_blue=0.1, pen_green=0.1) == PEN
    assert reason(tissue=0.3, pen_blue=0.19) == LITTLE
    assert reason(pen_red=0.5) == PEN
    assert reason(tissue=0.2, black=0.3) == SCANNER
    assert reason(tissue=0.1, pen_blue=0.3, black=0.3) == SCANNER
    assert reason(black=0.01) == reason(other=0.01) == reason(pen_green=0.01) == LITTLE
    assert reason() == EMPTY


def laplacian_variance(rgb: np.ndarray, factor: int, tissue: np.ndarray) -> float:
    """Plain NumPy: luminance of the mean of ``factor × factor``, to 1/16 grey levels, and its Laplacian inside the tile where there is tissue."""
    n = len(rgb) // factor
    light = (rgb.astype(np.int64) @ np.array([77, 150, 29])).reshape(n, factor, n, factor).sum((1, 3))
    light = (light * 16 + 128 * factor**2) // (256 * factor**2) / 16
    inner = 4 * light[1:-1, 1:-1] - light[:-2, 1:-1] - light[2:, 1:-1] - light[1:-1, :-2] - light[1:-1, 2:]
    middles = np.arange(n)[1:-1] * factor + factor // 2
    return float(inner[tissue[np.ix_(middles, middles)]].var())


@pytest.mark.parametrize(("factor", "side"), [(1, 64), (2, 128), (3, 192), (4, 256)])
@pytest.mark.parametrize("amount", [0.0, 0.4])
def test_blur_is_the_variance_of_the_laplacian(factor: int, side: int, amount: float) -> None:
    rng = np.random.default_rng(factor)
    rgb = rng.integers(0, 256, (2 * side, 3 * side, 3)).astype(np.uint8)
    tissue = rng.random((2 * side, 3 * side)) >= amount
    corners = np.array([(x * side, y * side) for y in range(2) for x in range(3)])
    found = blur(rgb, corners, side, factor, everywhere(2 * side, 3 * side, tissue))
    for value, (x, y) in zip(found, corners.tolist(), strict=True):
        part = (slice(y, y + side), slice(x, x + side))
        assert value == pytest.approx(laplacian_variance(rgb[part], factor, tissue[part]), rel=1e-6)


def test_the_mask_lies_where_it_is_said_to_lie() -> None:
    """Tissue only under the noisy half: the flat half would halve the variance."""
    rgb = np.full((128, 128, 3), 200, np.uint8)
    rgb[:, 70:] = np.random.default_rng(0).integers(0, 256, (128, 58, 3))
    mask = np.zeros((16, 16), bool)
    mask[:, 9:] = True
    at8 = Window(mask, np.arange(128) // 8, np.arange(128) // 8)
    found = blur(rgb, np.array([(0, 0)]), 128, 1, at8)[0]
    assert found == pytest.approx(laplacian_variance(rgb, 1, mask.repeat(8, 0).repeat(8, 1)), rel=1e-6)
    assert found > 1.8 * blur(rgb, np.array([(0, 0)]), 128, 1, everywhere(128, 128))[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([1, 2]))
def test_nothing_outside_a_tile_has_a_part_in_it(x: int, y: int, factor: int) -> None:
    """The same tile in another place of another picture, as another block would hold it, has the same number bit for bit."""
    rng = np.random.default_rng(5)
    tile = rng.integers(0, 256, (96, 96, 3)).astype(np.uint8)
    alone = blur(tile, np.array([(0, 0)]), 96, factor, everywhere(96, 96))
    canvas = rng.integers(0, 256, (140, 140, 3)).astype(np.uint8)
    canvas[y : y + 96, x : x + 96] = tile
    again = blur(canvas, np.array([(x, y), (0, 0)]), 96, factor, everywhere(140, 140))
    assert again[0].tobytes() == alone[0].tobytes()


def test_hardly_any_tissue_and_pixels_beyond_the_slide_have_no_blur() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    at = np.array([(0, 0)])
    mask = np.zeros((256, 256), bool)
    mask[1:33, 1:32] = True
    assert np.isnan(blur(rgb, at, 256, 1, everywhere(256, 256, mask))[0])
    mask[1:33, 1:33] = True
    assert blur(rgb, at, 256, 1, everywhere(256, 256, mask))[0] > 0
    rows = np.where(np.arange(256) < 64, np.arange(256), -1)
    part = blur(rgb, at, 256, 1, Window(np.ones((256, 256), bool), rows, np.arange(256)))[0]
    beyond = np.zeros((256, 256), bool)
    beyond[:64] = True
    assert part == pytest.approx(laplacian_variance(rgb, 1, beyond), rel=1e-6)
    assert np.isnan(blur(rgb, at, 256, 1, Window(np.ones((256, 256), bool), np.full(256, -1), np.arange(256)))[0])


@pytest.mark.parametrize("subtype", ["DDLPS", "LMS", "MFS", "SS", "UPS", "ARMS", "ERMS"])
def test_blurred_tiles_are_told_from_sharp_ones(subtype: str, section: Callable) -> None:
    """Half of a section through a Gaussian of 2 µm: every tile of it falls below every tile of the other half, by a factor of 20."""
    rgb, truth = section(subtype)
    half = unfocused(rgb, (slice(0, 1536), slice(0, 1024)), 4.0)
    corners = np.array([(x, y) for y in range(0, 1536, 512) for x in range(0, 2048, 512)])
    mask = Window(truth.tissue, np.arange(1536) // 16, np.arange(2048) // 16)
    values = blur(half, corners, 512, 2, mask)
    full = np.array([truth.tissue[y // 16 : y // 16 + 32, x // 16 : x // 16 + 32].mean() > 0.5 for x, y in corners])
    left = corners[:, 0] < 1024
    assert full[left].sum() > 2
    assert full[~left].sum() > 2
    assert values[full & left].max() * 20 < values[full & ~left].min()
    assert (blur(rgb, corners, 512, 2, mask)[full & ~left] == values[full & ~left]).all()


def test_the_more_blur_the_less_detail(section: Callable) -> None:
    rgb, _ = section("LMS")
    part = np.ascontiguousarray(rgb[512:1024, 768:1280])
    values = [float(blur(unfocused(part, (slice(None), slice(None)), s), np.array([(0, 0)]), 512, 2, everywhere(512, 512))[0]) for s in (0.01, 1, 2, 4, 8)]
    assert all(a > 1.3 * b for a, b in pairwise(values))
