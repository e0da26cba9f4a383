"""What is the risk of a slide or patient? A Cox (or logistic) model on what the other pipelines found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.aggregate.counting import Counting, counting_behind
from wsikit.aggregate.features import Inputs, is_measured, measured
from wsikit.errors import CardError
from wsikit.models._card import SIGNATURE, Card, Risk, read_card
from wsikit.models._risk import INTERCEPT, INTERVAL, TENSORS, networks_of, read_coefficients
from wsikit.resolution import parse_number
from wsikit.store import SlideStore
from wsikit.survival.cox import survival_interval
from wsikit.survival.curves import Z95
from wsikit.survival.follow_up import MISSING
from wsikit.survival.forward import attention_log_risk, mlp
from wsikit.survival.groups import group_of

FAR = 6.0  # standard deviations from the mean training patient


@dataclass(frozen=True)
class CoxRisk:
    """A fitted Cox model: ``risk = β · (x − mean) / sd``, the log hazard ratio to the mean training patient (log odds ratio of a yes/no outcome).

    ``beta``, ``mean``, ``sd`` float64 (F,), in the order of ``card.risk.features``; ``time_months`` and ``cumulative_hazard`` float64
    (T,) are Breslow's baseline at the mean. ``more`` holds what else the folder has, see `wsikit.models._risk.read_coefficients`.
    """

    card: Card
    beta: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    time_months: np.ndarray
    cumulative_hazard: np.ndarray
    more: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def spec(self) -> Risk:
        """What the card says of the risk."""
        assert self.card.risk is not None
        return self.card.risk

    def survival(self, risk: float, months: float) -> float:
        """Probability of no event by ``months``: exp(−H0(t) · exp(risk))."""
        i = int(np.searchsorted(self.time_months, months, side="right")) - 1
        baseline = float(self.cumulative_hazard[i]) if i >= 0 else 0.0
        return math.exp(-baseline * math.exp(risk))

    def interval(self, z: np.ndarray) -> list[tuple[float, float]]:
        """The 95 % interval of survival at each of the card's horizons; empty where the model does not carry what it takes."""
        if INTERVAL[1] not in self.more:
            return []
        steps = np.searchsorted(self.time_months, self.spec.horizons_months, side="right")
        hazard = np.concatenate([[0.0], self.cumulative_hazard])[steps]
        low, high = survival_interval(self.beta, self.more["covariance"], z[None], hazard, self.more["horizon_variance"], self.more["horizon_slope"])
        return list(zip(low[0].tolist(), high[0].tolist(), strict=True))

    def probability(self, z: np.ndarray) -> tuple[float, float, float]:
        """Of a yes, with its 95 % interval."""
        x = np.concatenate([[1.0], z])
        odds = float(self.more[INTERCEPT][0] + z @ self.beta)
        half = Z95 * math.sqrt(float(x @ self.more["covariance"] @ x))
        p, low, high = (1 / (1 + math.exp(-v)) for v in (odds, odds - half, odds + half))
        return p, low, high


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
    found = read_coefficients(card, folder)
    nothing = np.empty(0)
    beta, mean, sd, months, hazard = (found.pop(k, nothing) for k in TENSORS)
    return CoxRisk(card, beta, mean, sd, months, hazard, found)


def needed_inputs(model: CoxRisk, store: SlideStore) -> Inputs | None:
    """What this model needs that is measured on a slide's tiles; None when nothing is."""
    spec = model.spec
    names = [*spec.features, *(spec.signature.inputs if spec.signature else [])]
    tiles = spec.signature is not None and spec.signature.kind == "attention"
    wanted = [n for n in names if is_measured(n)]
    if not wanted and not tiles:
        return None
    networks = networks_of(dict(model.more)) if tiles else []
    return measured(store, wanted, networks, spec.signature.pipeline if spec.signature else "")


