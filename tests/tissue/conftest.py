"""Phantoms at level 0 and at 8 µm/px, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from wsikit.resample import shrink
from wsikit.testing.phantom import Spec, Truth, make_phantom

Sections = Callable[[str], tuple[np.ndarray, Truth]]


@cache
def _section(subtype: str) -> tuple[np.ndarray, Truth]:
    rgb, truth = make_phantom(Spec(3, subtype, 2048, 1536))
    rgb.setflags(write=False)
    return rgb, truth


@pytest.fixture(scope="session")
def section() -> Sections:
    """The pixels (0.5 µm/px, read only) and the truth of a phantom of some kind: 2048 × 1536 px."""
    return _section


@pytest.fixture(scope="session")
def overview() -> Callable[[np.ndarray], np.ndarray]:
    """A phantom's picture, or mask, at 8 µm/px."""

    def at_8_um(level0: np.ndarray) -> np.ndarray:
        if level0.dtype == bool:
            return shrink(level0.astype(np.uint8)[..., None] * 255, 16)[..., 0] > 127
        return shrink(level0, 16)

    return at_8_um
