"""Which class is the slide, and the patient? Mean probability over tissue tiles, with its doubt.

The rule is the toolkit's default: neither Foersch 2021 nor Zhang 2022 publish theirs. The share of tiles won by each
class, DeepPATH's second rule, is given beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsikit.aggregate.doubt import doubt, withheld_call
from wsikit.models._card import Card


def call_slide(card: Card, probability: np.ndarray) -> dict[str, Any]:
    """The call of a slide from its tiles' probabilities, float32 (N, K).

    Returns ``status`` (``ok`` or ``abstained``), ``reason``, ``call`` (empty when withheld), ``probability`` and
    ``tile_share`` by class, ``doubt`` and ``n_tiles``. Without any tile, or with a tile that the model gave no number,
    there are no probabilities.
    """
    n = len(probability)
    if n == 0:
        return _decided(card, None, np.zeros(len(card.classes)), 0)
    if odd := n - int(np.isfinite(probability).all(1).sum()):
        reason = f"the model gave no number for {odd} of {n} tiles: it is damaged, or its arithmetic overflows on this device"
        return _decided(card, None, np.zeros(len(card.classes)), n, reason)
    share = np.bincount(probability.argmax(1), minlength=len(card.classes)) / n
    return _decided(card, probability.mean(0, dtype=np.float64), share, n)


def call_patient(card: Card, slides: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The call of a patient from the results of `call_slide`: their mean weighted by number of tiles."""
    weights = np.array([s["n_tiles"] if s["probability"] else 0 for s in slides], np.float64)
    if weights.sum() == 0:
        return _decided(card, None, np.zeros(len(card.classes)), 0)
    used = [(w, s) for w, s in zip(weights, slides, strict=True) if w > 0]
    mean, share = (sum(w * np.array([s[key][c] for c in card.classes]) for w, s in used) / weights.sum() for key in ("probability", "tile_share"))
    return _decided(card, np.asarray(mean), np.asarray(share), int(weights.sum()))


def _decided(card: Card, mean: np.ndarray | None, share: np.ndarray, n: int, nothing: str = "no tile of the slide holds enough tissue") -> dict[str, Any]:
    reason = nothing if mean is None else withheld_call(card, mean, n)
    return {
        "status": "abstained" if reason else "ok",
        "reason": reason,
        "call": "" if reason or mean is None else card.classes[int(mean.argmax())],
        "probability": {} if mean is None else {c: round(float(p), 6) for c, p in zip(card.classes, mean, strict=True)},
        "tile_share": {c: round(float(s), 6) for c, s in zip(card.classes, share, strict=True)},
        "doubt": None if mean is None else round(doubt(mean), 6),
        "n_tiles": n,
    }
