"""The survival risk again, from answers that people had a part in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsikit.aggregate.counting import Counting
from wsikit.aggregate.doubt import outside_domain
from wsikit.aggregate.features import Inputs
from wsikit.aggregate.survival import CoxRisk, predict_risk
from wsikit.models._card import Risk


def rests_on(spec: Risk) -> set[str]:
    """What a risk is made of: pipelines by name, ``tissue_mm2``, ``pathomics``, clinical columns.

    >>> sorted(rests_on(Risk(endpoint="OS", features=["mitosis.per_mm2", "age"], models={}, cutoff=0.0, cutoff_origin="median")))
    ['age', 'mitosis']
    """
    owners = {name.partition(".")[0] for name in _features(spec)}
    owners |= {spec.condition.pipeline} if spec.condition else set()
    return owners | ({spec.signature.pipeline} if spec.signature and spec.signature.pipeline else set())


def follows(spec: Risk, touched: set[str], edited: bool) -> bool:
    """Whether a risk changes with what people said: of the pipelines ``touched``, or, where regions were ``edited``, of the tissue."""
    return bool(rests_on(spec) & (touched | ({"tissue_mm2", "pathomics"} if edited else set())))


def risk_again(
    model: CoxRisk,
    answers: Mapping[str, Mapping[str, Any]],
    tissue_mm2: float,
    inputs: Inputs | None,
    facts: Mapping[str, str] | None,
    *,
    edited: bool,
    phantom: bool,
    counting: Counting | None = None,
) -> dict[str, Any]:
    """The risk by the model's own rules from answers as reviewed, each with its ``model``; or why there is none.

    There is none where a person overruled a call on whose probabilities it rests, since these remain the model's; where a model withheld its count,
    and only what people confirmed is counted; nor where regions were ``edited`` and it needs what was measured on the tiles of the whole tissue.
    """
    if reason := outside_domain(model.card, phantom) or _no_longer(model.spec, answers, edited):
        return {"status": "abstained", "reason": reason, "risk": None, "group": ""}
    return predict_risk(model, answers, tissue_mm2, inputs, facts, counting)


def _features(spec: Risk) -> list[str]:
    return [*spec.features, *(spec.signature.inputs if spec.signature else [])]


def _no_longer(spec: Risk, answers: Mapping[str, Mapping[str, Any]], edited: bool) -> str:
    seen = spec.signature.pipeline if spec.signature and spec.signature.kind == "attention" else ""
    for name, answer in answers.items():
        said = answer.get("verdict")
        if said and said["verdict"] == "overruled" and "count" not in answer and (name == seen or any(f.startswith(f"{name}.") for f in _features(spec))):
            return f"it rests on the probabilities of {name}, whose call a person overruled"
        if answer.get("withheld") and any(f.startswith(f"{name}.") for f in _features(spec)):
            return f"it rests on {name}, whose model withheld its answer: only what people confirmed is counted"
    if edited and (seen or any(_of_tiles(name) for name in _features(spec))):
        return "people changed regions, and it needs what was measured on the tiles of the whole tissue"
    return ""


def _of_tiles(name: str) -> bool:
    owner, _, own = name.partition(".")
    return owner == "pathomics" or (own[:1] == "f" and own[1:].isdigit())
