"""Macenko stain normalisation, fitted once per slide.

Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009. Constants
and conventions are torchstain's (``Io`` 240, ``alpha`` 1, ``beta`` 0.15, its reference stain matrix), so that
pixels agree with that library wherever it gets the same fit. As there, a pixel that hardly absorbs in one of the
colours counts as glass. Eosin that lets red through (its vector below 0.15 in red, in weakly stained tissue) is
then left out, and the eosin found lies up to some degrees towards haematoxylin; `wsikit.stain.vahadane` keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from wsikit.stain import Images, StainFit
from wsikit.stain._lookup import apply_tables, tables_of

IO = 240.0  # light without tissue
ALPHA = 1.0  # percentile taken as the most extreme stain direction
BETA = 0.15  # optical density below which a pixel is glass
REFERENCE = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])  # haematoxylin, eosin
REFERENCE_MAX = np.array([1.9705, 1.0308])

MIN_PIXELS = 2000
MIN_ANGLE_DEG = 5.0  # closer vectors cannot be told apart: their inverse blows noise up
MAX_CONDITION = 20.0


class Macenko:
    """Two stain vectors from the plane of largest variance in optical density."""

    name = "macenko"

    def fit(self, pixels: np.ndarray) -> StainFit:
        """Stain vectors and concentrations of tissue pixels, uint8 (N, 3); untrusted fits say why."""
        density = optical_density(pixels)
        return fit_two_stains(self.name, density[(density >= BETA).all(1)], _stain_vectors)

    def apply(self, images: Images, fit: StainFit) -> Images:
        """Normalise uint8 (..., 3) in optical density; the identity for an untrusted fit."""
        return apply_two_stains(images, fit)


def fit_two_stains(method: str, density: np.ndarray, find: Callable[[np.ndarray], np.ndarray | None]) -> StainFit:
    """The fit of stained pixels' optical density (N, 3) with the vectors (2, 3) that ``find`` finds; None from it means one colour."""
    vectors = maximum = None
    if len(density) < MIN_PIXELS:
        reason = f"only {len(density)} stained pixels, {MIN_PIXELS} are needed"
    elif (vectors := find(density)) is None:
        reason = "the pixels have one colour, so two stains cannot be told apart"
    elif not (reason := implausible(vectors)):
        maximum = np.percentile(density @ np.linalg.pinv(vectors), 99, axis=0)
        reason = "" if (maximum > 0.05).all() else "one of the two stains is hardly there"
    if reason or vectors is None or maximum is None:
        return StainFit(method=method, trusted=False, reason=reason, pixels=len(density))
    # rounding makes the fit, and so every pixel, the same on every linear-algebra library
    return StainFit(
        method=method,
        trusted=True,
        vectors=np.round(vectors, 6).tolist(),
        max_concentration=np.round(maximum, 6).tolist(),
        pixels=len(density),
    )


def apply_two_stains(images: Images, fit: StainFit) -> Images:
    """uint8 (..., 3) with each stain in the target's colour and strength; the identity for an untrusted fit."""
    return apply_tables(images, tables_of(colour_matrix(fit), IO)) if fit.trusted else images


def optical_density(pixels: np.ndarray) -> np.ndarray:
    """−ln((I + 1) / 240) of uint8 (N, 3): float64 (N, 3)."""
    return np.asarray(-np.log((pixels.astype(np.float64) + 1) / IO))


def colour_matrix(fit: StainFit) -> np.ndarray:
    """The 3 × 3 matrix that takes a slide's optical density to its target's, or the reference's: float64, rows are outputs."""
    target = fit.target.fit if fit.target else None
    to, most = (np.array(target.vectors), np.array(target.max_concentration)) if target else (REFERENCE, REFERENCE_MAX)
    return np.asarray(to.T @ np.diag(most / np.array(fit.max_concentration)) @ np.linalg.pinv(np.array(fit.vectors)).T)


def _stain_vectors(density: np.ndarray) -> np.ndarray | None:
    """Unit vectors of haematoxylin and eosin, (2, 3); None where density has no second direction."""
    values, axes = np.linalg.eigh(np.cov(density.T))
    if values[1] <= 1e-6 or not np.isfinite(values).all():
        return None
    plane = axes[:, [1, 2]]
    plane = plane * np.where(plane.sum(0) < 0, -1, 1)
    angles = np.arctan2(*(density @ plane).T[::-1])
    low, high = np.percentile(angles, [ALPHA, 100 - ALPHA])
    ends = np.array([plane @ np.array([math.cos(a), math.sin(a)]) for a in (low, high)])
    return np.asarray(ends[np.argsort(-ends[:, 0])])  # haematoxylin absorbs more red


def implausible(vectors: np.ndarray) -> str:
    """Why these cannot be haematoxylin and eosin; empty when they can."""
    if (vectors < -0.15).any():
        return "a stain vector is negative: the colours are not those of two absorbing stains"
    cosine = float(np.clip(vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1]), -1, 1))
    if math.degrees(math.acos(cosine)) < MIN_ANGLE_DEG:
        return f"the stain vectors are less than {MIN_ANGLE_DEG:g}° apart"
    if np.linalg.cond(vectors) > MAX_CONDITION:
        return "the stain vectors are nearly parallel"
    (hr, _, hb), (er, eg, eb) = vectors
    # what absorbs blue much more than green is DAB or another stain, not eosin
    if not (0.35 <= hr <= 0.85 and hb >= 0.15 and er <= 0.5 and eg >= 0.55 and 0.05 <= eb <= eg + 0.1):
        return "the stain vectors are outside the wedge of haematoxylin and eosin"
    return ""


METHOD = Macenko()
