"""Fit a Cox model on what the pipelines found of patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsikit.aggregate.survival import TENSORS, model_inputs
from wsikit.errors import LabelsError
from wsikit.metrics import bootstrap, concordance_index
from wsikit.models._card import Card, Risk, write_model


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
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError

    names = card_fields["risk"]["features"]
    x = _matrix(features, names, card_fields["risk"].get("log1p", []))
    if not ((time_months > 0) & np.isfinite(time_months)).all() or not np.isfinite(x).all():
        raise LabelsError("survival times must be above 0 months, and all features numbers")
    if event.sum() < 2:
        raise LabelsError(f"{int(event.sum())} events; a Cox model needs at least two, and about ten per feature to mean anything")
    mean, sd = x.mean(0), x.std(0)
    if (sd < 1e-12).any():
        raise LabelsError(f"feature {names[int(sd.argmin())]} is the same for every patient")
    frame = pd.DataFrame((x - mean) / sd, columns=names).assign(_time=time_months, _event=event.astype(int))
    try:
        fitter = CoxPHFitter(penalizer=penalty).fit(frame, "_time", "_event")
    except ConvergenceError as e:
        raise LabelsError("the Cox model does not converge: features may be copies of each other, or separate the patients; use fewer") from e
    beta = fitter.params_[names].to_numpy()
    baseline = fitter.baseline_cumulative_hazard_["baseline cumulative hazard"]
    risk = ((x - mean) / sd) @ beta
    apparent = bootstrap(lambda rows: concordance_index(time_months[rows], event[rows], risk[rows]).c_index, [str(i) for i in range(len(x))], draws=500)
    metrics = {
        "apparent": {
            "patients": len(x),
            "events": int(event.sum()),
            "c_index": round(apparent.value, 4),
            "low": round(apparent.low, 4),
            "high": round(apparent.high, 4),
        },
        "coefficients": {
            n: {"beta": round(float(b), 4), "se": round(float(s), 4)} for n, b, s in zip(names, beta, fitter.standard_errors_[names], strict=True)
        },
    }
    cutoff = {"cutoff": round(float(np.median(risk)), 6), "cutoff_origin": "median of the training patients"}
    tensors = dict(zip(TENSORS, (beta, mean, sd, baseline.index.to_numpy(float), baseline.to_numpy(float)), strict=True))
    wanted = Risk(**{**card_fields["risk"], **cutoff})
    # beyond the last follow-up nothing is known of survival
    risk_fields = wanted.model_dump() | {"horizons_months": [m for m in wanted.horizons_months if m <= time_months.max()]}
    fields = {**card_fields, "risk": risk_fields, "metrics": metrics}
    return write_model(out, fields, {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()})


def _matrix(features: Sequence[Mapping[str, float]], names: list[str], log1p: list[str]) -> np.ndarray:
    for i, row in enumerate(features):
        if missing := [n for n in names if n not in row]:
            raise LabelsError(f"patient {i + 1} has no value for {', '.join(missing)}")
    return np.array([model_inputs(row, names, log1p) for row in features])
