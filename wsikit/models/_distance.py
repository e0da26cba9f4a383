"""How far are features from those of known tissue? Mahalanobis, Lee et al., NeurIPS 2018, for all classes together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsikit.errors import ModelError
from wsikit.models._card import Outliers, check_file

_ROWS = 1024


def squared_distance(feature: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """The squared Mahalanobis distance of features (N, D) from a mean (D,) under a precision matrix (D, D): float64 (N,).

    >>> squared_distance(np.array([[3.0, 0.0]]), np.zeros(2), np.eye(2)).tolist()
    [9.0]
    """
    out = np.empty(len(feature))
    for start in range(0, len(feature), _ROWS):
        away = feature[start : start + _ROWS].astype(np.float64) - mean
        out[start : start + _ROWS] = ((away @ precision.astype(np.float64, copy=False)) * away).sum(1)
    return out


@dataclass(frozen=True)
class Known:
    """Tissue that a model knows: mean (D,) and precision (D, D) of its features, and the squared distance that 95 % of it keep."""

    mean: np.ndarray
    precision: np.ndarray
    limit: float

    @classmethod
    def read(cls, rules: Outliers, folder: Path) -> Known:
        """From the file of a model folder.

        Raises
        ------
        WeightsMismatchError
            The file is missing or is not the one that the card names.
        """
        from safetensors.numpy import load_file

        tensors = load_file(check_file(folder, rules.file, rules.sha256))
        return cls(tensors["mean"].astype(np.float64), tensors["precision"].astype(np.float64), rules.distance)

    def outlying(self, feature: np.ndarray) -> np.ndarray:
        """Which tiles are further than the limit, by their features (N, D): uint8 (N,).

        Raises
        ------
        ModelError
            These are not the features that it was learnt on.
        """
        if not len(feature):
            return np.empty(0, np.uint8)
        if feature.shape[1:] != self.mean.shape:
            raise ModelError(f"its rules for outlying tiles are for {len(self.mean)} features, its network gives {feature.shape[1]}; calibrate the model again")
        within = squared_distance(feature, self.mean, self.precision) <= self.limit
        return (~within).astype(np.uint8)  # features that are no numbers are outlying too
