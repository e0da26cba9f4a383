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


def withheld_call(card: Card, probability: np.ndarray, n_tiles: int) -> str:
    """Why a class cannot be named from these probabilities (K,); empty when it can."""
    if n_tiles < card.decision.min_tiles:
        return f"only {n_tiles} tiles of tissue were scored, {card.decision.min_tiles} are needed"
    if probability.max() < card.decision.min_probability:
        return f"no class reaches probability {card.decision.min_probability:g}: the highest is {probability.max():.2f}"
    return ""


def doubt(probability: np.ndarray) -> float:
    """How undecided is a distribution (K,)? Entropy over its maximum: 0 certain, 1 all classes alike.

    >>> doubt(np.array([1.0, 0.0])), doubt(np.array([0.5, 0.5]))
    (0.0, 1.0)
    """
    p = probability[probability > 0].astype(np.float64)
    return max(0.0, float(-(p * np.log(p)).sum() / math.log(len(probability)))) if len(probability) > 1 else 0.0
