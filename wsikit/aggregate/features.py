"""Numbers of a slide that survival models may use, beyond its pipelines' answers: what was measured on its tiles. Each with its formula and unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsikit.aggregate import pathomics
from wsikit.store import SlideStore
from wsikit.survival.forward import Tensors, attention_sums, merge_sums

FORMULAS: dict[str, tuple[str, str]] = {
    "tissue_mm2": ("mm²", "area of the tissue mask; of a patient, of all slides together"),
    "<classifier>.p_<class>": ("1", "mean probability over the tissue tiles; of a patient, over those of all slides"),
    "<classifier>.share_<class>": ("1", "share of the tissue tiles whose most probable class it is"),
    "<classifier>.doubt": ("1", "entropy of the mean probabilities over its maximum"),
    "<classifier>.f<number>": ("the network's", "mean of one of the network's features over the tissue tiles"),
    "mitosis.per_mm2": ("1/mm²", "mitoses at or above the model's threshold over the area of tissue"),
    "mitosis.hotspot_per_mm2": ("1/mm²", "the same in the densest window; of a patient, of the densest slide with a whole window, where there is one"),
    "quality.<kind>": ("1", "share of the slide (folds: of its tissue) that is of this kind, see the quality stage"),
    **{f"pathomics.{name}": about for name, about in pathomics.FORMULAS.items()},
}


@dataclass(frozen=True)
class Inputs:
    """What was measured on tiles, of a slide or of several slides together.

    Attributes
    ----------
    features : by name
    weight : how many tiles they are the mean of
    attention : of each network, (highest logit, Σ weight, Σ weight · score) over the tiles: sums that slides can be put together from
    reason : why something is not there
    """

    features: Mapping[str, float] = field(default_factory=dict)
    weight: float = 0.0
    attention: Sequence[tuple[float, float, float]] = ()
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """For a slide's result."""
        return {"features": dict(self.features), "weight": self.weight, "attention": [list(s) for s in self.attention], "reason": self.reason}


def is_measured(name: str) -> bool:
    """Whether a feature is measured on tiles, and not one of the pipelines' answers.

    >>> is_measured("sts-subtype.f12"), is_measured("pathomics.eosin"), is_measured("mitosis.per_mm2")
    (True, True, False)
    """
    owner, _, own = name.partition(".")
    return owner in ("quality", "pathomics") or (own[:1] == "f" and own[1:].isdigit())


def read_inputs(value: Mapping[str, Any]) -> Inputs:
    """The inverse of `Inputs.to_json`."""
    return Inputs(value["features"], value["weight"], [(s[0], s[1], s[2]) for s in value["attention"]], value["reason"])


def measured(store: SlideStore, wanted: Iterable[str], networks: Sequence[Tensors] = (), pipeline: str = "") -> Inputs:
    """Of a slide: those of ``wanted`` that are measured on tiles, and the sums of the attention ``networks`` over the tiles of ``pipeline``."""
    names, tables = list(wanted), store.tables()
    found: dict[str, float] = {}
    reason, weight = "", 0
    for owner, table in tables.items():
        mine = [n for n in names if n.startswith(f"{owner}.f") and n.removeprefix(f"{owner}.f").isdigit()]
        if mine and "feature" in table:
            values = table["feature"].astype(np.float64)
            weight = max(weight, len(values))
            found |= {n: float(values[:, int(n.rsplit("f", 1)[1])].mean()) for n in mine if len(values)}
    shares = store.attributes["survey"]["shares"]
    found |= {n: float(shares[n.removeprefix("quality.")]) for n in names if n.removeprefix("quality.") in shares and n.startswith("quality.")}
    if any(n.startswith("pathomics.") for n in names):
        values_, reason = pathomics.of_slide(store)
        found |= {f"pathomics.{n}": v for n, v in values_.items() if f"pathomics.{n}" in names}
    sums: list[tuple[float, float, float]] = []
    if networks and pipeline in tables and len(tables[pipeline]["feature"]):
        tiles = tables[pipeline]["feature"]
        weight = max(weight, len(tiles))
        sums = [attention_sums(n, tiles) for n in networks]
    return Inputs(found, float(weight or 1), sums, reason)


def together(slides: Sequence[Inputs]) -> Inputs:
    """Several slides of a patient: means weighted by tiles, and attention as if all tiles were of one slide."""
    names = sorted({n for s in slides for n in s.features})
    out = {}
    for name in names:
        pairs = [(s.weight, s.features[name]) for s in slides if name in s.features]
        out[name] = sum(w * v for w, v in pairs) / sum(w for w, _ in pairs)
    with_tiles = [s.attention for s in slides if s.attention]
    sums = [merge_sums(parts) for parts in zip(*with_tiles, strict=True)] if with_tiles else []
    return Inputs(out, sum(s.weight for s in slides), sums, next((s.reason for s in slides if s.reason), ""))


def bag(store: SlideStore, pipeline: str) -> np.ndarray:
    """The features of a slide's tiles: float32 (N, D); none where the pipeline has no table."""
    tables = store.tables()
    return tables[pipeline]["feature"].astype(np.float32) if pipeline in tables and "feature" in tables[pipeline] else np.empty((0, 0), np.float32)


def all_names(store: SlideStore) -> list[str]:
    """Every name that `measured` knows of a slide."""
    out = [f"quality.{k}" for k in store.attributes["survey"]["shares"]]
    for owner, table in store.tables().items():
        if "feature" in table:
            out += [f"{owner}.f{i}" for i in range(table["feature"].shape[1])]
    return out + [f"pathomics.{n}" for n in pathomics.FORMULAS]
