"""Where is a region, how large is it, and which tiles lie in it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from skimage.morphology import remove_small_holes, remove_small_objects

from wsikit.grid import Raster, TileGrid
from wsikit.models._card import Segmentation
from wsikit.store import SlideStore


@dataclass(frozen=True)
class Within:
    """The region that other answers are confined to: bool (H, W) on the low-power raster, and why there is none, where there is none."""

    name: str
    mask: np.ndarray
    reason: str

    def to_json(self) -> dict[str, Any]:
        """For the results of those that were confined."""
        return {"region": self.name}


def confined(store: SlideStore, name: str, answer: Mapping[str, Any] | None) -> Within:
    """The region of pipeline ``name``, whose answer is given (None where it was not scored), that other answers are confined to, or why there is none."""
    mask = store.region(name)
    if answer is None or mask is None or answer["status"] != "ok":
        why = "was not scored" if answer is None else answer["reason"] or answer["status"]
        return Within(name, np.zeros_like(store.tissue(), bool), f"answers are to be confined to '{name}', and that {why}")
    return Within(name, mask, "" if mask.any() else f"answers are to be confined to '{name}', and none was found")


def mosaic(grid: TileGrid, cells: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Probabilities of all tiles put together: float32 (rows·S, columns·S), NaN where no tile was scored.

    Parameters
    ----------
    cells : int64 (N, 2) column, row
    squares : uint8 (N, S·S), 255 being 1
    """
    columns, rows = grid.shape
    s = round(squares.shape[1] ** 0.5) if len(squares) else 1
    out = np.full((rows, s, columns, s), np.nan, np.float32)
    for (column, row), values in zip(cells.tolist(), squares, strict=True):
        out[row, :, column, :] = values.reshape(s, s) / np.float32(255)
    return out.reshape(rows * s, columns * s)


def region_mask(values: np.ndarray, square: tuple[float, float], tissue: np.ndarray, raster: Raster, how: Segmentation) -> np.ndarray:
    """The region on the low-power raster: bool (H, W).

    Parameters
    ----------
    values : float32 (H', W'), the region's probability in squares of ``square`` level-0 px (x, y), NaN where nothing was scored
    tissue : bool (H, W) on ``raster``
    """
    h, w = tissue.shape
    y = np.minimum(((np.arange(h) + 0.5) * raster.downsample[1] / square[1]).astype(int), values.shape[0] - 1)
    x = np.minimum(((np.arange(w) + 0.5) * raster.downsample[0] / square[0]).astype(int), values.shape[1] - 1)
    found = (np.nan_to_num(values, nan=0.0)[np.ix_(y, x)] >= how.threshold) & tissue
    least = int(how.min_mm2 * 1e6 / (raster.mpp[0] * raster.mpp[1]))
    if least > 1:
        found = remove_small_holes(remove_small_objects(found, max_size=least - 1), max_size=least - 1) & tissue
    return np.asarray(found)


def pooled_region(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A patient's answer: the areas of all slides together."""
    area, tissue = (round(sum(a[k] for a in answers), 6) for k in ("region_mm2", "tissue_mm2"))
    return {"status": "ok", "reason": "", "region": answers[0]["region"], "region_mm2": area, "share": round(area / tissue, 6) if tissue else 0.0}


def describe_region(mask: np.ndarray, tissue_mm2: float, raster: Raster, how: Segmentation, n_tiles: int) -> dict[str, Any]:
    """A slide's answer: ``region_mm2``, its ``share`` of the tissue, and how many tiles were looked at."""
    if n_tiles == 0:
        return {"status": "abstained", "reason": "no tile of the slide holds enough tissue", "n_tiles": 0}
    mm2 = float(mask.sum()) * raster.mpp[0] * raster.mpp[1] / 1e6
    share = round(min(1.0, mm2 / tissue_mm2), 6) if tissue_mm2 else 0.0
    return {
        "status": "ok",
        "reason": "",
        "region": how.region,
        "region_mm2": round(mm2, 6),
        "share": share,
        "tissue_mm2": tissue_mm2,
        "threshold": how.threshold,
        "n_tiles": n_tiles,
    }
