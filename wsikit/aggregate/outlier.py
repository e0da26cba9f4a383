"""Does a tile look like anything that the model was calibrated on? How far its last features are from theirs, and the energy of its logits.

Distance: Mahalanobis (`wsikit.models._distance`), with the covariance shrunk as Ledoit and Wolf do. Energy: Liu et al., NeurIPS 2020 (−logsumexp of the
logits: high where no class is spoken for). Models whose rules are about their network's maps tell it themselves as they score (`wsikit.models._known`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wsikit.models._card import Card, Outliers, check_file
from wsikit.models._distance import squared_distance


def energy(feature: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """−logsumexp of the logits of features (N, D) under a last layer (K, D), (K,): float64 (N,)."""
    from scipy.special import logsumexp

    return -np.asarray(logsumexp(feature.astype(np.float64) @ weight.T.astype(np.float64) + bias, axis=1))


def outlying_tiles(rules: Outliers, tensors: Mapping[str, np.ndarray], feature: np.ndarray) -> np.ndarray:
    """Which tiles are beyond a threshold that 95 % of tiles of calibration patients keep: bool (N,)."""
    within = squared_distance(feature, tensors["mean"], tensors["precision"]) <= rules.distance
    if rules.energy is not None:
        within &= energy(feature, tensors["weight"], tensors["bias"]) <= rules.energy
    return np.asarray(~within)  # asked this way round, features that are no numbers are outlying too


def mark_tiles(card: Card, folder: Path, feature: np.ndarray) -> np.ndarray | None:
    """The outlying ones among the tiles of a slide, by a model's rules about its last features: uint8 (N,); None where the model has none of these.

    Raises
    ------
    WeightsMismatchError
        The model's file of known features is missing or is not the one that its card names.
    """
    rules = card.calibration.outliers if card.calibration else None
    if rules is None or rules.layers:
        return None
    if not len(feature):
        return np.empty(0, np.uint8)
    from safetensors.numpy import load_file

    return outlying_tiles(rules, load_file(check_file(folder, rules.file, rules.sha256)), feature).astype(np.uint8)
