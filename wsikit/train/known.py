"""Tiles of tissue that a model is to know, as its own network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsikit.models import load_network, read_card
from wsikit.models._known import map_layers, means, watch
from wsikit.models._network import TileClassifier
from wsikit.train.calibrate import MOST_TILES, KnownTiles
from wsikit.train.labels import Labelled
from wsikit.train.tiles import Source, drawn


def known_tissue(folder: Path, items: Sequence[Labelled], device: str = "cpu") -> KnownTiles | None:
    """Tiles of labelled slides with the means of a network's maps as features, to learn what tissue it knows; None where it has no maps.

    At most about `MOST_TILES` of slides, evenly spread over their tissue; of tile images all. ``probability`` has no column.

    Raises
    ------
    SlideError
        A slide cannot be used.
    LabelsError
        An image is smaller than a tile.
    """
    card = read_card(folder)
    model = load_network(card.model_copy(update={"calibration": None}), folder, device)
    layers = map_layers(model) if isinstance(model, TileClassifier) else []
    if not layers or not items:
        return None
    assert isinstance(model, TileClassifier)
    watch(model.body, layers)
    owner, pending, parts = list[int](), list[np.ndarray](), list[np.ndarray]()
    for i, tile in drawn([Source(i.path, i.mpp, f"{i.patient} {i.site}") for i in items], card, -(-MOST_TILES // len(items))):
        owner.append(i)
        pending.append(tile)
        if len(pending) == card.batch:
            parts.append(means(model, np.stack(pending)))
            pending.clear()
    parts += [means(model, np.stack(pending))] if pending else []
    if not parts:
        return None
    label, patient = np.array([card.classes.index(i.label) for i in items], np.int64), np.array([i.patient for i in items], dtype=str)
    return KnownTiles(np.empty((len(owner), 0)), np.concatenate(parts), label[owner], patient[owner], len(items), layers)
