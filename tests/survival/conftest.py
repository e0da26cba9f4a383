"""Follow-up to test with: drawn from a known hazard, with ties and censoring."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from wsikit.survival.follow_up import FollowUp


def draw(n: int, seed: int, effect: float = 1.0, decimals: int = 1) -> tuple[np.ndarray, FollowUp]:
    """A covariate with this log hazard ratio, and follow-up with ties."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    time, censored = rng.exponential(40 * np.exp(-effect * x)), rng.uniform(10, 90, n)
    observed = np.round(np.minimum(time, censored), decimals).clip(0.5)
    return x, FollowUp(np.array([f"P{i:03d}" for i in range(n)]), observed, time <= censored, "OS")


@pytest.fixture(scope="session")
def train() -> FollowUp:
    return draw(220, 1)[1]


@pytest.fixture(scope="session")
def test() -> tuple[np.ndarray, FollowUp]:
    """Risks (some tied) and follow-up of other patients."""
    x, follow = draw(130, 2)
    return np.round(x + np.random.default_rng(3).normal(size=130), 1), follow


@pytest.fixture(scope="session")
def sksurv() -> Callable[[str], ModuleType]:
    """A module of scikit-survival by its name, as an oracle."""
    return lambda name: pytest.importorskip(f"sksurv.{name}", reason="scikit-survival needs ecos, which has no wheel for Python 3.13")
