"""Which pixels of a low-power picture are tissue? Otsu with floors and caps, less ink, blood and scanner black.

Otsu alone fails at both ends: on a blank slide it splits noise, on a slide that is all tissue it splits the
tissue. So each threshold is Otsu's, held between a floor that noise does not reach and a cap that pale
(myxoid, fatty) tissue passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ndi
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

# Chroma is max − min of R, G, B in grey levels: unlike HSV saturation it does not blow up in the dark.
CHROMA_FLOOR, CHROMA_CAP = 10.0, 22.0
# Density is −log10(grey / white point): 0 for glass.
DENSITY_FLOOR, DENSITY_CAP = 0.06, 0.12
BLACK_LEVEL, BLACK_CHROMA = 50, 25
SMOOTH_UM = 12.0
MIN_REGION_MM2, MIN_HOLE_MM2 = 0.02, 0.02


@dataclass(frozen=True)
class TissueMask:
    """What `find_tissue` saw, all bool (H, W): tissue to score, foreign colours (ink, dense blood), scanner black.

    ``white_point`` is the grey of empty glass.
    """

    tissue: np.ndarray
    foreign: np.ndarray
    black: np.ndarray
    white_point: float


def find_tissue(rgb: np.ndarray, mpp: tuple[float, float]) -> TissueMask:
    """Which pixels are tissue?

    Parameters
    ----------
    rgb : uint8 (H, W, 3)
        The slide at about 8 µm/px.
    mpp : µm per pixel of ``rgb`` (x, y)
    """
    values = rgb.astype(np.float32)
    sigma = (SMOOTH_UM / mpp[1] / 2.355, SMOOTH_UM / mpp[0] / 2.355)
    smooth = np.stack([ndi.gaussian_filter(values[..., c], sigma, mode="nearest") for c in range(3)], -1)
    grey, chroma = smooth.mean(-1), smooth.max(-1) - smooth.min(-1)
    black = (grey < BLACK_LEVEL) & (chroma < BLACK_CHROMA)
    foreign = find_foreign(smooth)
    usable = ~(black | foreign)
    white = _white_point(grey[usable])
    density = -np.log10(np.clip(grey, 1, None) / white)
    stained = chroma - _glass_chroma(chroma[usable], density[usable])
    tissue = usable & ((stained > _threshold(stained[usable], CHROMA_FLOOR, CHROMA_CAP)) | (density > _threshold(density[usable], DENSITY_FLOOR, DENSITY_CAP)))
    tissue &= ~ndi.binary_dilation(foreign | black, iterations=2)
    return TissueMask(_clean(tissue, mpp), foreign, black, white)


def find_foreign(rgb: np.ndarray) -> np.ndarray:
    """Which pixels are marker ink, or blood too dense to show tissue? By colours H&E never makes: bool (H, W).

    Parameters
    ----------
    rgb : float32 (H, W, 3), 0–255, smoothed

    Notes
    -----
    H&E hues lie between blue-violet and red-pink. Green and cyan ink is known by hue; blue ink by blue far
    above both other channels with little red (haematoxylin keeps red above green); red ink and packed red
    cells by red far above two dark, equal channels (eosin keeps blue above green).
    """
    hue, saturation, _ = np.moveaxis(rgb2hsv(rgb / 255), -1, 0)
    r, g, b = np.moveaxis(rgb, -1, 0)
    degrees = hue * 360
    green = (degrees > 70) & (degrees < 195) & (saturation > 0.18)
    blue = (degrees >= 195) & (degrees < 245) & (saturation > 0.3) & (b - r > 40) & (g >= r - 5)
    red = ((degrees < 12) | (degrees > 350)) & (saturation > 0.6) & (r - np.maximum(g, b) > 90) & (np.abs(g - b) < 25)
    found = ndi.binary_opening(green | blue | red, iterations=1)
    return np.asarray(ndi.binary_dilation(found, iterations=2) if found.any() else found)


def _white_point(grey: np.ndarray) -> float:
    """The grey of glass: the brightest common value, not below 200 (a slide may show no glass at all)."""
    if grey.size == 0:
        return 255.0
    return float(max(np.percentile(grey, 98), 200.0))


def _glass_chroma(chroma: np.ndarray, density: np.ndarray) -> float:
    """The colour cast of empty glass, at most 15 grey levels."""
    glass = chroma[density < DENSITY_FLOOR / 2]
    return float(min(np.median(glass), 15.0)) if glass.size else 0.0


def _threshold(values: np.ndarray, floor: float, cap: float) -> float:
    if values.size == 0 or float(np.ptp(values)) < 1e-6:
        return cap
    return float(np.clip(threshold_otsu(values), floor, cap))


def _clean(tissue: np.ndarray, mpp: tuple[float, float]) -> np.ndarray:
    """Without specks and pinholes, by area in mm²."""
    px_mm2 = mpp[0] * mpp[1] / 1e6
    tissue = remove_small_holes(tissue, max_size=int(MIN_HOLE_MM2 / px_mm2))
    return np.asarray(remove_small_objects(tissue, max_size=int(MIN_REGION_MM2 / px_mm2)))
