"""Where on the slide is which class? Heat maps on the tile grid, one pixel a cell."""

from __future__ import annotations

import numpy as np

from wsikit.grid import TileGrid
from wsikit.store.image import Placement

ATTENTION = "attention"
SUFFIX = "-grad-cam"
TITLE, METHOD = "Grad-CAM", "Grad-CAM (Selvaraju et al., ICCV 2017)"


def explaining(pipeline: str) -> str:
    """What the overlay is called that explains a pipeline's calls.

    >>> explaining("sts-subtype")
    'sts-subtype-grad-cam'
    """
    return pipeline + SUFFIX


def explained(name: str) -> str:
    """The pipeline that an overlay explains; empty where it is another kind of overlay.

    >>> explained("sts-subtype-grad-cam"), explained("quality")
    ('sts-subtype', '')
    """
    return name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else ""


def heat_map(grid: TileGrid, cells: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values float32 (N, K) of tiles as float32 (K, rows, columns); NaN where no tile was scored."""
    columns, rows = grid.shape
    out = np.full((values.shape[1], rows, columns), np.nan, np.float32)
    out[:, cells[:, 1], cells[:, 0]] = values.T
    return out


def heat_placement(grid: TileGrid) -> Placement:
    """Where the heat map of a grid lies: cells start at the slide's origin."""
    d = grid.raster.downsample
    mpp0 = (grid.raster.mpp[0] / d[0], grid.raster.mpp[1] / d[1])
    return Placement.of((grid.stride_px * d[0], grid.stride_px * d[1]), mpp0)
