"""The first look at a slide, at low power: where is tissue, and what are its stains?

Everything here depends on the slide alone, never on the models or on how the slide is cut into blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsikit.errors import SlideError, UnsupportedFormatError, UsageError
from wsikit.geometry import Region, Size
from wsikit.grid import Raster
from wsikit.slide import Slide, open_slide
from wsikit.stain import StainFit, StainTarget, get_method
from wsikit.tissue import TissueMask, find_tissue
from wsikit.tissue.brown import IHC_SHARE, brown_share
from wsikit.tissue.mask import GLASS

OVERVIEW_MPP = 8.0
SAMPLE_MPP = 1.0  # fine enough that nuclei are not averaged with the stroma around them
SAMPLE_PX = 256
SAMPLE_FIELDS = 24
SAMPLE_PIXELS = 400_000
MAX_IMAGE_PX = 2**25  # an image without mpp is read whole
DARK_LEVEL, DARK_SHARE = 80, 0.5


@dataclass(frozen=True)
class Survey:
    """What the first look found.

    Attributes
    ----------
    raster : the low-power raster (about 8 µm/px) that everything here is on
    overview : uint8 (H, W, 3), not normalised
    mask : tissue, foreign colours, black; bool (H, W)
    brown : share of the tissue that is brown
    stain : the slide's stain fit
    lost : boxes in level-0 px that could not be decoded for it
    """

    raster: Raster
    overview: np.ndarray
    mask: TissueMask
    brown: float
    stain: StainFit
    lost: tuple[Region, ...] = ()

    @property
    def tissue_mm2(self) -> float:
        """Area of tissue."""
        return float(self.mask.tissue.sum()) * self.raster.mpp[0] * self.raster.mpp[1] / 1e6


def survey(slide: Slide, stain: str = "macenko", target: StainTarget | None = None, *, any_stain: bool = False, leave_out: bool = False) -> Survey:
    """Look at a slide once, at low power. Its stain fit is for the colours of ``target``, else the method's reference.

    ``any_stain`` also takes slides whose tissue is brown; ``leave_out`` those that cannot be decoded everywhere.

    Raises
    ------
    MissingResolutionError
        The slide has no mpp.
    UnsupportedFormatError
        The slide is no brightfield stain (fluorescence or several channels, by its file or because it is dark), or it is brown: immunohistochemistry.
    DamagedSlideError
        The slide cannot be decoded, and nothing may be left out.
    UsageError
        No stain method has that name.
    """
    method = get_method(stain)
    if slide.facts.not_he:
        raise UnsupportedFormatError(f"{slide.path}: {slide.facts.not_he}")
    raster = overview_raster(slide)
    lost: list[Region] | None = [] if leave_out else None
    overview = slide.read_low_power(raster, lost=lost)
    mask = slide_tissue(slide, raster, overview)
    dark = float((_in_bounds(slide, raster, overview).max(-1) < DARK_LEVEL).mean())
    if dark > DARK_SHARE and not mask.tissue.any():
        raise UnsupportedFormatError(f"{slide.path}: {dark:.0%} of the slide is dark, so it is fluorescence and not a brightfield H&E stain")
    brown = brown_share(overview, mask.tissue, mask.white_point)
    if brown > IHC_SHARE and not any_stain:
        raise UnsupportedFormatError(
            f"{slide.path}: {brown:.0%} of the tissue is brown, so it is immunohistochemistry (DAB) and not H&E; "
            "if it is pigment, wsikit score and tile take it with --any-stain"
        )
    fit = method.fit(sample_tissue(slide, raster, mask.tissue, lost))
    return Survey(raster, overview, mask, brown, fit.model_copy(update={"target": target}) if target else fit, tuple(dict.fromkeys(lost or ())))


def slide_tissue(slide: Slide, raster: Raster, overview: np.ndarray) -> TissueMask:
    """The tissue of a whole slide's low-power picture. Beyond its bounds is glass, whose made-up white must not pass for the slide's own."""
    found = find_tissue(_in_bounds(slide, raster, overview), raster.mpp)
    if found.kind.shape == overview.shape[:2]:
        return found
    kind = np.full(overview.shape[:2], GLASS, np.uint8)
    _in_bounds(slide, raster, kind)[...] = found.kind
    return TissueMask(kind, found.white_point)


def _in_bounds(slide: Slide, raster: Raster, picture: np.ndarray) -> np.ndarray:
    """The part of a low-power picture (H, W, …) whose pixels were scanned, all of each; at least one pixel."""
    b, (dx, dy) = slide.bounds, raster.downsample
    if (b.w, b.h) == slide.size:
        return picture
    x, y = min(math.ceil(b.x / dx), picture.shape[1] - 1), min(math.ceil(b.y / dy), picture.shape[0] - 1)
    return picture[y : max(y + 1, int(b.y1 / dy)), x : max(x + 1, int(b.x1 / dx))]


def fit_target(image: str | Path, stain: str) -> StainTarget:
    """The colours of an image, for slides to be brought to: of the tissue of a slide, of all pixels where there is no mpp.

    Raises
    ------
    UsageError
        The method takes no target, or the image cannot be read, or its stains cannot be told.
    """
    method = get_method(stain)
    try:
        with open_slide(image) as slide:
            fit, digest = method.fit(_target_pixels(slide)), slide.digest
    except SlideError as e:
        raise UsageError(f"stain target {e}") from e
    if fit.trusted and not (fit.vectors or fit.mean):
        raise UsageError(f"stain '{stain}' changes no colours, so it takes no stain target")
    if not fit.trusted:
        raise UsageError(f"stain target {image}: cannot be used for '{stain}': {fit.reason}; choose an image full of well-stained H&E tissue")
    return StainTarget(image=Path(image).name, digest=digest, fit=fit)


def _target_pixels(slide: Slide) -> np.ndarray:
    if slide.mpp is not None:
        raster = overview_raster(slide)
        return sample_tissue(slide, raster, slide_tissue(slide, raster, slide.read_low_power(raster)).tissue)
    if math.prod(slide.size) > MAX_IMAGE_PX:
        raise SlideError(f"{slide.path}: has no mpp and {slide.size.w} × {slide.size.h} px; give a slide with an mpp, or a crop of up to 32 megapixels")
    return _thinned(slide.read((0, 0, *slide.size)).reshape(-1, 3))


def overview_raster(slide: Slide) -> Raster:
    """The raster by a power of two whose pixels are nearest to 8 µm."""
    mpp = math.sqrt(math.prod(slide.require_mpp()))
    factor = 2 ** max(0, round(math.log2(OVERVIEW_MPP / mpp)))
    while factor > max(1, min(slide.size)):
        factor //= 2
    return slide.reduced(factor)


def sample_tissue(slide: Slide, raster: Raster, tissue: np.ndarray, lost: list[Region] | None = None) -> np.ndarray:
    """Tissue pixels for the stain fit, from up to 24 fields spread over the tissue: uint8 (N, 3).

    The fields are evenly spaced in the list of all fields with tissue, so the sample is always the same. For ``lost`` see `Slide.read_level`;
    a field that cannot be decoded everywhere is left out.
    """
    fine = slide.raster(max(SAMPLE_MPP, *slide.require_mpp()), upsample=True)
    ratio = (fine.downsample[0] / raster.downsample[0], fine.downsample[1] / raster.downsample[1])
    found = []
    for column, row in _spread(_fields(tissue, fine.size, ratio)):
        gaps: list[Region] | None = None if lost is None else []
        pixels = slide.read_raster(fine, column * SAMPLE_PX, row * SAMPLE_PX, SAMPLE_PX, SAMPLE_PX, gaps)
        if lost is not None and gaps:
            lost += gaps
            continue
        y = np.minimum(((row * SAMPLE_PX + np.arange(SAMPLE_PX) + 0.5) * ratio[1]).astype(int), tissue.shape[0] - 1)
        x = np.minimum(((column * SAMPLE_PX + np.arange(SAMPLE_PX) + 0.5) * ratio[0]).astype(int), tissue.shape[1] - 1)
        found.append(pixels[tissue[np.ix_(y, x)]])
    return _thinned(np.concatenate(found) if found else np.empty((0, 3), np.uint8))


def _thinned(pixels: np.ndarray) -> np.ndarray:
    return pixels[:: max(1, -(-len(pixels) // SAMPLE_PIXELS))]


def _fields(tissue: np.ndarray, size: Size, ratio: tuple[float, float]) -> list[tuple[int, int]]:
    """Columns and rows of the sample fields that hold the most tissue, row by row."""
    columns, rows = -(-size.w // SAMPLE_PX), -(-size.h // SAMPLE_PX)
    across = (np.arange(tissue.shape[1]) / ratio[0] // SAMPLE_PX).astype(int).clip(0, columns - 1)
    down = (np.arange(tissue.shape[0]) / ratio[1] // SAMPLE_PX).astype(int).clip(0, rows - 1)
    table = np.zeros((rows, columns), np.int64)
    for row in np.unique(down):
        table[row] = np.bincount(across, tissue[down == row].sum(0), columns)
    count = table.reshape(-1)
    enough = np.flatnonzero(count >= max(1, count.max() / 2))
    return [(int(i) % columns, int(i) // columns) for i in enough]


def _spread(fields: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if len(fields) <= SAMPLE_FIELDS:
        return fields
    return [fields[i] for i in np.linspace(0, len(fields) - 1, SAMPLE_FIELDS).round().astype(int)]
