"""All that a training found, as CSV and JSON for other programs, and as pictures for people."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from wsikit import RESEARCH_USE_ONLY
from wsikit.aggregate.features import FORMULAS
from wsikit.errors import LabelsError
from wsikit.models._card import Card
from wsikit.survival.cox import Cox, fit_cox
from wsikit.survival.curves import aalen_johansen, kaplan_meier, median_follow_up
from wsikit.survival.follow_up import FollowUp
from wsikit.survival.groups import NAMES, group_of, separation
from wsikit.survival.logistic import fit_logistic
from wsikit.survival.nomogram import formula, nomogram
from wsikit.survival.pictures import nomogram_picture, save, validation_picture
from wsikit.survival.recipe import Model
from wsikit.survival.scores import calibration, net_benefit
from wsikit.survival.validate import OutOfFold
from wsikit.train.study import Study


def write_findings(folder: Path, card: Card, model: Model, study: Study, found: Mapping[str, OutOfFold], horizons: Sequence[float]) -> None:
    """Write ``coefficients.csv``, ``formula.txt``, ``nomogram.png`` of the model, and of each validation predictions, groups, calibration and decisions."""
    folder.mkdir(parents=True, exist_ok=True)
    assert card.risk is not None
    log1p, follow = card.risk.log1p, study.patients.follow
    _coefficients(folder / "coefficients.csv", model, study)
    chart = nomogram(model, model.columns(study.patients), card.risk.horizons_months, follow.endpoint, log1p)
    save(nomogram_picture(chart), folder / "nomogram.png")
    (folder / "formula.txt").write_text(f"{formula(model, card.risk.horizons_months, log1p)}\n\n{RESEARCH_USE_ONLY}\n", encoding="utf-8")
    _table(folder / "nomogram.csv", [{"column": s.name, "value": v, "points": p} for s in chart.scales for v, p in zip(s.values, s.points, strict=True)])
    _table(folder / "features.csv", [{"feature": n, "unit": unit, "formula": how} for n, (unit, how) in FORMULAS.items()])
    facts: dict[str, Any] = {"statement": RESEARCH_USE_ONLY, "endpoint": follow.endpoint, "patients": len(follow), "events": int(follow.event.sum())}
    facts["median_follow_up_months"] = median_follow_up(follow.time_months, follow.event)
    if found and horizons:
        facts |= _validation(folder, follow, found, horizons, len(card.risk.cutoffs) + 1)
    if follow.competing is not None and isinstance(model.top, Cox):
        facts["competing"] = _competing(folder, model, study)
    (folder / "findings.json").write_text(json.dumps(_plain(facts), indent=1) + "\n", encoding="utf-8")


def _coefficients(path: Path, model: Model, study: Study) -> None:
    """Ratios are per standard deviation of the training patients (``sd``), of the column after log(1 + x) where it has that.

    A penalty shrinks coefficients, and their intervals are then too narrow; the ``unpenalised`` ones estimate the effects.
    """
    ratios, free = model.top.hazard_ratios(), _unpenalised(model, study)
    proportional = model.top.proportional_p if isinstance(model.top, Cox) else {}
    rows = []
    for i, name in enumerate(model.names):
        row: dict[str, Any] = {"column": name, "beta": model.top.beta[i], "se": model.top.se[i], "mean": model.mean[i], "sd": model.sd[i]}
        row |= dict(zip(("ratio", "low", "high", "p"), ratios[name], strict=True)) | {"penalty": model.top.penalty}
        row |= dict(zip(("unpenalised_ratio", "unpenalised_low", "unpenalised_high", "unpenalised_p"), free.get(name, ("",) * 4), strict=True))
        rows.append(row | {"proportional_hazards_p": proportional.get(name, "")})
    _table(path, rows)


def _unpenalised(model: Model, study: Study) -> dict[str, tuple[Any, ...]]:
    z, follow = model.columns(study.patients), study.patients.follow
    try:
        fitted = fit_cox(z, model.names, follow, 0.0) if isinstance(model.top, Cox) else fit_logistic(z, model.names, follow.event, 0.0)
    except LabelsError:
        return {}
    return dict(fitted.hazard_ratios())


def _validation(folder: Path, follow: FollowUp, found: Mapping[str, OutOfFold], horizons: Sequence[float], n_groups: int) -> dict[str, Any]:
    """Predictions of patients not seen, and what they are worth at the middle horizon."""
    at = horizons[len(horizons) // 2]
    first = next(iter(found.values()))
    column = {m: int(np.argmin(np.abs(first.months - m))) for m in horizons}
    cuts = [k / n_groups for k in range(1, n_groups)]
    _table(folder / "predictions.csv", _predictions(follow, found, column, cuts))
    groups = {name: [group_of(s, cuts) for s in f.group] for name, f in found.items()}
    curves = {name: net_benefit(follow, 1 - f.survival[:, column[at]], at) for name, f in found.items()}
    calibrated = {name: {m: calibration(follow, f.survival[:, column[m]], m) for m in horizons} for name, f in found.items()}
    _table(folder / "kaplan_meier.csv", [r for n, g in groups.items() for r in _curves(n, follow, g)])
    _table(
        folder / "calibration.csv",
        [{"model": n, "months": m, **asdict(g)} for n, c in calibrated.items() for m, one in c.items() for g in one.groups],
    )
    _table(
        folder / "decision.csv",
        [
            {"model": n, "months": at, "threshold": t, "net_benefit": v, "treat_all": a}
            for n, c in curves.items()
            for t, v, a in zip(c.threshold, c.model, c.treat_all, strict=True)
        ],
    )
    for name in found:
        picture = validation_picture(follow, groups[name], calibrated[name][at], curves, f"{name}: patients not seen, groups of the training patients")
        save(picture, folder / f"validation-{name.replace(' ', '-')}.png")
    return {
        "calibration": {n: {f"{m:g}": {k: v for k, v in asdict(one).items() if k != "groups"} for m, one in c.items()} for n, c in calibrated.items()},
        "groups": {n: asdict(separation(follow, g, max(horizons))) for n, g in groups.items()},
    }


def _predictions(follow: FollowUp, found: Mapping[str, OutOfFold], column: Mapping[float, int], cuts: Sequence[float]) -> Iterable[dict[str, Any]]:
    for i, patient in enumerate(follow.patient):
        row: dict[str, Any] = {"patient": patient, "time_months": follow.time_months[i], "event": int(follow.event[i])}
        for name, f in found.items():
            row |= {f"{name}: fold": int(f.fold[i]), f"{name}: risk": f.risk[i], f"{name}: group": group_of(f.group[i], cuts)}
            row |= {f"{name}: without {follow.endpoint} at {m:g}": f.survival[i, at] for m, at in column.items()}
        yield row


def _curves(name: str, follow: FollowUp, group: Sequence[str]) -> Iterable[dict[str, Any]]:
    for kind in NAMES[3]:
        mine = np.array(group) == kind
        if not mine.any():
            continue
        c = kaplan_meier(follow.time_months[mine], follow.event[mine])
        for row in zip(c.time, c.value, c.low, c.high, c.at_risk, c.events, strict=True):
            yield {"model": name, "group": kind, **dict(zip(("months", "without_event", "low", "high", "at_risk", "events"), row, strict=True))}


def _competing(folder: Path, model: Model, study: Study) -> dict[str, Any]:
    """Cumulative incidence of the event and of what competes with it, and the same columns' cause-specific hazard ratios of each."""
    follow = study.patients.follow
    assert follow.competing is not None
    cause = np.where(follow.event, 1, np.where(follow.competing, 2, 0))
    rows = []
    for which, what in ((1, follow.endpoint), (2, "competing")):
        c = aalen_johansen(follow.time_months, cause, which)
        rows += [{"cause": what, "months": t, "incidence": v, "low": a, "high": b} for t, v, a, b in zip(c.time, c.value, c.low, c.high, strict=True)]
    _table(folder / "incidence.csv", rows)
    out: dict[str, Any] = {"events": int(follow.competing.sum()), "note": "a model's 1 − survival is above the cumulative incidence where risks compete"}
    if follow.competing.sum() >= 2 and isinstance(model.top, Cox):
        other = FollowUp(follow.patient, follow.time_months, follow.competing, "competing")
        fitted = fit_cox(model.columns(study.patients), model.names, other, max(model.top.penalty, 0.01))
        out["cause_specific_hazard_ratios"] = {n: dict(zip(("ratio", "low", "high", "p"), r, strict=True)) for n, r in fitted.hazard_ratios().items()}
    return out


def _table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    listed = list(rows)
    with path.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(listed[0]) if listed else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float | np.floating) else v for k, v in row.items()} for row in listed)


def _plain(value: Any) -> Any:
    """For JSON, which knows neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) if np.isfinite(value) else None
    return value
