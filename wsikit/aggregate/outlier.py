"""Does a tile look like anything that the model was calibrated on? Nearest neighbours among its features, and the energy of its logits.

Nearest neighbours: Sun et al., ICML 2022 (distance to the k-th neighbour of the unit-length feature). Energy: Liu et al., NeurIPS 2020 (−logsumexp of the
logits: high where no class is spoken for).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wsikit.models._card import Card, Outliers, check_file

_ROWS = 1024


def unit(feature: np.ndarray) -> np.ndarray:
    """Features (N, D) at length 1, float32; those of length 0 stay."""
    f = feature.astype(np.float32)
    length = np.linalg.norm(f, axis=1, keepdims=True)
    return f / np.where(length > 0, length, 1)


def neighbour_distance(feature: np.ndarray, bank: np.ndarray, neighbours: int) -> np.ndarray:
    """The distance of each feature (N, D) to its k-th nearest in a bank (M, D), all at unit length: float32 (N,), 0 to 2.

    >>> neighbour_distance(np.eye(2), np.eye(2), 1).tolist()
    [0.0, 0.0]
    """
    known, k = unit(bank), min(neighbours, len(bank)) - 1
    out = np.empty(len(feature), np.float32)
    for start in range(0, len(feature), _ROWS):
        squared = 2 - 2 * unit(feature[start : start + _ROWS]) @ known.T
        out[start : start + _ROWS] = np.sqrt(np.maximum(np.partition(squared, k, axis=1)[:, k], 0))
    return out


def energy(feature: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """−logsumexp of the logits of features (N, D) under a last layer (K, D), (K,): float64 (N,)."""
    from scipy.special import logsumexp

    return -np.asarray(logsumexp(feature.astype(np.float64) @ weight.T.astype(np.float64) + bias, axis=1))


def outlying_tiles(rules: Outliers, tensors: Mapping[str, np.ndarray], feature: np.ndarray) -> np.ndarray:
    """Which tiles are beyond a threshold that 95 % of tiles of calibration patients keep: bool (N,)."""
    beyond = neighbour_distance(feature, tensors["bank"], rules.neighbours) > rules.distance
    if rules.energy is not None:
        beyond |= energy(feature, tensors["weight"], tensors["bias"]) > rules.energy
    return np.asarray(beyond)


def mark_tiles(card: Card, folder: Path, feature: np.ndarray) -> np.ndarray | None:
    """The outlying ones among the tiles of a slide, by a model's own rules: uint8 (N,); None where the model has none.

    Raises
    ------
    WeightsMismatchError
        The model's file of known features is missing or is not the one that its card names.
    """
    rules = card.calibration.outliers if card.calibration else None
    if rules is None:
        return None
    if not len(feature):
        return np.empty(0, np.uint8)
    from safetensors.numpy import load_file

    return outlying_tiles(rules, load_file(check_file(folder, rules.file, rules.sha256)), feature).astype(np.uint8)
