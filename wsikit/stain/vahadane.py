"""Vahadane stain normalisation, fitted once per slide.

Vahadane et al., "Structure-preserving color normalization and sparse stain separation for histological images",
IEEE TMI 35(8), 2016: optical density as a product of two unit vectors and concentrations, neither negative, with
the concentrations' sum as a penalty. Solved here by alternating the exact concentrations of every pixel with a step
of the vectors, from a fixed start, so the same pixels give the same fit.

Once the vectors are known, pixels are changed as by `wsikit.stain.macenko`, to the same reference: by the matrix of
least-squares concentrations. The paper's are not negative, and drawn to 0 a little: pixels between the two stains'
colours come out the same but for that; those beyond, such as blood or ink, the paper pulls to the nearer stain, and here
they keep their difference from it. On real tissue a tenth of the pixels lie beyond, most by noise: the pictures differ by
0.2 to 0.6 grey levels on average (0.9 with the paper's pull to 0), and one pixel in 10 to 25 by more than 5.
"""

from __future__ import annotations

import numba
import numpy as np

from wsikit.stain import Images, StainFit
from wsikit.stain.macenko import BETA, MIN_PIXELS, REFERENCE, apply_two_stains, fit_two_stains, optical_density

# Of the pixels' mean density, so that pale slides get the same vectors (the authors' demo: 0.02, where that is about 1.3).
# More draws the vectors together (by less than 2° as it is, by 5° at 0.1), less lets noise drive them apart.
PENALTY = 0.012
DARKEST = 2.5  # below 19 grey levels a density is mostly noise, which would draw haematoxylin out of its place
SAMPLE = 100_000
MAX_STEPS, CONVERGED = 1000, 1e-8
PARALLEL = 1 - 1e-6  # cosine of 0.08°: no two concentrations can be told apart


class Vahadane:
    """Two stain vectors by sparse non-negative matrix factorisation."""

    name = "vahadane"

    def fit(self, pixels: np.ndarray) -> StainFit:
        """Stain vectors and concentrations of tissue pixels, uint8 (N, 3); untrusted fits say why."""
        density = optical_density(pixels)
        # glass absorbs in no colour; eosin may let red through
        return fit_two_stains(self.name, density[(density >= BETA).any(1)], _dictionary)

    def apply(self, images: Images, fit: StainFit) -> Images:
        """Normalise uint8 (..., 3) in optical density; the identity for an untrusted fit."""
        return apply_two_stains(images, fit)


def _dictionary(density: np.ndarray) -> np.ndarray | None:
    """Unit vectors of haematoxylin and eosin, (2, 3); None where density has no second direction."""
    if np.linalg.eigvalsh(np.cov(density.T))[1] <= 1e-6:
        return None
    light = density[(density <= DARKEST).all(1)]
    usable = light if len(light) >= MIN_PIXELS else density
    sample = np.ascontiguousarray(usable[:: -(-len(usable) // SAMPLE)])
    penalty = PENALTY * float(np.linalg.norm(sample, axis=1).mean())
    vectors = REFERENCE / np.linalg.norm(REFERENCE, axis=1, keepdims=True)
    for _ in range(MAX_STEPS):
        found = _step(vectors, *_sums(sample, vectors, penalty))
        if found[0] @ found[1] > PARALLEL:
            return None
        moved, vectors = np.abs(found - vectors).max(), found
        if moved < CONVERGED:
            break
    return np.asarray(vectors[np.argsort(-vectors[:, 0])])  # haematoxylin absorbs more red


@numba.njit(cache=True, nogil=True)
def _sums(density: np.ndarray, vectors: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Over all pixels, with the best concentrations c (2) of each: the sums of c · c (2, 2) and of c · density (2, 3)."""
    (h0, h1, h2), (e0, e1, e2) = vectors[0], vectors[1]
    cross = h0 * e0 + h1 * e1 + h2 * e2
    among, with_density = np.zeros((2, 2)), np.zeros((2, 3))
    for i in range(density.shape[0]):
        r, g, b = density[i, 0], density[i, 1], density[i, 2]
        alone_h, alone_e = h0 * r + h1 * g + h2 * b - penalty, e0 * r + e1 * g + e2 * b - penalty
        h, e = (alone_h - cross * alone_e) / (1 - cross * cross), (alone_e - cross * alone_h) / (1 - cross * cross)
        if h < 0 or e < 0:  # then the best lies where one of them is 0
            h, e = (max(alone_h, 0.0), 0.0) if alone_h > alone_e else (0.0, max(alone_e, 0.0))
        among[0, 0] += h * h
        among[0, 1] += h * e
        among[1, 1] += e * e
        for c in range(3):
            with_density[0, c] += h * density[i, c]
            with_density[1, c] += e * density[i, c]
    among[1, 0] = among[0, 1]
    return among, with_density


def _step(vectors: np.ndarray, among: np.ndarray, with_density: np.ndarray) -> np.ndarray:
    """The best vectors for given concentrations, one after the other; a stain that is in no pixel stays as it is."""
    found = vectors.copy()
    for _ in range(3):
        for k in range(2):
            towards = np.maximum(with_density[k] - among[k, 1 - k] * found[1 - k], 0)
            length = np.sqrt((towards**2).sum())
            if length > 0:
                found[k] = towards / length
    return found


METHOD = Vahadane()
