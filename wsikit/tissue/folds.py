"""Where does the section lie double? Folds of the tissue, on a low-power picture. They are reported, never cut out.

A fold is a band of the same tissue two or three layers thick: about twice as dense as what lies beside it on both sides, of the same
colour, and long. Published detectors threshold the difference of saturation and intensity (Bautista 2009, Kothari 2013), which also
takes nuclei-rich tissue, vessels full of blood and edges; the colour and shape tests here are what keeps those out. All constants are our own
defaults, not calibrated on scanned folds: chosen on phantoms and on real sections with folds drawn in, where they found about 7 in 10
bands of 30–110 µm and took 0.1 % of fold-free tissue for one.
"""

from __future__ import annotations

from math import ceil, hypot, log10, sqrt

import numpy as np
from scipy import ndimage as ndi

from wsikit import threads
from wsikit.tissue._look import GREY
from wsikit.tissue._parts import grown, shrunk, small, strips

SEEN_UM, SMOOTH_UM = 12.0, 30.0  # width of the blur that `grey` has, and of the one wanted: cells fade, bands stay
NEAR_UM = 800.0  # density is compared with the mean of this neighbourhood
DENSER, PALEST = 1.5, 0.7  # times that mean; the mean is not taken below this share of the slide's median
MIN_MM2, MIN_LENGTH_UM, MAX_WIDTH_UM, MIN_ASPECT = 0.008, 250.0, 180.0, 3.0
BRIDGE_UM, GAP_UM = 12.0, 16.0
RING_UM = (24.0, 96.0)  # the tissue beside a band
MIN_RING = 0.75  # share of the ring that is tissue: a rolled or dark edge of the section is no fold
MIN_SOLID = 0.85  # share of the band, gaps closed, that is dense
MIN_EVEN = 0.6  # 4 × mean distance to the edge, over the width: 1 for a ribbon, less for what branches
MIN_RATIO, MAX_DEGREES = 1.7, 3.0  # optical density to that of the ring, and angle between the two colours
_CELL_UM = 100.0
_MOST_PX = 2**22  # a dense region wider than 16 mm is not looked at


def find_folds(rgb: np.ndarray, grey: np.ndarray, tissue: np.ndarray, white: float, mpp: tuple[float, float]) -> np.ndarray:
    """Which pixels of tissue are folds? bool (H, W)

    Parameters
    ----------
    rgb : uint8 (H, W, 3)
    grey : uint16 (H, W), its grey in 1/192, seen through a blur of 12 µm
    tissue : bool (H, W)
    white : grey of glass
    mpp : µm per pixel (x, y)
    """
    dense = _dense(grey, tissue, white, mpp)
    dense &= ~small(dense, int(MIN_MM2 * 1e6 / (mpp[0] * mpp[1])))
    folds = np.zeros_like(tissue)
    if not dense.any():
        return folds
    labels = np.empty(dense.shape, np.int32)
    ndi.label(dense, output=labels)
    pad = ceil(RING_UM[1] / min(mpp)) + 1
    for i, box in enumerate(ndi.find_objects(labels), 1):
        part = tuple(slice(max(0, side.start - pad), side.stop + pad) for side in box)
        height, width = (side.stop - side.start for side in box)
        if hypot(height * mpp[1], width * mpp[0]) < MIN_LENGTH_UM or (height + 2 * pad) * (width + 2 * pad) > _MOST_PX:
            continue
        band = labels[part] == i
        if _is_fold(band, rgb[part], tissue[part], white, mpp):
            folds[part] |= band
    return folds


