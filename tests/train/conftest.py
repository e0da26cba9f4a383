"""Small phantoms and small networks: enough to train for seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsikit.models import Card
from wsikit.testing.phantom import Spec, Truth, write_phantom
from wsikit.train.tiles import Source, draw_to_disk

ABOUT = {"domain": "phantom", "description": "a test", "slides": 6, "patients": 6}


@dataclass(frozen=True)
class Sheet:
    """A phantom slide of a patient."""

    path: Path
    patient: str
    truth: Truth


@pytest.fixture(scope="session")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> list[Sheet]:
    """Three patients each of two kinds of tissue that are easy to tell apart."""
    folder = tmp_path_factory.mktemp("sheets")
    found = []
    for n, subtype in enumerate(["UPS", "SS"] * 3):
        path = folder / f"{n}-{subtype}.tif"
        found.append(Sheet(path, f"P{n}", write_phantom(path, Spec(70 + n, subtype, 1024, 768, mitoses_per_mm2=90))))
    return found


@pytest.fixture
def draw_tiles(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Tiles as training draws them, each time into a file of its own."""
    folder, number = tmp_path_factory.mktemp("tiles"), count()

    def draw(slides: Sequence[Source], card: Card, per_slide: int) -> tuple[np.ndarray, np.ndarray]:
        return draw_to_disk(slides, card, per_slide, folder / f"{next(number)}.tiles")

    return draw


@pytest.fixture
def classifier_fields() -> dict[str, Any]:
    """A DenseNet of a few thousand weights on 64 px tiles."""
    tiny = {"name": "densenet", "growth_rate": 4, "block_config": [1, 1], "num_init_features": 8, "bn_size": 2}
    return {
        "name": "tiny", "pipeline": "sts-subtype", "task": "classify", "classes": ["SS", "UPS"], "architecture": tiny, "mpp": 1.0, "tile_px": 64,
        "batch": 8, "licence": "none", "trained_on": ABOUT, "decision": {"min_probability": 0.5, "min_tiles": 1},
    }  # fmt: skip


@pytest.fixture
def detector_fields() -> dict[str, Any]:
    """The smallest YOLOX on 128 px tiles."""
    return {
        "name": "tiny", "pipeline": "mitosis", "task": "detect", "classes": ["mitosis"], "architecture": {"name": "yolox", "depth": 0.33, "width": 0.125},
        "mpp": 0.5, "tile_px": 128, "overlap_px": 32, "min_tissue": 0.0, "batch": 8, "licence": "none", "trained_on": ABOUT,
        "detection": {"threshold": 0.5}, "scaling": {"mean": [0, 0, 0], "std": [1, 1, 1]},
    }  # fmt: skip
