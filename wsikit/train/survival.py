"""Write survival models: a fitted recipe as a folder of card and coefficients, which a run can apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsikit.errors import LabelsError
from wsikit.metrics import concordance_index
from wsikit.models._card import SIGNATURE, Card, Risk, write_model
from wsikit.models._risk import INTERCEPT
from wsikit.survival.cox import Cox
from wsikit.survival.follow_up import FollowUp, check_columns, check_follow_up
from wsikit.survival.groups import cut_offs
from wsikit.survival.recipe import Model, Patients, Recipe
from wsikit.survival.scores import resample

DRAWS = 500


def train_cox(
    features: Sequence[Mapping[str, float]], time_months: np.ndarray, event: np.ndarray, out: Path, card_fields: dict[str, Any], *, penalty: float = 0.01
) -> Card:
    """Fit lifelines' Cox model (Efron ties, ridge) and write a model folder; returns its card.

    Parameters
    ----------
    features : of each patient, by name; must hold ``card_fields["risk"]["features"]``
    time_months : float64 (n,), above 0
    event : bool (n,)

    Raises
    ------
    LabelsError
        Times are not positive, there are fewer than two events, a feature is missing or constant, or the fit does not converge.
    """
    import pandas as pd

    risk = card_fields["risk"]
    for i, row in enumerate(features):
        if missing := [n for n in risk["features"] if n not in row]:
            raise LabelsError(f"patient {i + 1} has no value for {', '.join(missing)}")
    follow = FollowUp(np.array([f"{i + 1:06d}" for i in range(len(features))]), time_months, event.astype(bool), risk["endpoint"])
    table = pd.DataFrame([{n: row[n] for n in risk["features"]} for row in features], dtype=np.float64)
    if not np.isfinite(table.to_numpy()).all():
        raise LabelsError("all features must be there: all features numbers, of every patient")
    check_follow_up(follow, table.shape[1])
    check_columns(table, follow)
    patients = Patients(table, follow)
    model = Recipe(list(risk["features"]), penalty=penalty, log1p=risk.get("log1p", [])).fit(patients)
    return write_risk(model, patients, out, card_fields)


def write_risk(model: Model, patients: Patients, out: Path, card_fields: dict[str, Any], n_groups: int = 2) -> Card:
    """A fitted model as a folder; the cut-offs between groups are those of its training patients.

    ``card_fields["risk"]`` may leave out what follows from the model: ``features``, cut-offs, ``outcome``, and horizons are cut at the last follow-up.
    """
    risk, follow = model.risk(patients), patients.follow
    cutoffs = cut_offs(risk, n_groups)
    origin = {2: "median of the training patients", 3: "tertiles of the training patients"}[n_groups]
    given = card_fields["risk"]
    horizons = given.get("horizons_months") or Risk.model_fields["horizons_months"].default
    is_cox = isinstance(model.top, Cox)
    fields = {
        **given,
        "outcome": "time" if is_cox else "yes-no",
        "features": model.names,
        "log1p": [n for n in given.get("log1p", []) if n in model.names or n in (given.get("signature") or {}).get("inputs", [])],
        "cutoff": round(cutoffs[0], 6),
        "upper_cutoff": round(cutoffs[1], 6) if len(cutoffs) > 1 else None,
        "cutoff_origin": origin,
        # beyond the last follow-up nothing is known of survival
        "horizons_months": [m for m in horizons if m <= follow.time_months.max()] if is_cox else [],
    }
    metrics = {"apparent": _apparent(follow, risk), "coefficients": _coefficients(model), **card_fields.get("metrics", {})}
    if isinstance(model.top, Cox):
        metrics["proportional_hazards_p"] = {n: round(p, 4) for n, p in model.top.proportional_p.items()}
    tensors = {k: torch.from_numpy(np.array(v, order="C")) for k, v in _tensors(model, fields["horizons_months"]).items()}
    return write_model(out, {**card_fields, "risk": fields, "metrics": metrics}, tensors)


def _apparent(follow: FollowUp, risk: np.ndarray) -> dict[str, Any]:
    """How well the model orders the patients it was fitted to: too good, and said as what it is."""
    c = resample(lambda rows: concordance_index(follow.time_months[rows], follow.event[rows], risk[rows]).c_index, follow, DRAWS)
    numbers = {"c_index": round(c.value, 4), "low": round(c.low, 4), "high": round(c.high, 4)}
    return {"patients": len(follow), "events": int(follow.event.sum()), **numbers}


def _coefficients(model: Model) -> dict[str, dict[str, float]]:
    rows = zip(model.names, model.top.beta, model.top.se, strict=True)
    return {n: {"beta": round(float(b), 4), "se": round(float(s), 4)} for n, b, s in rows}


def _tensors(model: Model, horizons: Sequence[float]) -> dict[str, np.ndarray]:
    top = model.top
    out = {"beta": top.beta, "mean": model.mean, "sd": model.sd, "covariance": top.covariance}
    if isinstance(top, Cox):
        out |= {"time_months": top.time_months, "cumulative_hazard": top.hazard}
        steps = np.searchsorted(top.time_months, np.asarray(horizons, np.float64), side="right")
        variance, slope = (np.concatenate([np.zeros_like(v[:1]), v])[steps] for v in (top.hazard_variance, top.hazard_slope))
        out |= {"horizon_variance": variance, "horizon_slope": slope}
    else:
        out[INTERCEPT] = np.array([top.intercept])
    if model.signature is not None:
        for k, member in enumerate(model.signature.members):
            more = {} if model.signature.encoder is None else {"input_mean": model.signature.encoder.mean, "input_sd": model.signature.encoder.sd}
            out |= {f"{SIGNATURE}.{k}.{name}": values for name, values in {**member, **more}.items()}
    return out
