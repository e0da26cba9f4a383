"""A 3 × 3 matrix on optical densities, as table look-ups and integer sums: the same bytes on every machine, thread and device.

``out_c = io · exp(Σ_k matrix[c, k] · ln((in_k + 1) / io))``. A product with the matrix becomes three look-ups and two
additions in fixed point, and the exponential one more look-up, so a pixel costs a few loads instead of logarithms.
The result is the rounded formula, or one grey level beside it where that lies within 0.04 of the middle between two.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

from wsikit import threads

if TYPE_CHECKING:
    from torch import Tensor

_STEPS = 4096  # of the exponential's table per unit of ln: 255 / 4096 / 2 = 0.03 grey levels at most
_SHIFT = 4  # sums carry 1/16 of a step more
_LOWEST = math.floor(math.log(0.5) * _STEPS)  # below it every grey level rounds to 0
_STRIP_PX = 2**20


class Tables(NamedTuple):
    """``density`` int32 (3 out, 3 in, 256), whose sums over ``in``, shifted, are places in ``grey`` uint8 (n,)."""

    density: np.ndarray
    grey: np.ndarray


def tables_of(matrix: np.ndarray, io: float) -> Tables:
    """The tables of a matrix (3, 3), rows are outputs."""
    return _tables(tuple(np.asarray(matrix, np.float64).ravel().tolist()), io)


@lru_cache(maxsize=16)
def _tables(matrix: tuple[float, ...], io: float) -> Tables:
    light = np.log((np.arange(256) + 1) / io)
    density = np.rint(np.array(matrix).reshape(3, 3, 1) * light * (_STEPS << _SHIFT))
    density[:, 0] += round(math.log(io) * (_STEPS << _SHIFT)) + (1 << (_SHIFT - 1)) - (_LOWEST << _SHIFT)
    places = np.arange(math.ceil(math.log(255.5) * _STEPS) - _LOWEST + 1)
    grey = np.clip(np.rint(np.exp((places + _LOWEST) / _STEPS)), 0, 255).astype(np.uint8)
    grey[0] = 0
    limit = np.iinfo(np.int32).max // 4  # three of them still add without overflow
    return Tables(np.clip(density, -limit, limit).astype(np.int32), grey)


def apply_tables(images: Tensor, tables: Tables) -> Tensor:
    """uint8 (..., 3) on any device; the same shape comes back."""
    import torch

    if images.device.type == "cpu":
        pixels = np.ascontiguousarray(images.numpy()).reshape(-1, 3)
        out = np.empty_like(pixels)
        step = max(4096, min(_STRIP_PX, -(-len(pixels) // threads.count())))
        threads.each(lambda at: _look_up(pixels[at : at + step], *tables, out[at : at + step]), range(0, len(pixels), step))
        return torch.from_numpy(out.reshape(images.shape))
    density, grey = (torch.from_numpy(t).to(images.device) for t in tables)
    parts = [_gather(part, density, grey) for part in images.reshape(-1, 3).split(_STRIP_PX)]
    return torch.cat(parts).reshape(images.shape) if parts else images


@numba.njit(cache=True, nogil=True)
def _look_up(pixels: np.ndarray, density: np.ndarray, grey: np.ndarray, out: np.ndarray) -> None:
    top = grey.shape[0] - 1
    for i in range(pixels.shape[0]):
        r, g, b = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        for c in range(3):
            place = (density[c, 0, r] + density[c, 1, g] + density[c, 2, b]) >> _SHIFT
            out[i, c] = grey[min(max(place, 0), top)]


def _gather(pixels: Tensor, density: Tensor, grey: Tensor) -> Tensor:
    import torch

    r, g, b = pixels.long().unbind(-1)
    places = [density[c, 0][r] + density[c, 1][g] + density[c, 2][b] for c in range(3)]
    return grey[(torch.stack(places, -1) >> _SHIFT).clamp(0, len(grey) - 1).long()]
