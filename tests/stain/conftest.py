"""Pixels whose stains are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


def stained(vectors: np.ndarray, n: int = 40_000, strength: tuple[float, float] = (1.6, 1.2), seed: int = 0) -> np.ndarray:
    """uint8 (n, 3) of two stains, a part of them pure: Macenko's assumption, met exactly."""
    rng = np.random.default_rng(seed)
    amount = rng.uniform(0.1, 1, (n, 2)) * strength
    pure = n // 8
    amount[:pure] = np.stack([rng.uniform(0.4, 1, pure) * strength[0], np.zeros(pure)], 1)
    amount[pure : 2 * pure] = np.stack([np.zeros(pure), rng.uniform(0.7, 1, pure) * strength[1]], 1)
    light = 240 * np.exp(-amount @ vectors) - 1
    return light.round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def make_stained() -> Callable[..., np.ndarray]:
    return stained