def _dense(grey: np.ndarray, tissue: np.ndarray, white: float, mpp: tuple[float, float]) -> np.ndarray:
    """Tissue much denser than its neighbourhood, small gaps bridged: bool (H, W)."""
    out = np.zeros_like(tissue)
    if not tissue.any():
        return out
    cell = max(1, round(_CELL_UM / sqrt(mpp[0] * mpp[1])))
    least = DENSER * _neighbourhood(grey, tissue, white, cell, round(NEAR_UM / _CELL_UM) | 1)
    columns = np.arange(tissue.shape[1]) // cell
    sigma = tuple(sqrt(SMOOTH_UM**2 - SEEN_UM**2) / 2.355 / m for m in mpp[::-1])
    halo = int(4 * sigma[0] + 0.5)

    def strip(rows: slice) -> None:
        start = max(0, rows.start - halo)
        blurred = ndi.gaussian_filter(grey[start : rows.stop + halo].astype(np.float32), sigma, mode="nearest")
        blurred = blurred[rows.start - start : rows.stop - start]
        out[rows] = tissue[rows] & (_density(blurred, white) > least[np.arange(rows.start, rows.stop) // cell][:, columns])

    threads.each(strip, strips(tissue.shape))
    steps = max(1, round(BRIDGE_UM / max(mpp)))
    return shrunk(grown(grown(shrunk(out)), steps), steps) & tissue


def _density(grey: np.ndarray, white: float) -> np.ndarray:
    return log10(white * GREY) - np.log10(np.maximum(grey, np.float32(GREY)))


def _neighbourhood(grey: np.ndarray, tissue: np.ndarray, white: float, cell: int, window: int) -> np.ndarray:
    """Mean density of the tissue around each cell of ``cell`` px, over ``window`` cells a side: float64 (h, w)."""
    shape = tuple(-(-n // cell) for n in tissue.shape)
    density, area = np.zeros(shape), np.zeros(shape)
    edges = np.arange(0, tissue.shape[1], cell)
    counts = np.zeros(2**16, np.int64)
    for j in range(shape[0]):
        rows = slice(j * cell, (j + 1) * cell)
        density[j] = np.add.reduceat((_density(grey[rows], white) * tissue[rows]).sum(0, dtype=np.float64), edges)
        area[j] = np.add.reduceat(tissue[rows].sum(0, dtype=np.int64), edges)
        counts += np.bincount(grey[rows][tissue[rows]], minlength=2**16)
    mean = ndi.uniform_filter(density, window, mode="constant") / np.maximum(ndi.uniform_filter(area, window, mode="constant"), 1e-9)
    middle = int(np.searchsorted(counts.cumsum(), counts.sum() / 2))
    return np.asarray(np.maximum(mean, PALEST * float(_density(np.array(middle), white))))


def _is_fold(band: np.ndarray, rgb: np.ndarray, tissue: np.ndarray, white: float, mpp: tuple[float, float]) -> bool:
    """Is a dense region of tissue long, narrow and solid, with tissue of the same colour and half its density on both sides?"""
    away = ndi.distance_transform_edt(~band, sampling=mpp[::-1])
    near = np.pad(away <= GAP_UM, 1)
    closed = band | (ndi.distance_transform_edt(near, sampling=mpp[::-1])[1:-1, 1:-1] > GAP_UM)
    closed = ndi.binary_fill_holes(closed)
    side = sqrt(mpp[0] * mpp[1])
    depth = ndi.distance_transform_edt(np.pad(closed, 1), sampling=mpp[::-1])[1:-1, 1:-1][closed] - side / 2
    width = 2 * depth.max()
    length = closed.sum() * side**2 / width
    if length < max(MIN_LENGTH_UM, MIN_ASPECT * width) or width > MAX_WIDTH_UM:
        return False
    if band.sum() < MIN_SOLID * closed.sum() or 4 * depth.mean() < MIN_EVEN * width:
        return False
    ring = (away > RING_UM[0]) & (away <= RING_UM[1])
    beside = ring & tissue
    if not beside.any() or beside.sum() < MIN_RING * ring.sum():
        return False
    double, single = (_optical_density(rgb[where], white) for where in (band, beside))
    cosine = double @ single / max(1e-9, sqrt(double @ double) * sqrt(single @ single))
    return bool(double.sum() >= MIN_RATIO * single.sum() and cosine >= np.cos(np.radians(MAX_DEGREES)))


def _optical_density(rgb: np.ndarray, white: float) -> np.ndarray:
    """Mean optical density of pixels (N, 3), by channel."""
    return -np.log10(np.maximum(rgb, 1) / white).mean(0)
