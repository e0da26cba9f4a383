"""How does a survival model do on patients of somebody else? Its own predictions, cut-offs and horizons, compared with what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.aggregate.features import together
from wsikit.aggregate.survival import CoxRisk, load_risk, predict_risk
from wsikit.errors import LabelsError, UsageError
from wsikit.metrics import concordance_index
from wsikit.run.inputs import tile_inputs
from wsikit.run.job import Job, read_run
from wsikit.run.patients import patient_pipelines
from wsikit.run.prepare import store_path
from wsikit.run.results import read_results
from wsikit.store import SlideStore
from wsikit.survival.follow_up import FollowUp, check_follow_up, join_patients, read_follow_up
from wsikit.survival.groups import separation
from wsikit.survival.logistic import ASKED_AT
from wsikit.survival.scores import auc_at, brier, calibration, integrated_brier, null_survival, resample, score_times, uno_c
from wsikit.train.labels import read_table
from wsikit.train.study import read_outcome

Results = dict[str, tuple[dict[str, Any], float, Any]]


def evaluate_survival(folder: Path, labels: Path, run: Path | None, draws: int = 1000) -> dict[str, Any]:
    """The scores of a survival model on labelled patients, with intervals over patients; those it gives no risk are counted by reason.

    Parameters
    ----------
    labels : CSV as for training; clinical columns of the model are taken from it
    run : the run that scored the patients' slides, where the model needs any

    Raises
    ------
    LabelsError
        The tables cannot be used, or do not join.
    UsageError
        The model needs slides and no run is given.
    """
    model = load_risk(folder)
    if run is None and (model.spec.models or any(not n.endswith(" missing") for n in _not_clinical(model))):
        raise UsageError("a survival model is evaluated on the patients of a run; give the run's folder with --features")
    rows = read_table(labels, ["patient"])
    yes_no = model.spec.outcome == "yes-no"
    follow, text = read_outcome(labels, rows, model.spec.endpoint) if yes_no else read_follow_up(labels, rows, _endpoint(model, rows))
    counting = None if run is None else _job(run).counting
    found: Results = _run_results(run, model) if run is not None else {p: ({}, 0.0, None) for p in follow.patient.tolist()}
    joined = join_patients(labels=follow.patient.tolist(), run=list(found))
    answers = {p: predict_risk(model, *found[p], {str(k): str(v) for k, v in text.loc[p].items()}, counting) for p in joined.patients}
    usable = [p for p in joined.patients if answers[p]["status"] == "ok"]
    facts: dict[str, Any] = {"endpoint": model.spec.endpoint, "patients": len(usable), "notes": joined.sentences()}
    facts["without a risk"] = dict(Counter(a["reason"] for a in answers.values() if a["status"] != "ok"))
    if not usable:
        raise LabelsError(f"the model gives none of these patients a risk; the first: {next(iter(answers.values()))['reason']}")
    where = {p: i for i, p in enumerate(follow.patient.tolist())}
    mine = follow.take(np.array([where[p] for p in usable]))
    if not yes_no:
        facts["notes"] += check_follow_up(mine)
    return facts | {"events": int(mine.event.sum())} | _scores(model, mine, [answers[p] for p in usable], draws)


def _endpoint(model: CoxRisk, rows: Sequence[Mapping[str, str]]) -> str:
    """The model's endpoint, which must be that of the labels, where they say it."""
    named = {r.get("endpoint", "") for r in rows} - {""}
    if named and model.spec.endpoint not in named:
        raise LabelsError(f"the model is of {model.spec.endpoint}, and the labels have {', '.join(sorted(named))}: another endpoint, another risk")
    return model.spec.endpoint


def _not_clinical(model: CoxRisk) -> list[str]:
    names = [*model.spec.features, *(model.spec.signature.inputs if model.spec.signature else [])]
    known = {*model.spec.clinical, "signature"} if model.spec.signature and model.spec.signature.kind != "attention" else set(model.spec.clinical)
    return [n for n in names if n.split("=", 1)[0].removesuffix(" missing") not in known]


