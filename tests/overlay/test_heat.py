"""Heat maps: each tile's value in its own cell, and the cell where the tile's stride lies on the slide."""

from __future__ import annotations

import numpy as np
import pytest

from wsikit.geometry import Level, Size
from wsikit.grid import TileGrid, make_raster
from wsikit.overlay.heat import heat_map, heat_placement


def grid(mpp: tuple[float, float], want: float, tile: int, overlap: int = 0) -> TileGrid:
    return TileGrid(make_raster([Level(0, Size(4000, 3000), (1.0, 1.0))], mpp, want), tile, overlap)


def test_values_lie_in_their_cells_and_nothing_elsewhere() -> None:
    g = grid((0.5, 0.5), 0.5, 1000)
    assert g.shape == (4, 3)
    cells = np.array([[0, 0], [3, 0], [1, 2]])
    values = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], np.float32)
    heat = heat_map(g, cells, values)
    assert (heat.shape, heat.dtype) == ((2, 3, 4), np.float32)
    expected = np.full((2, 3, 4), np.nan, np.float32)
    for (column, row), value in zip(cells, values, strict=True):
        expected[:, row, column] = value
    assert np.array_equal(heat, expected, equal_nan=True)
    assert np.isnan(heat_map(g, cells[:0], values[:0])).all()


def test_placement_by_hand() -> None:
    """Tiles of 256 px at 1 µm/px with 56 px overlap on a slide of 0.25 × 0.5 µm/px: cells of 200 µm."""
    place = heat_placement(grid((0.25, 0.5), 1.0, 256, 56))
    assert place.scale == pytest.approx((200, 200))
    assert place.translation == pytest.approx((100 - 0.125, 100 - 0.25)), "a cell's centre, from the centre of pixel (0, 0)"


@pytest.mark.parametrize(("mpp", "want", "tile", "overlap"), [((0.5, 0.5), 0.5, 224, 0), ((0.4987, 0.5021), 0.7, 96, 32), ((0.25, 0.5), 1.0, 299, 64)])
def test_the_centre_of_each_cell_is_the_centre_of_its_tile(mpp: tuple[float, float], want: float, tile: int, overlap: int) -> None:
    g = grid(mpp, want, tile, overlap)
    place, cells = heat_placement(g), g.all_cells()
    centre_um = np.array(place.translation) + cells * np.array(place.scale)
    assert centre_um == pytest.approx((g.centres(cells) - 0.5) * np.array(mpp))
