"""A few things that a person could measure on tissue too: how dense and how large nuclei are, how strong the stains, how coarse the texture.

Measured on up to 64 of a slide's kept tiles, spread evenly over its tissue, in the reference's colours. The measures are of the toolkit: simple,
with known units, and blind to what kind of nucleus it is.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import regionprops_table

from wsikit.stain.macenko import IO, REFERENCE
from wsikit.store import SlideStore

TILES = 64
MAX_MPP = 1.1
SMOOTH_UM = 0.7
MIN_NUCLEUS_UM2, MAX_NUCLEUS_UM2 = 12.0, 500.0
TEXTURE_UM = 4.0
FORMULAS: dict[str, tuple[str, str]] = {
    "nuclei_per_mm2": (
        "1/mm²",
        "connected parts of 12–500 µm² with haematoxylin, smoothed by 0.7 µm, above Otsu's threshold of all tiles, over their area",
    ),
    "nucleus_um2": ("µm²", "median area of these parts"),
    "nucleus_um2_spread": ("1", "interquartile range of their areas over the median: how much nuclei differ in size"),
    "nucleus_eccentricity": ("1", "median eccentricity of the ellipse with the same second moments: 0 round, 1 a line"),
    "haematoxylin": (
        "OD",
        "mean concentration along the stain vector; relative: each slide's 99th percentile was brought to the reference's",
    ),
    "eosin": ("OD", "the same of eosin"),
    "texture_contrast": ("OD", "mean absolute difference of eosin 4 µm apart, over four directions"),
    "texture_entropy": ("bit", "entropy of eosin in 32 classes from 0 to 2 OD"),
}


def measure(tiles: np.ndarray, mpp: float, vectors: np.ndarray) -> dict[str, float]:
    """The pathomics of some tiles.

    Parameters
    ----------
    tiles : uint8 (N, H, W, 3), in the colours that ``vectors`` are of
    mpp : µm/px
    vectors : float64 (2, 3), optical density of haematoxylin and of eosin for R, G, B, unit length

    Returns
    -------
    see `FORMULAS`; those of nuclei are 0 where none is found
    """
    optical = -np.log((tiles.astype(np.float64) + 1) / IO)
    h, e = np.moveaxis(np.maximum(optical.reshape(-1, 3) @ np.linalg.pinv(vectors), 0).reshape(*tiles.shape[:3], 2), -1, 0)
    smooth = np.stack([ndimage.gaussian_filter(t, SMOOTH_UM / mpp) for t in h])
    areas, shapes = _nuclei(smooth > (threshold_otsu(smooth) if np.ptp(smooth) > 0 else np.inf), mpp)
    low, middle, high = np.percentile(areas, [25, 50, 75]) if len(areas) else (0.0, 0.0, 0.0)
    step = max(1, round(TEXTURE_UM / mpp))
    ways = [e[:, step:] - e[:, :-step], e[:, :, step:] - e[:, :, :-step], e[:, step:, step:] - e[:, :-step, :-step], e[:, step:, :-step] - e[:, :-step, step:]]
    share = np.histogram(e, bins=32, range=(0.0, 2.0))[0] / e.size
    found = {
        "nuclei_per_mm2": len(areas) / (h.size * mpp**2 / 1e6),
        "nucleus_um2": middle,
        "nucleus_um2_spread": (high - low) / middle if middle else 0.0,
        "nucleus_eccentricity": np.median(shapes) if len(shapes) else 0.0,
        "haematoxylin": h.mean(),
        "eosin": e.mean(),
        "texture_contrast": np.mean([np.abs(w).mean() for w in ways]),
        "texture_entropy": -(share[share > 0] * np.log2(share[share > 0])).sum(),
    }
    return {k: float(v) for k, v in found.items()}


def _nuclei(dark: np.ndarray, mpp: float) -> tuple[np.ndarray, np.ndarray]:
    """Areas in µm² and eccentricities of the parts of each tile that are of a nucleus' size."""
    areas, shapes = [], []
    for tile in dark:
        labels, n = ndimage.label(tile)
        if n:
            table = regionprops_table(labels, properties=("area", "eccentricity"))
            um2 = table["area"] * mpp**2
            kept = (um2 >= MIN_NUCLEUS_UM2) & (um2 <= MAX_NUCLEUS_UM2)
            areas.append(um2[kept])
            shapes.append(table["eccentricity"][kept])
    return (np.concatenate(areas), np.concatenate(shapes)) if areas else (np.empty(0), np.empty(0))


def of_slide(store: SlideStore) -> tuple[dict[str, float], str]:
    """The pathomics of a slide whose pixels were kept, or why there are none."""
    return _of_slide(str(store.path), store.attributes["survey"]["key"])


@lru_cache(maxsize=64)
def _of_slide(path: str, key: str) -> tuple[dict[str, float], str]:
    store = SlideStore(path)
    kept, pixels = store.tables().get("tiles"), store.attributes["pixels"]
    if kept is None or pixels is None:
        return {}, "pathomics are measured on kept pixels; score with --keep-tiles"
    mpp = float(np.sqrt(np.prod(pixels["raster"]["mpp"])))
    if mpp > MAX_MPP:
        return {}, f"pathomics are measured at {MAX_MPP:g} µm/px or finer, and pixels are kept at {mpp:.3g}; score with finer ones"
    stain = store.attributes["stain"]
    if stain["method"] not in ("macenko", "vahadane") or stain.get("target") is not None:
        return {}, "pathomics are measured in the reference's colours; score with --stain macenko and no --stain-target"
    if not stain["trusted"]:
        return {}, f"the slide's stain cannot be measured: {stain['reason']}"
    tiles = _sample(store, kept["origin"][kept["tissue"] > 0.9])
    if tiles is None:
        return {}, "no kept tile is whole tissue"
    return measure(tiles, mpp, REFERENCE), ""


def _sample(store: SlideStore, origins: np.ndarray) -> np.ndarray | None:
    """Up to 64 of the kept tiles with these corners (N, 2) in level-0 px, spread evenly: uint8 (n, H, W, 3)."""
    if not len(origins):
        return None
    chosen = origins[np.unique(np.linspace(0, len(origins) - 1, TILES).round().astype(int))]
    pixels = store.attributes["pixels"]
    side, array = pixels["tile_px"], store.levels()[0][0]
    corners = np.rint(chosen / np.array(pixels["raster"]["downsample"])).astype(int)
    whole = [(x, y) for x, y in corners.tolist() if 0 <= x <= array.shape[2] - side and 0 <= y <= array.shape[1] - side]
    tiles = [np.moveaxis(np.asarray(array[:, y : y + side, x : x + side]), 0, -1) for x, y in whole]
    return np.stack(tiles) if tiles else None