def _job(run: Path) -> Job:
    return Job.model_validate(read_run(run)["job"])


def _run_results(run: Path, model: CoxRisk) -> Results:
    """Of each patient of a run: results of its pipelines, tissue in mm², and what this model needs of the tiles.

    That is measured here: what the run's results hold was measured for the run's own survival model, by that one's networks.
    """
    job = _job(run)
    results, cards, out = read_results(run, job), job.cards(), Results()
    for patient in dict.fromkeys(c.patient for c in job.slides if c.patient):
        slides = [results[c.slide_id] for c in job.slides if c.patient == patient and results.get(c.slide_id, {}).get("status") == "ok"]
        if slides:
            inputs = [i for s in slides if (i := tile_inputs(SlideStore(store_path(run, s["slide_id"])), model, cards)) is not None]
            out[patient] = (patient_pipelines(job, slides, cards), sum(s["tissue_mm2"] for s in slides), together(inputs) if inputs else None)
    return out


def _scores(model: CoxRisk, follow: FollowUp, answers: list[dict[str, Any]], draws: int) -> dict[str, Any]:
    risk = np.array([a["risk"] for a in answers])
    time, event = follow.time_months, follow.event
    out: dict[str, Any] = {}

    def add(name: str, statistic: Any) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            out[name] = resample(statistic, follow, draws)

    add("c_index", lambda rows: concordance_index(time[rows], event[rows], risk[rows]).c_index)
    add("uno_c", lambda rows: uno_c(follow, follow.take(rows), risk[rows], float(np.quantile(time, 0.8))))
    horizons = [ASKED_AT] if model.spec.outcome == "yes-no" else [h for h in model.spec.horizons_months if (time > h).sum() >= 2]
    for h in horizons:
        s = np.array([_survival(model, a, h) for a in answers])
        add(f"auc at {h:g}", lambda rows, s=s, h=h: auc_at(follow, follow.take(rows), -s[rows], h))
        add(f"brier at {h:g}", lambda rows, s=s, h=h: float(brier(follow, follow.take(rows), s[rows, None], np.array([h]))[0]))
        c = calibration(follow, s, h)
        out[f"calibration at {h:g}"] = (
            f"slope {c.slope:.2f} ({c.slope_low:.2f}–{c.slope_high:.2f}), observed/expected {c.observed_to_expected:.2f}, ICI {c.ici:.3f}"
        )
    if model.spec.outcome == "time":
        times = score_times(follow)
        curves = np.array([[_survival(model, a, t) for t in times] for a in answers])
        null = null_survival(follow, len(follow), times)

        def integrated(which: np.ndarray, rows: np.ndarray) -> float:
            return integrated_brier(follow, follow.take(rows), which[rows], times)

        add("ibs", lambda rows: integrated(curves, rows))
        add("ipa", lambda rows: 1 - integrated(curves, rows) / integrated(null, rows))
    out["groups"] = _groups(follow, [a["group"] for a in answers], model.spec.cutoff_origin, float(np.quantile(time, 0.8)))
    return out


def _survival(model: CoxRisk, answer: dict[str, Any], months: float) -> float:
    return 1 - answer["event_probability"] if model.spec.outcome == "yes-no" else model.survival(answer["risk"], months)


def _groups(follow: FollowUp, group: list[str], origin: str, months: float) -> dict[str, Any]:
    found = separation(follow, group, months)
    out: dict[str, Any] = {"cut at": origin, "log-rank p": round(found.log_rank.p, 4)}
    for g in found.groups:
        mean, low, high = g.restricted_mean_months
        out[g.name] = f"{g.events} events of {g.patients}; restricted mean to {months:.0f} months {mean:.1f} ({low:.1f}–{high:.1f})"
    return out | {f"hazard ratio {n} to lowest": f"{r:.2f} ({low:.2f}–{high:.2f})" for n, (r, low, high) in found.hazard_ratio.items()}
