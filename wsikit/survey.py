"""The first look at a slide, at low power: where is tissue, and what are its stains?

Everything here depends on the slide alone, never on the models or on how the slide is cut into blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wsikit.errors import UnsupportedFormatError
from wsikit.geometry import Size
from wsikit.grid import Raster
from wsikit.slide import Slide
from wsikit.stain import StainFit, get_method
from wsikit.tissue import TissueMask, find_tissue

OVERVIEW_MPP = 8.0
SAMPLE_MPP = 1.0  # fine enough that nuclei are not averaged with the stroma around them
SAMPLE_PX = 256
SAMPLE_FIELDS = 24
SAMPLE_PIXELS = 400_000
DARK_LEVEL, DARK_SHARE = 80, 0.5


@dataclass(frozen=True)
class Survey:
    """What the first look found.

    Attributes
    ----------
    raster : the low-power raster (about 8 µm/px) that everything here is on
    overview : uint8 (H, W, 3), not normalised
    mask : tissue, foreign colours, black; bool (H, W)
    stain : the slide's stain fit
    """

    raster: Raster
    overview: np.ndarray
    mask: TissueMask
    stain: StainFit

    @property
    def tissue_mm2(self) -> float:
        """Area of tissue."""
        return float(self.mask.tissue.sum()) * self.raster.mpp[0] * self.raster.mpp[1] / 1e6


def survey(slide: Slide, stain: str = "macenko") -> Survey:
    """Look at a slide once, at low power.

    Raises
    ------
    MissingResolutionError
        The slide has no mpp.
    UnsupportedFormatError
        The slide is dark: fluorescence, not brightfield.
    DamagedSlideError
        The slide cannot be decoded.
    UsageError
        No stain method has that name.
    """
    method = get_method(stain)
    raster = overview_raster(slide)
    overview = slide.read_low_power(raster)
    mask = find_tissue(overview, raster.mpp)
    dark = float((overview.max(-1) < DARK_LEVEL).mean())
    if dark > DARK_SHARE and not mask.tissue.any():
        raise UnsupportedFormatError(f"{slide.path}: {dark:.0%} of the slide is dark, so it is fluorescence and not a brightfield H&E stain")
    return Survey(raster, overview, mask, method.fit(sample_tissue(slide, raster, mask.tissue)))


def overview_raster(slide: Slide) -> Raster:
    """The raster by a power of two whose pixels are nearest to 8 µm."""
    mpp = math.sqrt(math.prod(slide.require_mpp()))
    factor = 2 ** max(0, round(math.log2(OVERVIEW_MPP / mpp)))
    while factor > max(1, min(slide.size)):
        factor //= 2
    return slide.reduced(factor)


def sample_tissue(slide: Slide, raster: Raster, tissue: np.ndarray) -> np.ndarray:
    """Tissue pixels for the stain fit, from up to 24 fields spread over the tissue: uint8 (N, 3).

    The fields are evenly spaced in the list of all fields with tissue, so the sample is always the same.
    """
    fine = slide.raster(max(SAMPLE_MPP, *slide.require_mpp()), upsample=True)
    ratio = (fine.downsample[0] / raster.downsample[0], fine.downsample[1] / raster.downsample[1])
    found = []
    for column, row in _spread(_fields(tissue, fine.size, ratio)):
        pixels = slide.read_raster(fine, column * SAMPLE_PX, row * SAMPLE_PX, SAMPLE_PX, SAMPLE_PX)
        y = np.minimum(((row * SAMPLE_PX + np.arange(SAMPLE_PX) + 0.5) * ratio[1]).astype(int), tissue.shape[0] - 1)
        x = np.minimum(((column * SAMPLE_PX + np.arange(SAMPLE_PX) + 0.5) * ratio[0]).astype(int), tissue.shape[1] - 1)
        found.append(pixels[tissue[np.ix_(y, x)]])
    pixels = np.concatenate(found) if found else np.empty((0, 3), np.uint8)
    return pixels[:: max(1, -(-len(pixels) // SAMPLE_PIXELS))]


def _fields(tissue: np.ndarray, size: Size, ratio: tuple[float, float]) -> list[tuple[int, int]]:
    """Columns and rows of the sample fields that hold the most tissue, row by row."""
    columns, rows = -(-size.w // SAMPLE_PX), -(-size.h // SAMPLE_PX)
    y, x = np.nonzero(tissue)
    field = (y / ratio[1] // SAMPLE_PX).astype(int).clip(0, rows - 1) * columns + (x / ratio[0] // SAMPLE_PX).astype(int).clip(0, columns - 1)
    count = np.bincount(field, minlength=rows * columns)
    enough = np.flatnonzero(count >= max(1, count.max() / 2))
    return [(int(i) % columns, int(i) // columns) for i in enough]


def _spread(fields: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if len(fields) <= SAMPLE_FIELDS:
        return fields
    return [fields[i] for i in np.linspace(0, len(fields) - 1, SAMPLE_FIELDS).round().astype(int)]
