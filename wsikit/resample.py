"""What does the slide look like at another resolution? Area resampling, anchored at the origin.

Output pixel i is the mean of the source over ``[i·step, (i+1)·step)``, whatever window it is computed in,
and all arithmetic is on integers. So a pixel is the same bit for bit in whichever block, process or device
makes it, and nothing aliases. Positions are rounded to 1/256 of a source pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from wsikit import threads

_FRACTION = 256  # positions are kept in 1/256 source px
_GUARD = 16  # the first of two passes keeps 1/16 grey levels


def _position(index: np.ndarray | int, step: float) -> np.ndarray:
    """Left edges of output pixels in 1/256 source px, int64."""
    return np.rint(np.asarray(index, np.float64) * step * _FRACTION).astype(np.int64)


def source_span(start: int, count: int, step: float) -> tuple[int, int]:
    """Which source pixels do output pixels ``start .. start + count`` cover?

    Returns the half-open range (first, end); it may reach beyond the image on either side.

    >>> source_span(2, 3, 2.5)
    (5, 13)
    """
    first = int(_position(start, step)) // _FRACTION
    end = -(-int(_position(start + count, step)) // _FRACTION)
    return first, end


class AreaWeights(NamedTuple):
    """How much of each source pixel goes into each output pixel, along one axis.

    ``first`` int64 (n,): first source pixel of each output pixel, relative to the window;
    ``weight`` int32 (taps, n): 1/256 of a pixel; ``total`` int32 (n,): their sum.
    """

    first: np.ndarray
    weight: np.ndarray
    total: np.ndarray


def area_weights(start: int, count: int, step: float) -> AreaWeights:
    """Weights for ``count`` output pixels from ``start``, in the window ``source_span`` gives."""
    edges = _position(np.arange(start, start + count + 1), step)
    window = source_span(start, count, step)
    left, right = edges[:-1], edges[1:]
    first = left // _FRACTION
    taps = int((-(-right // _FRACTION) - first).max())
    pixel = (first[None] + np.arange(taps)[:, None]) * _FRACTION
    weight = np.minimum(right, pixel + _FRACTION) - np.maximum(left, pixel)
    weight = np.clip(weight, 0, None).astype(np.int32)
    return AreaWeights(first - window[0], weight, weight.sum(0, dtype=np.int32))


@numba.njit(cache=True, nogil=True)
def _weighted(image: np.ndarray, y: AreaWeights, x: AreaWeights, out: np.ndarray) -> None:
    """Output rows from a window: first down each column (kept in 1/16 grey levels), then along each row."""
    (y_first, y_weight, y_total), (x_first, x_weight, x_total) = y, x
    height, width, channels = image.shape
    flat = image.reshape(height, width * channels)
    row = np.empty(width * channels, np.int32)
    for j in range(out.shape[0]):
        row[:] = 0
        for tap in range(y_weight.shape[0]):
            weight = y_weight[tap, j]
            if weight:
                row += flat[min(y_first[j] + tap, height - 1)] * weight
        half, inverse = y_total[j] // 2, np.float64(y_total[j])
        for i in range(row.size):  # exact: these quotients are far from the precision of a float64
            row[i] = np.int32((row[i] * _GUARD + half) / inverse)
        for i in range(out.shape[1]):
            total = x_total[i] * _GUARD
            for c in range(channels):
                acc = total // 2
                for tap in range(x_weight.shape[0]):
                    acc += row[min(x_first[i] + tap, width - 1) * channels + c] * x_weight[tap, i]
                out[j, i, c] = np.uint8(acc / np.float64(total))


def resample(image: np.ndarray, start_xy: tuple[int, int], count_xy: tuple[int, int], step_xy: tuple[float, float]) -> np.ndarray:
    """The window's pixels at a coarser (or barely finer) resolution.

    Parameters
    ----------
    image : uint8 (H, W, C)
        Exactly the window that `source_span` gives for both axes.
    start_xy, count_xy
        First output pixel, and how many, counted from the slide's origin.
    step_xy
        Source pixels per output pixel.

    Returns
    -------
    uint8 (count_y, count_x, C)

    >>> resample(np.arange(4, dtype=np.uint8).reshape(1, 4, 1) * 10, (0, 0), (2, 1), (2.0, 1.0))[0, :, 0].tolist()
    [5, 25]
    """
    (x, y), (w, h), (sx, sy) = start_xy, count_xy, step_xy
    if (sx, sy) == (1.0, 1.0):
        return image
    if sx == sy and float(sx).is_integer() and int(sx) <= 64:
        return shrink(image, int(sx))
    down, across = area_weights(y, h, sy), area_weights(x, w, sx)
    out = np.empty((h, w, image.shape[2]), np.uint8)
    image = np.ascontiguousarray(image)

    def strip(rows: slice) -> None:
        part = AreaWeights(down.first[rows], np.ascontiguousarray(down.weight[:, rows]), down.total[rows])
        _weighted(image, part, across, out[rows])

    threads.each(strip, _strips(h))
    return out


def _strips(rows: int) -> list[slice]:
    step = max(16, -(-rows // threads.count()))
    return [slice(at, min(at + step, rows)) for at in range(0, rows, step)]


@numba.njit(cache=True, nogil=True)
def _mean(image: np.ndarray, factor: int, out: np.ndarray) -> None:
    height, width, channels = image.shape
    flat = image.reshape(height, width * channels)
    row = np.empty(width * channels, np.uint16)  # holds 257 rows of 255
    half, area = np.uint32(factor * factor // 2), np.float64(factor * factor)
    for j in range(out.shape[0]):
        row[:] = 0
        for k in range(factor):
            row += flat[j * factor + k]
        for i in range(out.shape[1]):
            for c in range(channels):
                total = half
                at = i * factor * channels + c
                for _ in range(factor):
                    total += row[at]
                    at += channels
                out[j, i, c] = np.uint8(total / area)  # exact: far from the precision of a float64


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean of ``factor × factor`` pixels, rounded half up; sides must be whole multiples.

    uint8 (H, W, C) → uint8 (H / factor, W / factor, C)
    """
    h, w, c = image.shape
    out = np.empty((h // factor, w // factor, c), np.uint8)
    image = np.ascontiguousarray(image)
    threads.each(lambda rows: _mean(image[rows.start * factor : rows.stop * factor], factor, out[rows]), _strips(h // factor))
    return out
