"""When is an answer withheld, and why?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from wsikit.models._card import Card

PHANTOM_REASON = "the model was trained on phantoms (synthetic tissue) only, and this is a real slide; give a trained model with --model {pipeline}=FOLDER"

PHOTOGRAPHS_REASON = "the model was trained on photographs, not on tissue, so its classes mean nothing here; its features are in the tables"


def outside_domain(card: Card, is_phantom_slide: bool) -> str:
    """Why this model has nothing to say about this slide; empty when it does.

    A phantom model's numbers on real tissue would look like numbers, and mean nothing.
    """
    if card.trained_on.domain == "phantom" and not is_phantom_slide:
        return PHANTOM_REASON.format(pipeline=card.pipeline)
    return PHOTOGRAPHS_REASON if card.trained_on.domain == "photographs" else ""


def unknown_colours(card: Card, fit: Mapping[str, Any]) -> str:
    """Why a model that was trained on normalised colours has nothing to say about a slide with this stain fit; empty when it does."""
    if card.stain == "none" or fit["trusted"]:
        return ""
    return f"the model was trained on stain-normalised tissue, and this slide's stain cannot be measured: {fit['reason']}"


def poor_quality(tiles: Mapping[str, int]) -> str:
    """Why nothing is said about a slide with these numbers of tiles by what became of them (`wsikit.tissue.quality.REASONS`); empty when something is."""
    lost, used = tiles.get("pen or dense blood", 0) + tiles.get("scanner black", 0), tiles.get("used", 0)
    if lost <= used:
        return ""
    return f"quality: {lost} of {lost + used} tiles are under pen, dense blood or scanner black, more than are tissue; scan a clean slide"


def withheld_call(card: Card, probability: np.ndarray, n_tiles: int, outlying: float = 0.0) -> str:
    """Why a class cannot be named from these probabilities (K,), all reasons in words; empty when it can.

    ``outlying`` is the share of tiles that look like nothing that the model knows.
    """
    reasons, found = [], card.calibration
    if n_tiles < card.decision.min_tiles:
        reasons.append(f"only {n_tiles} tiles of tissue were scored, {card.decision.min_tiles} are needed")
    if found is not None and found.outliers is not None and outlying > found.outliers.share:
        reasons.append(
            f"out of distribution: {100 * outlying:.0f} % of the tiles look like nothing that the model was calibrated on (more than "
            f"{100 * found.outliers.share:.0f} %)"
        )
    if found is not None and found.conformal is not None:
        likely = prediction_set(card, probability)
        if len(likely) != 1:
            said = f"{', '.join(likely)} are all likely" if likely else "no class is likely enough"
            reasons.append(f"not one class: {said} at {100 * found.conformal.coverage:.0f} % coverage")
    if probability.max() < card.decision.min_probability:
        reasons.append(
            f"no class reaches probability {card.decision.min_probability:g}: the highest is {math.floor(1000 * probability.max() + 1e-3) / 1000:.3f}"
        )
    return "; ".join(reasons)


def prediction_set(card: Card, probability: np.ndarray) -> list[str]:
    """The classes that hold the true one in the stated share of patients (split conformal, see `wsikit.train.calibrate`), likeliest first.

    It holds for patients of the kind that the model was calibrated on; another site or scanner voids it.
    """
    assert card.calibration is not None
    assert card.calibration.conformal is not None
    cutoff = card.calibration.conformal.cutoff
    return [card.classes[i] for i in np.argsort(-probability, kind="stable") if 1 - probability[i] <= cutoff + 1e-9]


def tempered(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, K) as if the logits had been divided by a temperature (Guo et al., ICML 2017): float64 (N, K).

    >>> tempered(np.array([[0.8, 0.2]]), 2.0).round(4).tolist()
    [[0.6667, 0.3333]]
    """
    p = probability.astype(np.float64)
    if temperature == 1:
        return p
    z = np.log(np.maximum(p, np.finfo(np.float32).tiny)) / temperature
    z = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(z / z.sum(1, keepdims=True))


def doubt(probability: np.ndarray) -> float:
    """How undecided is a distribution (K,)? Entropy over its maximum: 0 certain, 1 all classes alike.

    >>> doubt(np.array([1.0, 0.0])), doubt(np.array([0.5, 0.5]))
    (0.0, 1.0)
    """
    p = probability[probability > 0].astype(np.float64)
    return max(0.0, float(-(p * np.log(p)).sum() / math.log(len(probability)))) if len(probability) > 1 else 0.0
