"""Masks of many megapixels: grown by a step, and their connected parts by size, without a copy of more than a byte a pixel for long."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage as ndi

_STRIP_PX = 2**20


def strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of about a megapixel at a time."""
    rows = max(1, _STRIP_PX // max(1, shape[1]))
    for y in range(0, shape[0], rows):
        yield slice(y, min(y + rows, shape[0]))


def grown(mask: np.ndarray, steps: int = 1) -> np.ndarray:
    """A mask and what is at most so many steps up, down, left or right of it: bool (H, W). Outside the picture is nothing."""
    for _ in range(steps):
        out = mask.copy()
        out[1:] |= mask[:-1]
        out[:-1] |= mask[1:]
        out[:, 1:] |= mask[:, :-1]
        out[:, :-1] |= mask[:, 1:]
        mask = out
    return mask


def shrunk(mask: np.ndarray, steps: int = 1) -> np.ndarray:
    """A mask without what is at most so many steps from its edge; the edge of the picture is none: bool (H, W)."""
    return ~grown(~mask, steps)


def small(mask: np.ndarray, most_px: int, marked: np.ndarray | None = None, least: float = 0.0) -> np.ndarray:
    """The parts of a mask, joined along edges, that have at most so many pixels, or fewer marked ones than a share: bool (H, W)."""
    labels = np.empty(mask.shape, np.int32)
    found = ndi.label(mask, output=labels)
    size, marks = np.zeros(found + 1, np.int64), np.zeros(found + 1, np.int64)
    for rows in strips(mask.shape):
        size += np.bincount(labels[rows].ravel(), minlength=found + 1)
        if marked is not None:
            marks += np.bincount(labels[rows][marked[rows]], minlength=found + 1)
    chosen = (size <= most_px) | (marks < least * size)
    chosen[0] = False
    out = np.empty(mask.shape, bool)
    for rows in strips(mask.shape):
        np.take(chosen, labels[rows], out=out[rows])
    return out
