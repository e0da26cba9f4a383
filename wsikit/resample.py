"""What does the slide look like at another resolution? Area resampling, anchored at the origin.

Output pixel i is the mean of the source over ``[i·step, (i+1)·step)``, whatever window it is computed in,
and all arithmetic is on integers. So a pixel is the same bit for bit in whichever block, process or device
makes it, and nothing aliases. Positions are rounded to 1/256 of a source pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True)
class AreaWeights:
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


def _pass(image: np.ndarray, w: AreaWeights, axis: int, gain: int, divisor: int) -> np.ndarray:
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    last = image.shape[axis] - 1
    acc = np.zeros((), np.int32)
    for tap, weight in enumerate(w.weight):
        rows = np.take(image, np.minimum(w.first + tap, last), axis=axis)
        acc = acc + rows * weight.reshape(shape)
    total = (w.total * divisor).reshape(shape)
    return (acc * gain + total // 2) // total


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
    rows = _pass(image, area_weights(y, h, sy), 0, _GUARD, 1)
    return _pass(rows, area_weights(x, w, sx), 1, 1, _GUARD).astype(np.uint8)


def shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean of ``factor × factor`` pixels, rounded half up; sides must be whole multiples.

    uint8 (H, W, C) → uint8 (H / factor, W / factor, C)
    """
    h, w, c = image.shape
    # rows first: contiguous adds over uint16 (which hold 257 pixels) are an order faster than a 5-d sum
    rows = image.reshape(h // factor, factor, w, c).sum(1, dtype=np.uint16)
    total = rows.reshape(h // factor, w // factor, factor, c).sum(2, dtype=np.uint32)
    return ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)
