"""Cut a block's tiles: decode each stored level once, normalise, and let every model take its tiles from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wsikit.clock import Clock
from wsikit.geometry import Region
from wsikit.grid import Raster, TileGrid
from wsikit.resample import resample
from wsikit.slide import Slide
from wsikit.stain import StainFit, get_method

if TYPE_CHECKING:
    from torch import Tensor


class Want(NamedTuple):
    """Some tiles of a grid: ``cells`` int64 (N, 2) column, row; in the colours of a stain fit."""

    grid: TileGrid
    cells: np.ndarray
    stain: StainFit


@dataclass(frozen=True)
class Canvas:
    """Normalised pixels around some tiles: uint8 (H, W, 3), an array or on a device, from raster px (x, y)."""

    pixels: np.ndarray | Tensor
    x: int
    y: int
    tile_px: int

    def array(self) -> np.ndarray:
        """All pixels as an array, uint8 (H, W, 3)."""
        return self.pixels if isinstance(self.pixels, np.ndarray) else self.pixels.cpu().numpy()

    def tiles(self, corners: np.ndarray) -> Tensor:
        """Tiles by their upper-left corners (N, 2) in raster px: uint8 (N, tile, tile, 3), where the pixels are."""
        import torch

        t, pixels = self.tile_px, torch.as_tensor(self.pixels)
        return torch.stack([pixels[y - self.y : y - self.y + t, x - self.x : x - self.x + t] for x, y in corners.tolist()])


def cut(slide: Slide, wants: Mapping[str, Want], device: str = "cpu", clock: Clock | None = None, lost: list[Region] | None = None) -> dict[str, Canvas]:
    """The pixels that several models need of one block.

    Each stored level is read once, over the box that all of them need there; each raster is resampled once
    from it, and each stain applied once to that. With a list ``lost``, what cannot be decoded is white, and its boxes in level-0 px are added there.

    Raises
    ------
    DamagedSlideError
        The slide cannot be decoded there, and there is no list ``lost``.
    RegionError
        The tiles are too far apart to be one block.
    """
    clock = clock or Clock()
    boxes = {name: _box(want.grid, want.cells) for name, want in wants.items() if len(want.cells)}
    levels: dict[int, Region] = {}
    rasters: dict[Raster, Region] = {}
    for name, box in boxes.items():
        raster = wants[name].grid.raster
        rasters[raster] = _union(rasters.get(raster), box)
    for raster, box in rasters.items():
        levels[raster.level] = _union(levels.get(raster.level), raster.source_window(box.x, box.y, box.w, box.h))
    with clock("read"):
        sources = {level: slide.read_level(level, window, lost) for level, window in levels.items()}
    with clock("resample"):
        pixels = {raster: _resampled(raster, box, sources[raster.level], levels[raster.level]) for raster, box in rasters.items()}
    done: dict[tuple[Raster, str], np.ndarray | Tensor] = {}
    out = {}
    for name in boxes:
        want = wants[name]
        raster, box = want.grid.raster, rasters[want.grid.raster]
        key = (raster, want.stain.model_dump_json())
        if key not in done:
            with clock("stain"):
                done[key] = normalise(pixels[raster], want.stain, device)
        out[name] = Canvas(done[key], box.x, box.y, want.grid.tile_px)
    return out


def normalise(rgb: np.ndarray, fit: StainFit, device: str = "cpu") -> np.ndarray | Tensor:
    """uint8 (H, W, 3) in the reference's colours: an array, or on a device."""
    if device == "cpu":
        return get_method(fit.method).apply(rgb, fit)
    import torch

    return get_method(fit.method).apply(torch.from_numpy(np.ascontiguousarray(rgb)).to(device), fit)


def _box(grid: TileGrid, cells: np.ndarray) -> Region:
    corners = grid.corners_px(cells)
    (x, y), (x1, y1) = corners.min(0).tolist(), (corners.max(0) + grid.tile_px).tolist()
    return Region(x, y, x1 - x, y1 - y)


def _union(a: Region | None, b: Region) -> Region:
    if a is None:
        return b
    x, y = min(a.x, b.x), min(a.y, b.y)
    return Region(x, y, max(a.x1, b.x1) - x, max(a.y1, b.y1) - y)


def _resampled(raster: Raster, box: Region, source: np.ndarray, at: Region) -> np.ndarray:
    w = raster.source_window(box.x, box.y, box.w, box.h)
    window = source[w.y - at.y : w.y1 - at.y, w.x - at.x : w.x1 - at.x]
    return resample(window, (box.x, box.y), (box.w, box.h), raster.step)
