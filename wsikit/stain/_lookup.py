"""A 3 × 3 matrix on optical densities, as table look-ups and integer sums: the same bytes on every machine, thread and device.

``out_c = io · exp(Σ_k matrix[c, k] · ln((in_k + 1) / io)) − less``. Each input value has one entry of 64 bits that holds its share of
all three outputs, 21 bits each in fixed point: a pixel is three look-ups, two additions and three look-ups of the exponential.
The result is the rounded formula, or one grey level beside it where that lies within 0.06 of the middle between two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numba
import numpy as np

from wsikit import threads
from wsikit.stain import Images

if TYPE_CHECKING:
    from torch import Tensor

_STEPS = 8192  # of the exponential per unit of ln: three roundings of half a step are 0.05 of 255 grey levels
_BITS = 21
_STRIP_PX = 2**20


class Tables(NamedTuple):
    """``share`` int64 (3 in, 256): sums over the inputs hold three places, one in each of ``grey`` (3 × uint8 (n,))."""

    share: np.ndarray
    grey: tuple[np.ndarray, np.ndarray, np.ndarray]


def tables_of(matrix: np.ndarray, io: float, less: int = 0) -> Tables:
    """The tables of a matrix (3, 3), rows are outputs. With ``less`` 1 the identity matrix changes nothing; Macenko's programs have 0."""
    return _tables(tuple(np.asarray(matrix, np.float64).ravel().tolist()), io, less)


@lru_cache(maxsize=16)
def _tables(matrix: tuple[float, ...], io: float, less: int) -> Tables:
    light = np.array(matrix).reshape(3, 3, 1) * np.log((np.arange(256) + 1) / io)  # (out, in, 256)
    steps = _STEPS
    while (np.ptp(light, axis=2).sum(1) * steps).max() >= 2**_BITS - 4:  # a matrix that multiplies densities by a hundred
        steps //= 2
    place = np.rint(light * steps).astype(np.int64)
    lowest = place.min(2)
    place -= lowest[..., None]
    share = sum(place[c] << (_BITS * c) for c in range(3))
    greys = [_grey((np.arange(place[c].max(1).sum() + 1) + lowest[c].sum()) / steps, io, less) for c in range(3)]
    return Tables(np.asarray(share), (greys[0], greys[1], greys[2]))


def _grey(log_light: np.ndarray, io: float, less: int) -> np.ndarray:
    """Grey levels of logarithms of transmitted light."""
    return np.rint(np.exp(np.minimum(log_light, 1.0)) * io - less).clip(0, 255).astype(np.uint8)


def apply_tables(images: Images, tables: Tables) -> Images:
    """uint8 (..., 3), an array or a tensor on any device; the same comes back."""

    def gather(pixels: Tensor) -> Tensor:
        return _gather(pixels, on(pixels, tables.share), [on(pixels, g) for g in tables.grey])

    return by_strips(images, lambda pixels, out: _look_up(pixels, *tables, out), gather)


def by_strips(images: Images, cpu: Callable[[np.ndarray, np.ndarray], None], device: Callable[[Tensor], Tensor]) -> Images:
    """Apply what works on single pixels, uint8 (N, 3): ``cpu(pixels, out)`` in several threads, or ``device(pixels)`` where a tensor is elsewhere."""
    if isinstance(images, np.ndarray):
        pixels = np.ascontiguousarray(images).reshape(-1, 3)
        out = np.empty_like(pixels)
        step = max(4096, min(_STRIP_PX, -(-len(pixels) // threads.count())))
        threads.each(lambda at: cpu(pixels[at : at + step], out[at : at + step]), range(0, len(pixels), step))
        return out.reshape(images.shape)
    import torch

    if images.device.type == "cpu":
        return torch.from_numpy(by_strips(images.numpy(), cpu, device))
    parts = [device(part) for part in images.reshape(-1, 3).split(_STRIP_PX)]
    return torch.cat(parts).reshape(images.shape) if parts else images


def on(pixels: Tensor, table: np.ndarray) -> Tensor:
    """A table on the pixels' device."""
    import torch

    return torch.from_numpy(table).to(pixels.device)


@numba.njit(cache=True, nogil=True)
def _look_up(pixels: np.ndarray, share: np.ndarray, grey: tuple[np.ndarray, np.ndarray, np.ndarray], out: np.ndarray) -> None:
    first, second, third = grey
    red, green, blue = share[0], share[1], share[2]
    mask = (1 << _BITS) - 1
    for i in range(pixels.shape[0]):
        places = red[pixels[i, 0]] + green[pixels[i, 1]] + blue[pixels[i, 2]]
        out[i, 0] = first[places & mask]
        out[i, 1] = second[(places >> _BITS) & mask]
        out[i, 2] = third[places >> (2 * _BITS)]


def _gather(pixels: Tensor, share: Tensor, grey: Sequence[Tensor]) -> Tensor:
    import torch

    r, g, b = pixels.long().unbind(-1)
    places = share[0][r] + share[1][g] + share[2][b]
    return torch.stack([table[(places >> (_BITS * c)) & ((1 << _BITS) - 1)] for c, table in enumerate(grey)], -1)