def features_of(pipelines: Mapping[str, Mapping[str, Any]], tissue_mm2: float) -> dict[str, float]:
    """Numbers that survival models may use, by name, from a slide's or patient's pipeline results.

    ``tissue_mm2``; for classifiers ``<pipeline>.p_<class>``, ``<pipeline>.share_<class>`` and ``<pipeline>.doubt``; for mitoses
    ``mitosis.per_mm2`` and ``mitosis.hotspot_per_mm2``. See `wsikit.aggregate.features.FORMULAS`.
    """
    out = {"tissue_mm2": tissue_mm2}
    for name, result in pipelines.items():
        out |= {f"{name}.p_{c}": p for c, p in result.get("probability", {}).items()}
        out |= {f"{name}.share_{c}": p for c, p in result.get("tile_share", {}).items()}
        if result.get("doubt") is not None:
            out[f"{name}.doubt"] = result["doubt"]
        if result.get("per_mm2") is not None:
            out[f"{name}.per_mm2"] = result["per_mm2"]
            out[f"{name}.hotspot_per_mm2"] = result["hotspot"]["per_mm2"]
    return out


def model_inputs(features: Mapping[str, float], names: list[str], log1p: list[str]) -> np.ndarray:
    """The features of a model in its order, log(1 + x) of those it wants so: float64 (F,)."""
    return np.array([math.log1p(features[n]) if n in log1p else features[n] for n in names], np.float64)


def predict_risk(
    model: CoxRisk,
    pipelines: Mapping[str, Mapping[str, Any]],
    tissue_mm2: float,
    inputs: Inputs | None = None,
    facts: Mapping[str, str] | None = None,
    counting: Counting | None = None,
) -> dict[str, Any]:
    """Risk, group and survival at the card's horizons, or why there is none.

    Parameters
    ----------
    pipelines : results with their ``model.digest``: a survival model is refused on the results of another model than those it was trained on
    inputs : what was measured on tiles, where the model needs it
    facts : clinical columns of the case, as the CSV has them
    counting : how these results were counted; as the models say by default. Another window or region than the training patients' is refused
    """
    spec = model.spec
    if withheld := _refused(spec, pipelines) or _counted_otherwise(spec, counting or Counting()) or _not_meant(spec, pipelines):
        return withheld
    given = inputs or Inputs()
    found = features_of(pipelines, tissue_mm2) | dict(given.features)
    coded, problem = clinical_numbers(spec.clinical, facts or {})
    found |= coded
    if spec.signature is not None and not problem:
        score, problem = _signature(model, given, found)
        found[SIGNATURE] = score
    if problem:
        return _none("abstained", problem)
    missing = [n for n in spec.features if n not in found and not n.endswith(" missing")]
    if missing:
        return _none("abstained", f"no value for {', '.join(missing)}: {given.reason or 'because the pipeline that makes it abstained'}")
    found |= {n: 0.0 for n in spec.features if n not in found}  # nothing is missing
    z = (model_inputs(found, spec.features, spec.log1p) - model.mean) / model.sd
    if far := _outside(z, spec.features):
        return _none("abstained", far)
    risk = float(z @ model.beta)
    return {
        "status": "ok",
        "reason": "",
        "risk": round(risk, 6),
        "group": group_of(risk, spec.cutoffs),
        "cutoff": spec.cutoff,
        "cutoff_origin": spec.cutoff_origin,
        "endpoint": spec.endpoint,
        **_predicted(model, risk, z),
        "features": {n: round(found[n], 6) for n in [*spec.features, *(spec.signature.inputs if spec.signature else [])] if n in found},
    }


def _predicted(model: CoxRisk, risk: float, z: np.ndarray) -> dict[str, Any]:
    """Survival at each horizon, or the probability of a yes, with intervals."""
    if model.spec.outcome == "yes-no":
        p, low, high = model.probability(z)
        return {"survival": {}, "event_probability": round(p, 6), "event_probability_interval": [round(low, 6), round(high, 6)]}
    names = [f"{m:g} months" for m in model.spec.horizons_months]
    out: dict[str, Any] = {"survival": {n: round(model.survival(risk, m), 6) for n, m in zip(names, model.spec.horizons_months, strict=True)}}
    intervals = zip(names, model.interval(z), strict=False)
    known = {n: [round(low, 6), round(high, 6)] for n, (low, high) in intervals if math.isfinite(low) and math.isfinite(high)}
    return out | ({"survival_interval": known} if known else {})


