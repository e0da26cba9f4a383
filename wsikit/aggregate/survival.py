"""What is the risk of a slide or patient? A Cox model on what the other pipelines found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from wsikit.errors import CardError, WeightsMismatchError
from wsikit.models._card import Card, check_weights, read_card

TENSORS = ("beta", "mean", "sd", "time_months", "cumulative_hazard")


@dataclass(frozen=True)
class CoxRisk:
    """A fitted Cox model: ``risk = β · (x − mean) / sd``, the log hazard ratio to the mean training patient.

    ``beta``, ``mean``, ``sd`` float64 (F,), in the order of ``card.risk.features``; ``time_months`` and ``cumulative_hazard`` float64
    (T,) are Breslow's baseline at the mean.
    """

    card: Card
    beta: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    time_months: np.ndarray
    cumulative_hazard: np.ndarray

    def survival(self, risk: float, months: float) -> float:
        """Probability of no event by ``months``: exp(−H0(t) · exp(risk))."""
        i = int(np.searchsorted(self.time_months, months, side="right")) - 1
        baseline = float(self.cumulative_hazard[i]) if i >= 0 else 0.0
        return math.exp(-baseline * math.exp(risk))


def load_risk(folder: Path) -> CoxRisk:
    """The survival model of a folder.

    Raises
    ------
    CardError, WeightsMismatchError
        The card or the coefficients are missing, or do not fit each other.
    """
    card = read_card(folder)
    if card.risk is None:
        raise CardError(f"{folder}: the card is of task '{card.task}', not of a survival model")
    try:
        tensors = load_file(check_weights(card, folder))
    except SafetensorError as e:
        raise WeightsMismatchError(f"{folder}: the coefficients are not a safetensors file ({e})") from e
    n = len(card.risk.features)
    if set(tensors) != set(TENSORS) or any(tensors[k].shape != (n,) for k in TENSORS[:3]) or tensors[TENSORS[3]].shape != tensors[TENSORS[4]].shape:
        raise WeightsMismatchError(f"{folder}: the coefficients are not those of the {n} features that the card names")
    return CoxRisk(card, *(tensors[k].astype(np.float64) for k in TENSORS))


def features_of(pipelines: Mapping[str, Mapping[str, Any]], tissue_mm2: float) -> dict[str, float]:
    """Numbers that survival models may use, by name, from a slide's or patient's pipeline results.

    ``tissue_mm2``; for classifiers ``<pipeline>.p_<class>`` and ``<pipeline>.doubt``; for mitoses ``mitosis.per_mm2`` and
    ``mitosis.hotspot_per_mm2``.
    """
    out = {"tissue_mm2": tissue_mm2}
    for name, result in pipelines.items():
        out |= {f"{name}.p_{c}": p for c, p in result.get("probability", {}).items()}
        if result.get("doubt") is not None:
            out[f"{name}.doubt"] = result["doubt"]
        if result.get("per_mm2") is not None:
            out[f"{name}.per_mm2"] = result["per_mm2"]
            out[f"{name}.hotspot_per_mm2"] = result["hotspot"]["per_mm2"]
    return out


def model_inputs(features: Mapping[str, float], names: list[str], log1p: list[str]) -> np.ndarray:
    """The features of a model in its order, log(1 + x) of those it wants so: float64 (F,)."""
    return np.array([math.log1p(features[n]) if n in log1p else features[n] for n in names], np.float64)


def predict_risk(model: CoxRisk, pipelines: Mapping[str, Mapping[str, Any]], tissue_mm2: float) -> dict[str, Any]:
    """Risk, group and survival at the card's horizons, or why there is none.

    ``pipelines`` are results with their ``model.digest``: a survival model is refused on the results of another model than those
    it was trained on.
    """
    spec = model.card.risk
    assert spec is not None
    for name, digest in spec.models.items():
        result = pipelines.get(name)
        if result is None:
            return _none("refused", f"it needs the results of pipeline '{name}'; score it in the same run")
        if result["model"]["digest"] != digest:
            return _none(
                "refused",
                f"it was trained on '{name}' results of model {digest[:12]}, these are of {result['model']['name']} ({result['model']['digest'][:12]})",
            )
        if result["status"] == "refused":
            return _none("refused", f"pipeline '{name}' was refused: {result['reason']}")
    found = features_of(pipelines, tissue_mm2)
    missing = [n for n in spec.features if n not in found]
    if missing:
        return _none("abstained", f"no value for {', '.join(missing)}, because the pipeline that makes it abstained")
    z = (model_inputs(found, spec.features, spec.log1p) - model.mean) / model.sd
    if not (np.abs(z) <= 6).all():  # so, and not > 6, because NaN must not pass
        return _none("abstained", f"{spec.features[int(np.abs(z).argmax())]} is far outside of what the model was trained on")
    risk = float(z @ model.beta)
    return {
        "status": "ok",
        "reason": "",
        "risk": round(risk, 6),
        "group": "high" if risk > spec.cutoff else "low",
        "cutoff": spec.cutoff,
        "cutoff_origin": spec.cutoff_origin,
        "endpoint": spec.endpoint,
        "survival": {f"{m:g} months": round(model.survival(risk, m), 6) for m in spec.horizons_months},
        "features": {n: round(found[n], 6) for n in spec.features},
    }


def _none(status: str, reason: str) -> dict[str, Any]:
    return {"status": status, "reason": reason, "risk": None, "group": ""}
