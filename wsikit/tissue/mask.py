"""Which pixels of a low-power picture are tissue? Otsu with floors and caps, less ink, blood and scanner black.

Otsu alone fails at both ends: on a blank slide it splits noise, on a slide that is all tissue it splits the
tissue. So each threshold is Otsu's, held between a floor that noise does not reach and a cap that pale
(myxoid, fatty) tissue passes.

A slide of 40 gigapixels has a low-power picture of 40 megapixels, so nothing here keeps more than a few bytes a pixel:
thresholds come from histograms, and pixels are gone through in strips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage as ndi
from skimage.filters import threshold_otsu

from wsikit.tissue._look import BLACK, BLUE, CHROMA, FAINT, GREEN, GREY, HINT, RED, Look, look
from wsikit.tissue._parts import grown, shrunk, small, strips
from wsikit.tissue.folds import find_folds

# Chroma is max − min of R, G, B in grey levels: unlike HSV saturation it does not blow up in the dark.
CHROMA_FLOOR, CHROMA_CAP = 10.0, 16.0
# Density is −log10(grey / white point): 0 for glass.
DENSITY_FLOOR, DENSITY_CAP = 0.06, 0.12
SMOOTH_UM = 12.0
MIN_REGION_MM2, MIN_HOLE_MM2 = 0.02, 0.02
MIN_COLOURED = 0.2  # share of a region that must have a colour: dust and smears out of focus are grey
INK_FADES_UM = 400.0

GLASS, TISSUE, DARK, FOLD, OTHER = 0, 1, BLACK, 6, 7
INKS = {"green": GREEN, "blue": BLUE, "red": RED}


@dataclass(frozen=True)
class TissueMask:
    """What `find_tissue` saw.

    ``kind`` uint8 (H, W): 0 glass, 1 tissue, 2 green or cyan ink, 3 blue ink, 4 red ink or dense blood, 5 black (ink or scanner),
    6 fold in the tissue, 7 neither glass nor tissue (specks, dust, rims of ink). ``white_point`` is the grey of empty glass.
    """

    kind: np.ndarray
    white_point: float

    @property
    def tissue(self) -> np.ndarray:
        """Tissue to score, folds and all: bool (H, W)."""
        return (self.kind == TISSUE) | (self.kind == FOLD)

    @property
    def foreign(self) -> np.ndarray:
        """Ink, or blood too dense to show tissue: bool (H, W)."""
        return (self.kind >= GREEN) & (self.kind <= RED)

    @property
    def black(self) -> np.ndarray:
        """Scanner black or black ink: bool (H, W)."""
        return np.asarray(self.kind == DARK)


class _Levels(NamedTuple):
    """The white point in grey levels.

    And, in the units of a `Look`, the grey below and the chroma above which a pixel is stained, and the chroma above which it has any colour.
    """

    white: float
    grey: float
    chroma: float
    coloured: float


def find_tissue(rgb: np.ndarray, mpp: tuple[float, float]) -> TissueMask:
    """Which pixels are tissue, and what are the others?

    Parameters
    ----------
    rgb : uint8 (H, W, 3)
        The slide at about 8 µm/px.
    mpp : µm per pixel of ``rgb`` (x, y)
    """
    seen = look(rgb, (SMOOTH_UM / mpp[1] / 2.355, SMOOTH_UM / mpp[0] / 2.355))
    kind = find_foreign(seen.colour)
    levels = _levels(seen, kind)
    stained = (seen.grey < levels.grey) | (seen.chroma > levels.chroma)
    _spread_ink(kind, seen.colour, stained, mpp)
    coloured, grey = seen.chroma > levels.coloured, seen.grey
    del seen
    foreign = kind != GLASS
    rim = grown(foreign, 2) if foreign.any() else foreign
    kind[(stained | rim) & ~foreign] = OTHER
    stained &= ~rim
    del foreign, rim
    tissue = _clean(stained, coloured, kind, mpp)
    del stained, coloured
    kind[tissue] = TISSUE
    kind[find_folds(rgb, grey, tissue, levels.white, mpp)] = FOLD
    return TissueMask(kind, levels.white)


def find_foreign(colour: np.ndarray) -> np.ndarray:
    """Which pixels are marker ink, dense blood or black? By colours H&E never makes: uint8 (H, W), as in `TissueMask`.

    Ink that is one pixel wide is let go of, and the rest grows by two pixels, over its soft rim.
    """
    kind = np.where(colour == BLACK, colour, 0)
    ink = (colour > 0) & (colour < BLACK)
    if not ink.any():
        return kind
    ink = grown(shrunk(ink))
    for value in INKS.values():
        core = ink & (colour == value)
        if core.any():
            kind[grown(core, 2)] = value
    return kind


def _spread_ink(kind: np.ndarray, colour: np.ndarray, stained: np.ndarray, mpp: tuple[float, float]) -> None:
    """Ink fades out: what joins it, has its hue and is no glass is ink too, up to some distance. Red ends where eosin may begin."""
    for value in (GREEN, BLUE):
        core = kind == value
        if core.any():
            faint = stained & (kind == GLASS) & ((colour == value) | (colour == value + HINT))
            steps = max(1, round(INK_FADES_UM / max(mpp)))
            kind[ndi.binary_dilation(core, iterations=steps, mask=faint) & faint] = value


def _levels(seen: Look, kind: np.ndarray) -> _Levels:
    greys, chromas = _histogram(seen.grey, kind), _histogram(seen.chroma, kind)
    white = max(_quantile(greys, 0.98) / GREY, 200.0) if greys.any() else 255.0
    density = -np.log10(np.maximum(np.arange(greys.size) / GREY, 1) / white)
    below = white * 10 ** -_threshold(density[::-1], greys[::-1], DENSITY_FLOOR, DENSITY_CAP)
    cast = _glass_chroma(seen, kind, white)
    above = cast + _threshold(np.arange(chromas.size) / CHROMA - cast, chromas, CHROMA_FLOOR, CHROMA_CAP)
    return _Levels(white, below * GREY, above * CHROMA, (cast + FAINT) * CHROMA)


def _glass_chroma(seen: Look, kind: np.ndarray, white: float) -> float:
    """The colour cast of empty glass, at most 15 grey levels."""
    found = _histogram(seen.chroma, kind, seen.grey, white * 10 ** (-DENSITY_FLOOR / 2) * GREY)
    return min(_quantile(found, 0.5) / CHROMA, 15.0) if found.any() else 0.0


def _histogram(values: np.ndarray, kind: np.ndarray, grey: np.ndarray | None = None, above: float = 0.0) -> np.ndarray:
    """How often each value occurs where neither ink nor black was seen, and (with ``grey``) where it is brighter: int64."""
    counts = np.zeros(2**16, np.int64)
    for rows in strips(values.shape):
        use = kind[rows] == GLASS
        if grey is not None:
            use &= grey[rows] > above
        counts += np.bincount(values[rows][use], minlength=2**16)
    return counts


def _quantile(counts: np.ndarray, q: float) -> float:
    """The quantile of the values that a histogram counted, between two of them as `numpy.percentile` has it."""
    total = counts.cumsum()
    at = q * (total[-1] - 1)
    low, high = (int(np.searchsorted(total, rank, side="right")) for rank in (np.floor(at), np.ceil(at)))
    return float(low + (high - low) * (at - np.floor(at)))


def _threshold(values: np.ndarray, counts: np.ndarray, floor: float, cap: float) -> float:
    """Otsu's threshold of ascending values and how often each occurs, between a floor and a cap; the cap where nothing differs."""
    seen = counts > 0
    if np.count_nonzero(seen) < 2:
        return cap
    return float(np.clip(threshold_otsu(hist=(counts[seen], values[seen])), floor, cap))


def _clean(tissue: np.ndarray, coloured: np.ndarray, kind: np.ndarray, mpp: tuple[float, float]) -> np.ndarray:
    """Without pinholes (but those that ink left stay), specks, and regions without a colour."""
    px_mm2 = mpp[0] * mpp[1] / 1e6
    tissue = tissue | (small(~tissue, int(MIN_HOLE_MM2 / px_mm2)) & (kind == GLASS))
    return np.asarray(tissue & ~small(tissue, int(MIN_REGION_MM2 / px_mm2), coloured, MIN_COLOURED))
