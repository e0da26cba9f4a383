"""``wsikit train survival``: checks, the clinic-only baseline, validation on patients not seen, the final model, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsikit.aggregate.counting import counting_behind
from wsikit.errors import LabelsError, UsageError
from wsikit.metrics import Interval
from wsikit.models._card import SIGNATURE, Card
from wsikit.survival.columns import coded, is_category
from wsikit.survival.folds import event_folds, site_folds
from wsikit.survival.follow_up import check_columns, check_follow_up
from wsikit.survival.logistic import ASKED_AT, by_time
from wsikit.survival.recipe import Kind, Model, Recipe
from wsikit.survival.validate import OutOfFold, compare, cross_validate, difference_verdict, months_of, validate, verdict
from wsikit.train.findings import write_findings
from wsikit.train.study import Study, read_study
from wsikit.train.survival import write_risk

METHODS = ("cox", "deepsurv", "discrete", "attention")
FOLDS = 5
FEW_EVENTS = 10
YEARS = (12.0, 36.0, 60.0)
Scores = dict[str, dict[str, Interval]]


@dataclass(frozen=True)
class Options:
    """How a survival model is trained.

    Attributes
    ----------
    features : names or patterns of a run's features
    method : ``cox`` on the features; else a network's signature of them (``attention``: of the tiles of ``tiles_of``) in a Cox model
    clinical : columns of the labels, all by default; ``columns`` a CSV of more columns by patient
    penalty : ridge; None chooses it inside each training fold
    outcome : a yes/no column instead of a time; ``by_months`` makes the event by then a yes/no outcome
    condition : ``PIPELINE=CLASS``; the model is for slides of that class only
    """

    endpoint: str = ""
    features: Sequence[str] = ()
    method: Literal["cox", "deepsurv", "discrete", "attention"] = "cox"
    tiles_of: str = "sts-subtype"
    clinical: Sequence[str] | None = None
    columns: Path | None = None
    select: Literal["", "mrmr", "lasso"] = ""
    penalty: float | None = None
    groups: int = 2
    horizons: Sequence[float] = YEARS
    by_site: bool = False
    outcome: str = ""
    by_months: float | None = None
    condition: str = ""
    seed: int = 0
    log: Callable[[str], None] = field(default=lambda _: None)


def train_prognosis(labels: Path, run: Path | None, out: Path, card_fields: dict[str, Any], options: Options) -> Card:
    """Train, validate and write a survival model, with all numbers and pictures in ``<out>/training``.

    Raises
    ------
    LabelsError
        The tables cannot be used; raised before anything is trained.
    UsageError
        Options that do not go together.
    """
    _check(options)
    attention = options.method == "attention"
    reading = {"clinical": options.clinical, "columns": options.columns, "tiles_of": options.tiles_of if attention else "", "outcome": options.outcome}
    study = read_study(labels, run, options.features, options.endpoint, **reading)  # type: ignore[arg-type]
    study, options = _asked(_of_condition(study, options.condition), options)
    recipes = recipes_of(study, options)
    notes = [*study.notes, *_checked(study, options), *_about_baseline(recipes)]
    for note in notes:
        options.log(f"note: {note}")
    found, every, comparisons, lines = _validated(study, recipes, options)
    for line in lines:
        options.log(line)
    whole = next(iter(recipes))
    model = recipes[whole].fit(study.patients, options.seed)
    fields = _fields(card_fields, study, options, model)
    scores = {name: {k: _rounded(v) for k, v in mine.items()} for name, mine in every.items()}
    differences = {name: _rounded(v) for name, v in comparisons.items()}
    fields["metrics"] = {
        "validation": {"how": _how(options), "seed": options.seed, "of": scores, "differences": differences, "said": lines},
        "patients_left_out": study.left_out,
        "notes": [n for n in notes if n not in study.notes],  # those name patients, who have no place in a model's card
    }
    card = write_risk(model, study.patients, out, fields, options.groups)
    write_findings(out / "training", card, model, study, found, options.horizons)
    return card


def recipes_of(study: Study, options: Options) -> dict[str, Recipe]:
    """What is trained and compared: everything together first, then the slides alone, and the clinic alone."""
    kind: Kind = "" if options.method == "cox" else options.method
    base = Recipe(select=options.select, penalty=options.penalty, outcome="time", log1p=log_scaled(study))
    if options.outcome or options.by_months is not None:
        base = replace(base, outcome="yes-no", penalty=options.penalty if options.penalty is not None else 0.01)
    columns = () if kind in ("deepsurv", "discrete") else study.image
    image = replace(base, columns=columns, signature=kind, signature_columns=study.image)
    clinic = replace(base, columns=study.clinical, select="")
    has_image, others = bool(study.image or kind == "attention"), [*study.clinical, *study.elsewhere]
    if not has_image and kind:
        image = replace(base, columns=(), signature=kind, signature_columns=others)
        return {"network": image, "clinic": replace(clinic, columns=others)}
    out = {"slides and clinic": replace(image, columns=[*columns, *others])} if has_image and others else {}
    out |= {"slides": image} if has_image else {}
    out |= {"clinic and elsewhere": replace(base, columns=others)} if study.elsewhere and not has_image else {}
    return out | ({"clinic": clinic} if study.clinical else {})


def log_scaled(study: Study) -> list[str]:
    """Densities enter as log(1 + x), whichever table they are from."""
    return [n for n in (*study.image, *study.clinical, *study.elsewhere) if n.endswith("per_mm2")]


def _check(options: Options) -> None:
    if options.method not in METHODS:
        raise UsageError(f"method '{options.method}': there are {', '.join(METHODS)}")
    if options.groups not in (2, 3):
        raise UsageError(f"{options.groups} groups: there are 2 (at the median) or 3 (at the tertiles)")
    if options.condition.count("=") > 1 or (options.condition and "=" not in options.condition):
        raise UsageError(f"condition '{options.condition}': write PIPELINE=CLASS, such as rms-subtype=ERMS")
    if options.penalty is not None and not (options.penalty >= 0 and np.isfinite(options.penalty)):
        raise UsageError(f"penalty {options.penalty:g}: it must be 0 or more")
    if (options.outcome or options.by_months is not None) and options.method != "cox":
        raise UsageError("networks are trained on times; leave --method out for a yes/no outcome")
    if not all(h > 0 for h in options.horizons):
        raise UsageError("horizons must be above 0 months")


def _of_condition(study: Study, condition: str) -> Study:
    """The patients that the model is for: a model of one class must not learn from the others."""
    pipeline, _, call = condition.partition("=")
    if not pipeline:
        return study
    if pipeline not in study.models:
        raise LabelsError(f"condition: the run has no pipeline '{pipeline}'; there are {', '.join(study.models) or '(none)'}")
    calls = [study.calls[pipeline].get(p, "") for p in study.patients.follow.patient.tolist()]
    rows = np.flatnonzero(np.array(calls) == call)
    if not len(rows):
        raise LabelsError(f"condition: {pipeline} calls no patient {call}; it calls {', '.join(sorted(set(calls) - {''})) or 'nobody anything'}")
    note = f"{len(calls) - len(rows)} patients are left out, as {pipeline} does not call them {call}"
    return replace(study, patients=study.patients.take(rows), notes=[*study.notes, note], left_out=study.left_out + len(calls) - len(rows))


def _asked(study: Study, options: Options) -> tuple[Study, Options]:
    """The follow-up as it is asked for: a yes/no outcome where that is wanted, and horizons where there is follow-up."""
    follow = study.patients.follow
    if options.by_months is not None and not options.outcome:
        asked, unknown = by_time(follow, options.by_months)
        rows = np.flatnonzero(np.isin(follow.patient, asked.patient))
        left = [f"{len(unknown)} patients are left out, as they were followed for less than {options.by_months:g} months without the event"] if unknown else []
        study = replace(study, patients=replace(study.patients.take(rows), follow=asked), notes=[*study.notes, *left])
    if options.outcome or options.by_months is not None:
        return study, replace(options, horizons=[ASKED_AT])
    # at a horizon somebody must still be followed, or nothing can be said of it
    return study, replace(options, horizons=[h for h in options.horizons if (follow.time_months > h).sum() >= 2])


def _checked(study: Study, options: Options) -> list[str]:
    """Refuse what cannot be trained on, before anything is; say what is doubtful."""
    table, follow = study.patients.table, study.patients.follow
    if not table.shape[1] and options.method != "attention":
        raise LabelsError("there is nothing to train on: give --feature NAME of a run, or clinical columns in the labels")
    for name in table.columns:
        if table[name].isna().all():
            raise LabelsError(f"feature {name} has no value for any patient; leave it out")
    levels = {str(c): sorted(table[c].dropna().unique()) for c in table.columns if is_category(table[c])}
    if few := [n for n, kinds in levels.items() if len(kinds) < 2]:
        raise LabelsError(f"feature {few[0]} is the same for every patient; leave it out")
    numbers = coded(table, levels, log_scaled(study), [])
    notes = [] if options.outcome or options.by_months is not None else check_follow_up(follow, numbers.shape[1] + (options.method != "cox"))
    if numbers.shape[1]:
        check_columns(numbers, follow)
    missing = table.isna().mean()
    notes += [f"{n}: {m:.0%} of its values are missing; filled from the nearest training patients, with an indicator" for n, m in missing.items() if m > 0]
    return notes


def _about_baseline(recipes: dict[str, Recipe]) -> list[str]:
    if "clinic" in recipes or not any("slides" in r for r in recipes):
        return []
    return ["no clinical column was given, so nobody can tell whether slides add anything to age and stage; give columns in the labels"]


def _validated(study: Study, recipes: dict[str, Recipe], options: Options) -> tuple[dict[str, OutOfFold], Scores, dict[str, Interval], list[str]]:
    """Each recipe on patients that it has not seen, its scores, and the differences; nothing where there are too few events."""
    patients, follow = study.patients, study.patients.follow
    if follow.event.sum() < FEW_EVENTS:
        return {}, {}, {}, [f"{int(follow.event.sum())} events: too few to hold any out, so nothing is known of how the model does on other patients"]
    folds = site_folds(follow)[0] if options.by_site else event_folds(follow, FOLDS, options.seed)
    months = months_of(follow, options.horizons)
    found = {name: cross_validate(recipe, patients, folds, months, options.seed) for name, recipe in recipes.items()}
    scores = {name: validate(follow, f, options.horizons) for name, f in found.items()}
    lines = [f"{name}: {verdict(mine)}" for name, mine in scores.items()]
    differences = {}
    for name in [n for n in found if n != "clinic" and "clinic" in found]:
        differences[f"{name} less clinic"] = compare(follow, found[name], found["clinic"])
        lines.append(difference_verdict(name, "clinic", differences[f"{name} less clinic"]))
    return found, scores, differences, lines


def _how(options: Options) -> str:
    folds = "each site left out in turn" if options.by_site else f"{FOLDS} folds of patients, events spread evenly"
    return f"{folds}; imputation, selection, penalty and networks learnt again in each; intervals by bootstrap over patients"


def _rounded(i: Interval) -> dict[str, float | None]:
    numbers = {"value": i.value, "low": i.low, "high": i.high}
    return {k: round(float(v), 4) if np.isfinite(v) else None for k, v in numbers.items()}


def _fields(card_fields: dict[str, Any], study: Study, options: Options, model: Model) -> dict[str, Any]:
    """The card's fields that follow from the data."""
    pipeline, _, call = options.condition.partition("=")
    condition = {"pipeline": pipeline, "call": call} if options.condition else None
    signature: dict[str, Any] | None = None
    if model.signature is not None:
        inputs = [] if model.signature.encoder is None else model.signature.encoder.names
        tiles = options.tiles_of if model.signature.kind == "attention" else ""
        signature = {"kind": model.signature.kind, "pipeline": tiles, "inputs": inputs, "networks": len(model.signature.members)}
    names = [*model.names, *(model.signature.encoder.names if model.signature and model.signature.encoder else [])]
    owners = {n.split(".", 1)[0] for n in names if "." in n} | {d["pipeline"] for d in (signature, condition) if d}
    raw = _columns_behind(names, study)
    encoders = [e for e in (model.encoder, model.signature.encoder if model.signature else None) if e is not None]
    levels = {c: kinds for e in encoders for c, kinds in e.levels.items()}
    risk = {
        "endpoint": study.patients.follow.endpoint,
        "log1p": log_scaled(study),
        "models": {k: v for k, v in study.models.items() if k in owners},
        "clinical": {c: levels.get(c, []) for c in raw},
        "condition": condition,
        "signature": signature,
        "horizons_months": list(options.horizons),
        "counting": counting_behind([*names, *([f"{pipeline}.call"] if pipeline else [])], study.counting),
    }
    about = {**card_fields["trained_on"], "patients": len(study.patients), "slides": None}
    return {**card_fields, "architecture": {"name": options.method}, "trained_on": about, "risk": risk}


def _columns_behind(names: Sequence[str], study: Study) -> list[str]:
    """The clinical columns that these coded columns come from."""
    bare = {n.removesuffix(" missing").split("=", 1)[0] for n in names if n != SIGNATURE}
    return [c for c in [*study.clinical, *study.elsewhere] if c in bare]
