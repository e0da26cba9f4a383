"""Smoothed grey, chroma and tell-tale colours of a low-power picture, in one pass over its rows.

All arithmetic is on integers (1/64 grey levels), so a pixel comes out the same in whichever strip or thread makes it, and a
picture of 40 megapixels needs five bytes a pixel and not a hundred.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from wsikit import threads

GREY = 192  # the unit of `Look.grey`: R + G + B, each in 1/64 grey levels
CHROMA = 64  # the unit of `Look.chroma`
GREEN, BLUE, RED, BLACK = 2, 3, 4, 5
HINT = 8  # added to a colour's number: of its hue, but too faint to be sure of
BLACK_LEVEL, BLACK_CHROMA = 50, 25
FAINT = 5  # grey levels of chroma below which hue says nothing
_WEIGHT = 4096
_STRIP = 64


class Look(NamedTuple):
    """A smoothed picture, all (H, W).

    ``grey`` uint16 in 1/192, ``chroma`` (max − min of R, G, B) uint16 in 1/64 grey levels; ``colour`` uint8, one of GREEN (and cyan),
    BLUE, RED, BLACK, a HINT of green or blue, or 0 for what H&E and glass may be.
    """

    grey: np.ndarray
    chroma: np.ndarray
    colour: np.ndarray


def look(rgb: np.ndarray, sigma: tuple[float, float]) -> Look:
    """Look at a picture uint8 (H, W, 3) through a Gaussian of ``sigma`` px (y, x)."""
    shape, rgb = rgb.shape[:2], np.ascontiguousarray(rgb)
    found = Look(np.empty(shape, np.uint16), np.empty(shape, np.uint16), np.empty(shape, np.uint8))
    down, across = gaussian(sigma[0]), gaussian(sigma[1])

    def strip(y: int) -> None:
        _look(rgb, y, min(y + _STRIP, shape[0]), down, across, found)

    threads.each(strip, range(0, shape[0], _STRIP))
    return found


def gaussian(sigma: float) -> np.ndarray:
    """The weights of a Gaussian out to 4 σ, int32, of sum 4096."""
    radius = int(4 * sigma + 0.5)
    bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-6)) ** 2)
    half = np.diff(np.rint((bell / bell.sum()).cumsum()[:radius] * _WEIGHT), prepend=0)  # sums are rounded, so that none drifts
    return np.concatenate([half, [_WEIGHT - 2 * half.sum()], half[::-1]]).astype(np.int32)


@numba.njit(cache=True, nogil=True)
def _look(rgb: np.ndarray, start: int, stop: int, down: np.ndarray, across: np.ndarray, out: Look) -> None:
    height, width = rgb.shape[:2]
    flat = rgb.reshape(height, width * 3)
    above, left = down.size // 2, across.size // 2
    padded = np.empty((width + 2 * left) * 3, np.int32)
    row = padded[left * 3 : (left + width) * 3]
    smooth = np.empty(width * 3, np.int32)
    for y in range(start, stop):
        row[:] = 32
        for k in range(down.size):
            row += flat[min(max(y + k - above, 0), height - 1)] * down[k]
        row >>= 6
        for i in range(left * 3):
            padded[i] = row[i % 3]
            padded[padded.size - 1 - i] = row[row.size - 1 - i % 3]
        smooth[:] = _WEIGHT // 2
        for k in range(across.size):
            smooth += padded[3 * k : 3 * k + smooth.size] * across[k]
        smooth >>= 12
        for x in range(width):
            r, g, b = smooth[3 * x], smooth[3 * x + 1], smooth[3 * x + 2]
            chroma = max(r, g, b) - min(r, g, b)
            out.grey[y, x] = r + g + b
            out.chroma[y, x] = chroma
            out.colour[y, x] = _colour(r, g, b, chroma)


@numba.njit(cache=True, nogil=True)
def _colour(r: int, g: int, b: int, chroma: int) -> int:
    """By colours H&E never makes, of channels in 1/64 grey levels.

    H&E hues lie between blue-violet and red-pink. Green and cyan ink is known by hue; blue ink by blue far above both other channels
    with little red (haematoxylin keeps red above green); red ink and packed red cells by red far above two dark, equal channels
    (eosin keeps blue above green).
    """
    if r + g + b < BLACK_LEVEL * GREY and chroma < BLACK_CHROMA * CHROMA:
        return BLACK
    most = max(r, g, b)
    if chroma < FAINT * CHROMA or (r == most and chroma * 10 <= most * 6):
        return 0
    if b == most:
        degrees = 240 + 60 * (r - g) / chroma
    elif g == most:
        degrees = 120 + 60 * (b - r) / chroma
    else:
        degrees = (60 * (g - b) / chroma) % 360
    if 70 < degrees < 195:
        return GREEN if chroma * 100 > most * 18 else GREEN + HINT
    if 195 <= degrees < 245 and chroma * 10 > most * 3 and b - r > 40 * CHROMA and g >= r - 5 * CHROMA:
        return BLUE
    if 195 <= degrees < 240:
        return BLUE + HINT
    if (degrees < 12 or degrees > 350) and chroma * 10 > most * 6 and r - max(g, b) > 90 * CHROMA and abs(g - b) < 25 * CHROMA:
        return RED
    return 0
