"""Reinhard colour transfer, fitted once per slide: the mean and spread of L*, a*, b* become the reference's.

Reinhard et al., "Color transfer between images", IEEE CG&A 21(5), 2001, in CIELAB (D65) as histolab, torchstain and
TIAToolbox have it (the paper's own space is lαβ). It knows no stains, so a slide with other shares of nuclei and
stroma than the reference gets other colours: prefer Macenko or Vahadane where their fits are trusted.

What absorbs in no colour is glass: it is not counted in the fit and stays as it is, with a smooth step from one to
the other. All that depends on the fit is in tables and a few single-precision products and sums, in an order that is
written down, so a pixel is the same on every device; it is the rounded formula, or rarely the grey level beside it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np
from skimage.color import rgb2lab

from wsikit.stain import Images, StainFit
from wsikit.stain._lookup import by_strips, on
from wsikit.stain.macenko import BETA, MIN_PIXELS, optical_density

if TYPE_CHECKING:
    from torch import Tensor

# Published with DeepPATH, in this space; real slides after Macenko to its reference have about the same (60, 22, −9; 15, 6, 5).
REFERENCE_MEAN, REFERENCE_STD = (57.0, 22.0, -8.0), (20.0, 10.0, 5.0)
MAX_GAIN = 4.0  # a spread that must grow more is noise
CHROMA = (4.0, 65.0)
HUE_DEG = (-75.0, 30.0)  # blue-violet nuclei to orange-pink eosin
GLASS = 0.05  # optical density up to which a pixel stays as it is; from `BETA` on it is changed in full

_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])
_LIGHT_STEPS, _GREY_STEPS = 2**16, 2**15
_CUT, _OFFSET, _SLOPE = np.float32(0.2068966), np.float32(16 / 116), np.float32(1 / 7.787)  # below the cut, a line stands for the cube
_HALF, _ZERO = np.float32(0.5), np.float32(0)
_CHUNK_PX = 1024
_STRIP_PX = 2**20


class Tables(NamedTuple):
    """Everything that a pixel needs.

    ``light`` int32 (3 of X, Y, Z; 3 in; 256), whose sums over ``in`` are places in ``root``, float32 (n,): the root that L*a*b* is
    linear in. ``line`` float32 (3, 2), gain and offset of L*, a*, b* there; ``back`` float32 (3 out, 3) from X, Y, Z to places in
    ``grey`` uint8 (n,). ``weight`` int32 (256,): by the least of R, G, B, how much of 256 is changed.
    """

    light: np.ndarray
    root: np.ndarray
    line: np.ndarray
    back: np.ndarray
    grey: np.ndarray
    weight: np.ndarray


class Reinhard:
    """Mean and spread in CIELAB."""

    name = "reinhard"

    def fit(self, pixels: np.ndarray) -> StainFit:
        """Mean and standard deviation of L*, a*, b* of tissue pixels, uint8 (N, 3); untrusted fits say why."""
        stained = pixels[(optical_density(pixels) >= BETA).any(1)]
        if len(stained) < MIN_PIXELS:
            return self._untrusted(f"only {len(stained)} stained pixels, {MIN_PIXELS} are needed", len(stained))
        lab = rgb2lab(stained[None] / 255.0)[0]
        mean, std = lab.mean(0), lab.std(0)
        if reason := implausible(mean, std):
            return self._untrusted(reason, len(stained))
        return StainFit(method=self.name, trusted=True, mean=np.round(mean, 6).tolist(), std=np.round(std, 6).tolist(), pixels=len(stained))

    def _untrusted(self, reason: str, pixels: int) -> StainFit:
        return StainFit(method=self.name, trusted=False, reason=reason, pixels=pixels)

    def apply(self, images: Images, fit: StainFit) -> Images:
        """Normalise uint8 (..., 3) in CIELAB; the identity for an untrusted fit."""
        return apply_tables(images, tables_of(fit)) if fit.trusted else images


def implausible(mean: np.ndarray, std: np.ndarray) -> str:
    """Why these cannot be of haematoxylin and eosin, or cannot be scaled; empty when they can."""
    if (std * MAX_GAIN < REFERENCE_STD).any():
        return "the pixels have hardly more than one colour, so their spread cannot be scaled"
    if not CHROMA[0] <= math.hypot(mean[1], mean[2]) <= CHROMA[1] or not HUE_DEG[0] <= math.degrees(math.atan2(mean[2], mean[1])) <= HUE_DEG[1]:
        return "the mean colour is outside the wedge of haematoxylin and eosin"
    return ""


def tables_of(fit: StainFit) -> Tables:
    """The tables of a trusted fit."""
    target = fit.target.fit if fit.target else None
    mean, std = (target.mean, target.std) if target else (REFERENCE_MEAN, REFERENCE_STD)
    return _tables(tuple(fit.mean), tuple(fit.std), tuple(mean), tuple(std))


@lru_cache(maxsize=16)
def _tables(mean: tuple[float, ...], std: tuple[float, ...], to_mean: tuple[float, ...], to_std: tuple[float, ...]) -> Tables:
    value = np.arange(256) / 255
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    light = (_XYZ / _WHITE[:, None])[:, :, None] * linear * _LIGHT_STEPS
    step = np.arange(_LIGHT_STEPS + 4) / _LIGHT_STEPS  # three rounded parts of white may add to more than it
    root = np.where(step > 0.008856, np.cbrt(step), 7.787 * step + 16 / 116)
    # L* = 116 y − 16, a* = 500 (x − y), b* = 200 (y − z) for the roots x, y, z
    gain = np.array(to_std) / np.array(std)
    offset = ((-16 - mean[0]) * gain[0] + to_mean[0] + 16) / 116, (to_mean[1] - gain[1] * mean[1]) / 500, (to_mean[2] - gain[2] * mean[2]) / 200
    level = np.arange(_GREY_STEPS + 1) / _GREY_STEPS
    grey = 255 * np.where(level > 0.0031308, 1.055 * level ** (1 / 2.4) - 0.055, 12.92 * level)
    weight = np.clip((optical_density(np.arange(256)) - GLASS) / (BETA - GLASS), 0, 1)
    return Tables(
        np.rint(light).astype(np.int32),
        root.astype(np.float32),
        np.stack([gain, offset], 1).astype(np.float32),
        (np.linalg.inv(_XYZ) * _WHITE * _GREY_STEPS).astype(np.float32),
        np.rint(grey).astype(np.uint8),
        np.rint(weight * 256).astype(np.int32),
    )


def apply_tables(images: Images, tables: Tables) -> Images:
    """uint8 (..., 3), an array or a tensor on any device; the same comes back."""
    return by_strips(images, lambda pixels, out: _transfer(pixels, *tables, out), lambda pixels: _gather(pixels, *(on(pixels, t) for t in tables)))


@numba.njit(cache=True, nogil=True)
def _transfer(
    pixels: np.ndarray, light: np.ndarray, root: np.ndarray, line: np.ndarray, back: np.ndarray, grey: np.ndarray, weight: np.ndarray, out: np.ndarray
) -> None:
    """In three passes over each chunk, because the one in the middle becomes vector instructions when it stands alone."""
    roots, places = np.zeros((3, _CHUNK_PX), np.float32), np.zeros((3, _CHUNK_PX), np.int32)
    for start in range(0, pixels.shape[0], _CHUNK_PX):
        chunk, out_chunk = pixels[start : start + _CHUNK_PX], out[start : start + _CHUNK_PX]
        _roots_of(chunk, light, root, roots)
        _places_of(roots, line, back, np.float32(grey.shape[0] - 1), places)
        _greys_at(chunk, places, grey, weight, out_chunk)


@numba.njit(cache=True, nogil=True)
def _roots_of(pixels: np.ndarray, light: np.ndarray, root: np.ndarray, roots: np.ndarray) -> None:
    for i in range(pixels.shape[0]):
        r, g, b = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        roots[0, i] = root[light[0, 0, r] + light[0, 1, g] + light[0, 2, b]]
        roots[1, i] = root[light[1, 0, r] + light[1, 1, g] + light[1, 2, b]]
        roots[2, i] = root[light[2, 0, r] + light[2, 1, g] + light[2, 2, b]]


@numba.njit(cache=True, nogil=True)
def _places_of(roots: np.ndarray, line: np.ndarray, back: np.ndarray, top: np.float32, places: np.ndarray) -> None:
    # read once: the compiler cannot know that writing places does not change them
    gain_l, to_l, gain_a, to_a, gain_b, to_b = line[0, 0], line[0, 1], line[1, 0], line[1, 1], line[2, 0], line[2, 1]
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = back[0, 0], back[0, 1], back[0, 2], back[1, 0], back[1, 1], back[1, 2], back[2, 0], back[2, 1], back[2, 2]
    for i in range(roots.shape[1]):
        y = gain_l * roots[1, i] + to_l
        x = y + (gain_a * (roots[0, i] - roots[1, i]) + to_a)
        z = y - (gain_b * (roots[1, i] - roots[2, i]) + to_b)
        x = x * x * x if x > _CUT else (x - _OFFSET) * _SLOPE
        y = y * y * y if y > _CUT else (y - _OFFSET) * _SLOPE
        z = z * z * z if z > _CUT else (z - _OFFSET) * _SLOPE
        places[0, i] = np.int32(min(max(m00 * x + m01 * y + m02 * z + _HALF, _ZERO), top))
        places[1, i] = np.int32(min(max(m10 * x + m11 * y + m12 * z + _HALF, _ZERO), top))
        places[2, i] = np.int32(min(max(m20 * x + m21 * y + m22 * z + _HALF, _ZERO), top))


@numba.njit(cache=True, nogil=True)
def _greys_at(pixels: np.ndarray, places: np.ndarray, grey: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    for i in range(pixels.shape[0]):
        r, g, b = np.int32(pixels[i, 0]), np.int32(pixels[i, 1]), np.int32(pixels[i, 2])
        w = weight[min(r, g, b)]
        out[i, 0] = r + ((w * (np.int32(grey[places[0, i]]) - r) + 128) >> 8)
        out[i, 1] = g + ((w * (np.int32(grey[places[1, i]]) - g) + 128) >> 8)
        out[i, 2] = b + ((w * (np.int32(grey[places[2, i]]) - b) + 128) >> 8)


def _gather(pixels: Tensor, light: Tensor, root: Tensor, line: Tensor, back: Tensor, grey: Tensor, weight: Tensor) -> Tensor:
    """`_transfer` on another device, operation by operation."""
    import torch

    r, g, b = pixels.long().unbind(-1)
    x0, y0, z0 = (root[(light[c, 0][r] + light[c, 1][g] + light[c, 2][b]).long()] for c in range(3))
    y = line[0, 0] * y0 + line[0, 1]
    x = y + (line[1, 0] * (x0 - y0) + line[1, 1])
    z = y - (line[2, 0] * (y0 - z0) + line[2, 1])
    x, y, z = (torch.where(v > float(_CUT), v * v * v, (v - float(_OFFSET)) * float(_SLOPE)) for v in (x, y, z))
    places = torch.stack([back[c, 0] * x + back[c, 1] * y + back[c, 2] * z + 0.5 for c in range(3)], -1)
    new = grey[places.clamp(0, len(grey) - 1).long()].int()
    old = pixels.int()
    return (old + ((weight[pixels.amin(-1).long()][:, None] * (new - old) + 128) >> 8)).byte()


METHOD = Reinhard()
