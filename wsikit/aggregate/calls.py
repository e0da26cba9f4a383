"""Which class is the slide, and the patient? Mean probability over tissue tiles, with its doubt.

The rule is the toolkit's default: neither Foersch 2021 nor Zhang 2022 publish theirs. The share of tiles won by each
class, DeepPATH's second rule, is given beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wsikit.aggregate.doubt import doubt, prediction_set, tempered, withheld_call
from wsikit.models._card import Card

TELLING = 8


def call_slide(card: Card, probability: np.ndarray, outlying: np.ndarray | None = None, attention: np.ndarray | None = None) -> dict[str, Any]:
    """The call of a slide from its tiles' probabilities, float32 (N, K), and which of them look like nothing known, (N,).

    Returns ``status`` (``ok`` or ``abstained``), ``reason``, ``call`` (empty when withheld), ``probability`` and
    ``tile_share`` by class, ``doubt`` and ``n_tiles``. Without any tile, or with a tile that the model gave no number,
    there are no probabilities. With the ``attention`` of each tile (N,), logits, the slide is
    their weighted mean (`bag_probability`). A calibrated model's probabilities are at its temperature, and there are also ``set``, ``coverage`` (see
    `prediction_set`) and ``outlying``, the share of outlying tiles, where it has rules for them.
    """
    n = len(probability)
    if n == 0:
        return _decided(card, None, np.zeros(len(card.classes)), 0)
    known = np.isfinite(probability).all(1) & (True if attention is None else np.isfinite(attention))
    if odd := n - int(known.sum()):
        reason = f"the model gave no number for {odd} of {n} tiles: it is damaged, or its arithmetic overflows on this device"
        return _decided(card, None, np.zeros(len(card.classes)), n, reason)
    share = np.bincount(probability.argmax(1), minlength=len(card.classes)) / n
    temperature = card.calibration.temperature if card.calibration else 1.0
    strange = None if outlying is None else float(np.mean(outlying != 0))
    if attention is not None:
        return _decided(card, tempered(bag_probability(probability, attention)[None], temperature)[0], share, n, outlying=strange)
    return _decided(card, tempered(probability, temperature).mean(0), share, n, outlying=strange)


def bag_probability(probability: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """A slide's probabilities from its tiles' by gated attention (Ilse et al. 2018; see `wsikit.models._mil`): float64 (K,).

    Parameters
    ----------
    probability : float32 (N, K), softmax of each tile's logits
    attention : float32 (N,), logits

    Examples
    --------
    >>> bag_probability(np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([0.0, -1e9])).round(3).tolist()
    [0.9, 0.1]
    """
    # softmax leaves a constant per tile out of its logits, which weights that sum to 1 keep a constant
    logits = attention_weights(attention) @ log_probability(probability)
    p = np.exp(logits - logits.max())
    return np.asarray(p / p.sum())


def attention_weights(attention: np.ndarray) -> np.ndarray:
    """How much each tile counts in a slide's logits, from the attention of all (N,), logits: float64 (N,), which sum to 1.

    >>> attention_weights(np.array([0.0, 0.0, -1e9])).tolist()
    [0.5, 0.5, 0.0]
    """
    a = np.exp(attention.astype(np.float64) - attention.max(initial=-np.inf))
    return np.asarray(a / a.sum())


def log_probability(probability: np.ndarray) -> np.ndarray:
    """Logits up to a constant for each tile: float64 (N, K)."""
    return np.log(np.maximum(probability.astype(np.float64), 1e-30))


def telling_tiles(
    card: Card, probability: np.ndarray, origin: np.ndarray, size: np.ndarray, result: dict[str, Any], attention: np.ndarray | None = None
) -> dict[str, Any]:
    """The tiles that speak most for the most probable class of a slide, and most against it: ``class``, and up to 8 each of x, y, w, h (level-0 px), p.

    Parameters
    ----------
    probability : float32 (N, K); ``origin`` int64 (N, 2) and ``size`` (N, 2) in level-0 px
    result : that of `call_slide`; without probabilities there are no such tiles
    attention : (N,), logits. With them a tile speaks by what it adds to the slide's logit of the class beyond the mean of all classes: one that is
        hardly looked at says nothing, however sure it is
    """
    if not result["probability"]:
        return {}
    name = max(card.classes, key=result["probability"].__getitem__)
    k = card.classes.index(name)
    p = speaks = probability[:, k]
    if attention is not None:
        logits = log_probability(probability)
        speaks = attention_weights(attention) * (logits[:, k] - logits.mean(1))
    order = np.argsort(-speaks, kind="stable")

    def told(rows: np.ndarray) -> list[list[float]]:
        return [[*map(float, origin[i]), *(round(float(v), 2) for v in size[i]), round(float(p[i]), 4)] for i in rows]

    n = min(TELLING, len(p) // 2)
    return {"tiles": {"class": name, "for": told(order[:n]), "against": told(order[::-1][:n])}}


def call_patient(card: Card, slides: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The call of a patient from the results of `call_slide`: their mean weighted by number of tiles, or each alike where a slide is called as one."""
    tiles = sum(s["n_tiles"] for s in slides if s["probability"])
    whole = card.architecture.get("name") == "mil"
    weights = np.array([(1 if whole else s["n_tiles"]) if s["probability"] else 0 for s in slides], np.float64)
    if weights.sum() == 0:
        return _decided(card, None, np.zeros(len(card.classes)), 0)
    used = [(w, s) for w, s in zip(weights, slides, strict=True) if w > 0]
    mean, share = (sum(w * np.array([s[key][c] for c in card.classes]) for w, s in used) / weights.sum() for key in ("probability", "tile_share"))
    known = [(w, s["outlying"]) for w, s in used if s.get("outlying") is not None]
    strange = sum(w * o for w, o in known) / sum(w for w, _ in known) if known else None
    return _decided(card, np.asarray(mean), np.asarray(share), tiles, outlying=strange)


def _decided(
    card: Card,
    mean: np.ndarray | None,
    share: np.ndarray,
    n: int,
    nothing: str = "no tile of the slide holds enough tissue",
    outlying: float | None = None,
) -> dict[str, Any]:
    reason = nothing if mean is None else withheld_call(card, mean, n, outlying or 0.0)
    return _sets(card, mean, outlying) | {
        "status": "abstained" if reason else "ok",
        "reason": reason,
        "call": "" if reason or mean is None else card.classes[int(mean.argmax())],
        "probability": {} if mean is None else {c: round(float(p), 6) for c, p in zip(card.classes, mean, strict=True)},
        "tile_share": {c: round(float(s), 6) for c, s in zip(card.classes, share, strict=True)},
        "doubt": None if mean is None else round(doubt(mean), 6),
        "n_tiles": n,
    }


def _sets(card: Card, mean: np.ndarray | None, outlying: float | None) -> dict[str, Any]:
    """What a calibrated model says beyond its probabilities; nothing for another one."""
    if card.calibration is None or mean is None:
        return {}
    conformal = card.calibration.conformal
    found: dict[str, Any] = {} if conformal is None else {"set": prediction_set(card, mean), "coverage": conformal.coverage}
    return found | ({} if outlying is None else {"outlying": round(outlying, 6)})
