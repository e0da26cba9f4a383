"""What trained networks say, in NumPy: the same numbers in training, in evaluation and in a run, and no torch where risk is only applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Tensors = Mapping[str, np.ndarray]


def mlp(tensors: Tensors, x: np.ndarray) -> np.ndarray:
    """A network of layers ``0.weight`` (out, in), ``0.bias``, ``1.weight`` …, ReLU between them: float64 (n, out)."""
    h, last = x, max(int(k.split(".")[0]) for k in tensors)
    for i in range(last + 1):
        h = h @ tensors[f"{i}.weight"].T + tensors[f"{i}.bias"]
        h = np.maximum(h, 0) if i < last else h
    return np.asarray(h)


def discrete_survival(logits: np.ndarray, edges: np.ndarray, months: np.ndarray) -> np.ndarray:
    """Survival at some times from hazards σ(logit) of the intervals that end at ``edges``; linear inside an interval, constant after the last.

    Parameters
    ----------
    logits : float64 (n, K)
    edges : float64 (K,), ends of the intervals in months; the first begins at 0

    Returns
    -------
    float64 (n, T)
    """
    steps = np.concatenate([np.ones((len(logits), 1)), np.exp(-np.logaddexp(0, logits).cumsum(1))], 1)
    at = np.concatenate([[0.0], edges])
    return np.array([np.interp(months, at, s) for s in steps]).reshape(len(logits), len(months))


def attention(tensors: Tensors, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The attention of each tile of a bag (sums to 1), and the log risk that it stands for: float64 (N,) twice.

    Gated attention (Ilse et al. 2018) over ReLU(P · standardised feature): the bag's log risk is Σ attention · score.

    Parameters
    ----------
    tiles : float (N, D), features of a bag's tiles
    """
    logit, score = _attend(tensors, tiles)
    a = np.exp(logit - logit.max())
    return a / a.sum(), score


def _attend(tensors: Tensors, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = (tiles.astype(np.float64) - tensors["mean"]) / tensors["sd"]
    h = np.maximum(x @ tensors["project.weight"].T + tensors["project.bias"], 0)
    gate = np.tanh(h @ tensors["v.weight"].T + tensors["v.bias"]) / (1 + np.exp(-(h @ tensors["u.weight"].T + tensors["u.bias"])))
    return gate @ tensors["w.weight"][0], h @ tensors["head.weight"][0]


Sums = tuple[float, float, float]


def attention_sums(tensors: Tensors, tiles: np.ndarray) -> Sums:
    """Of some of a bag's tiles: the highest logit, and relative to it Σ weight and Σ weight · score. Parts of a bag are put together by `merge_sums`."""
    logit, score = _attend(tensors, tiles)
    weight = np.exp(logit - logit.max())
    return float(logit.max()), float(weight.sum()), float((weight * score).sum())


def merge_sums(parts: Sequence[Sums]) -> Sums:
    """The sums of all tiles of several parts of a bag."""
    top = max(p[0] for p in parts)
    scale = [float(np.exp(p[0] - top)) for p in parts]
    return top, sum(s * p[1] for s, p in zip(scale, parts, strict=True)), sum(s * p[2] for s, p in zip(scale, parts, strict=True))


def attention_log_risk(sums: Sums) -> float:
    """The log risk of a bag from its sums."""
    return sums[2] / sums[1]


def attention_risk(tensors: Tensors, bags: Sequence[np.ndarray]) -> np.ndarray:
    """The log risk of each bag: float64 (n,)."""
    return np.array([attention_log_risk(attention_sums(tensors, bag)) for bag in bags])