def clinical_numbers(columns: Mapping[str, Sequence[str]], facts: Mapping[str, str]) -> tuple[dict[str, float], str]:
    """Clinical columns as a model has them (numbers, and 0 or 1 for each kind but the first), and what is wrong with one, if anything is.

    >>> clinical_numbers({"age": [], "depth": ["deep", "superficial"]}, {"age": "61", "depth": "superficial"})
    ({'age': 61.0, 'depth=superficial': 1.0}, '')
    """
    out: dict[str, float] = {}
    for name, kinds in columns.items():
        text = facts.get(name, "").strip()
        if text.lower() in MISSING:
            return {}, f"no value for {name}: give it as a column '{name}' of the cases CSV"
        number = parse_number(text)
        if kinds and text not in kinds:
            return {}, f"{name} '{text}' is none of the kinds that the model knows: {', '.join(kinds)}"
        if not kinds and (number is None or not math.isfinite(number)):
            return {}, f"{name} '{text}' is not a number"
        out |= {f"{name}={k}": float(k == text) for k in kinds[1:]} if kinds else {name: float(number or 0.0)}
    return out, ""


def _signature(model: CoxRisk, inputs: Inputs, found: Mapping[str, float]) -> tuple[float, str]:
    """The mean score of the model's networks, or why there is none."""
    wanted, networks = model.spec.signature, networks_of(dict(model.more))
    assert wanted is not None
    if wanted.kind == "attention":
        if not inputs.attention:
            return math.nan, f"no value for {SIGNATURE}: {inputs.reason or f'no tile of pipeline {wanted.pipeline} was scored'}"
        return float(np.mean([attention_log_risk(sums) for sums in inputs.attention])), ""
    if missing := [n for n in wanted.inputs if n not in found and not n.endswith(" missing")]:
        return math.nan, f"no value for {', '.join(missing)}: {inputs.reason or 'because the pipeline that makes it abstained'}"
    x = model_inputs(dict.fromkeys(wanted.inputs, 0.0) | dict(found), wanted.inputs, model.spec.log1p)
    z = (x - networks[0]["input_mean"]) / networks[0]["input_sd"]
    if far := _outside(z, wanted.inputs):
        return math.nan, far
    outputs = [mlp({k: v for k, v in n.items() if not k.startswith("input_")}, z[None])[0] for n in networks]
    return float(np.mean([o[0] if wanted.kind == "deepsurv" else math.log(float(np.logaddexp(0, o).sum())) for o in outputs])), ""


def _outside(z: np.ndarray, names: Sequence[str]) -> str:
    if (np.abs(z) <= FAR).all():  # so, and not > 6, because NaN must not pass
        return ""
    return f"{names[int(np.abs(z).argmax())]} is far outside of what the model was trained on"


def _refused(spec: Risk, pipelines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
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
    return None


def _counted_otherwise(spec: Risk, counting: Counting) -> dict[str, Any] | None:
    """A density in a smaller window is higher, and probabilities inside a tumour are not those of all tissue: coefficients are of the one or the other."""
    names = [*spec.features, *(spec.signature.inputs if spec.signature else []), *([f"{spec.condition.pipeline}.call"] if spec.condition else [])]
    here = counting_behind(names, counting)
    if here == spec.counting:
        return None
    there, found = (", ".join(f"{k} {v}" for k, v in said.items()) or "as the models say" for said in (spec.counting, here))
    return _none("refused", f"it was trained on answers counted with: {there}; these are counted with: {found}. Count as it was trained (wsikit aggregate)")


def _not_meant(spec: Risk, pipelines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """For whom the model is not meant: its condition does not hold, or nobody can tell whether it does."""
    if spec.condition is None:
        return None
    result = pipelines.get(spec.condition.pipeline)
    if result is None:
        return _none("refused", f"it is for {spec.condition.call} only; score pipeline '{spec.condition.pipeline}' in the same run")
    if result.get("call") != spec.condition.call:
        called = f"calls {result['call']}" if result.get("call") else f"makes no call ({result['reason']})"
        return _none("abstained", f"not applicable: it is for {spec.condition.call} only, and {spec.condition.pipeline} {called}")
    return None


def _none(status: str, reason: str) -> dict[str, Any]:
    return {"status": status, "reason": reason, "risk": None, "group": ""}
