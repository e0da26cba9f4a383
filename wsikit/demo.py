"""The main job from end to end: a real public slide, and a phantom cohort whose truth is known."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsikit import RESEARCH_USE_ONLY
from wsikit.errors import WsikitError
from wsikit.metrics import DetectionScore, bootstrap, concordance_index, match_detections
from wsikit.report import answer
from wsikit.run import Progress, Run, score
from wsikit.sample import sample_slide
from wsikit.testing.cohort import Patient, specs, write_cohort
from wsikit.testing.phantom import RMS_CLASSES, STS_CLASSES

STS_PER_CLASS, RMS_PER_CLASS = 3, 3
SEED = 7  # the bundled models were trained on other seeds (901, 902, 903)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Watch:
    """How a demo tells what it does: lines, and a run's progress."""

    say: Say
    progress: Callable[[int], Callable[[Progress], None]]


def real_slide(out: Path, slide: Path | None, watch: Watch, workers: int | None) -> Run:
    """Score the public slide with the default models: those trained on phantoms must abstain, and the mitosis detector needs a finer scan."""
    path = slide or sample_slide(watch.say)
    watch.say(f"\n1. A real slide: {path.name}")
    run = score([path], out / "real", workers=workers, keep_tiles=True, on_progress=watch.progress(1))
    for result in run.results.values():
        if result["status"] == "failed":
            raise WsikitError(f"{path}: {result['reason']}")
        watch.say(f"   {result['slide']['mpp'][0]:g} µm/px from {result['slide']['mpp_source']}, {result['tissue_mm2']:.2f} mm² of tissue")
        for name, r in result["pipelines"].items():
            watch.say(f"   {name:12s} {answer(r)}")
        if result["pipelines"]["mitosis"]["status"] == "refused":
            watch.say(
                "   The mitosis detector has learned real tissue at 0.25 µm/px, finer than this slide; wsikit score --upsample enlarges it (see its card)."
            )
    watch.say(
        "   The models for subtype and risk that come with wsikit have only seen synthetic tissue, so on real tissue they do not answer.\n"
        "   To get answers: train on your own slides (wsikit train sts-subtype --labels labels.csv -o my-sts/), or bring a model\n"
        "   folder (wsikit models add FOLDER, or --model sts-subtype=FOLDER)."
    )
    return run


def phantom_cohort(out: Path, watch: Watch, workers: int | None) -> list[Run]:
    """Make, score and compare a cohort whose truth is known."""
    folder = out / "phantoms"
    n = STS_PER_CLASS * len(STS_CLASSES) + RMS_PER_CLASS * len(RMS_CLASSES)
    watch.say(f"\n2. A phantom cohort: {n} synthetic slides with known class, mitoses and follow-up, in {folder}")
    cores = min(4, os.cpu_count() or 1)
    sts = write_cohort(folder / "sts", specs(STS_CLASSES, STS_PER_CLASS, SEED), seed=SEED, processes=cores)
    rms = write_cohort(folder / "rms", specs(RMS_CLASSES, RMS_PER_CLASS, SEED + 1), seed=SEED + 1, processes=cores)
    runs = []
    for patients, name, pipelines in ((sts, "sts-subtype", ["sts-subtype", "mitosis", "survival"]), (rms, "rms-subtype", ["rms-subtype", "mitosis"])):
        cases = patients[0].path.parent / "cases.csv"
        run = score([cases], out / name, pipelines, workers=workers, on_progress=watch.progress(len(patients)))
        runs.append(run)
        _compare(run, patients, name, watch.say)
    return runs


def _compare(run: Run, patients: list[Patient], name: str, say: Say) -> None:
    say(f"\n   {name}: what the models say, beside the truth")
    say(f"   {'slide':10s} {'truth':6s} {'call':6s} {'doubt':>5s}   {'mitoses':>7s} {'true':>5s}   {'per mm² (95 %)':>18s}   {'risk':>6s} {'months':>7s}")
    right, hits = 0, DetectionScore(0, 0, 0)
    for p in patients:
        results = run.results[p.path.stem]["pipelines"]
        call, counted, risk = results[name], results["mitosis"], results.get("survival", {})
        right += call["call"] == p.truth.spec.subtype
        hits += _hits(run, p, counted["threshold"])
        rate = f"{counted['per_mm2']:.1f} ({counted['low']:.1f}–{counted['high']:.1f})"
        shown = f"{risk['risk']:+6.2f}" if risk.get("risk") is not None else "     –"
        said = f"{p.truth.spec.subtype:6s} {call['call'] or '–':6s} {call['doubt']:5.2f}"
        when = f"{p.time_months:6.1f}{' ' if p.event else '+'}"
        say(f"   {p.path.stem:10s} {said}   {counted['count']:7d} {len(p.truth.mitoses):5d}   {rate:>18s}   {shown} {when}")
    say(f"   class right: {right} of {len(patients)}")
    say(f"   mitoses within 7.5 µm: precision {hits.precision:.3f}, recall {hits.recall:.3f} ({hits.tp} hits, {hits.fp} false, {hits.fn} missed)")
    if "survival" in run.results[patients[0].path.stem]["pipelines"]:
        _survival(run, patients, say)


def _hits(run: Run, patient: Patient, threshold: float) -> DetectionScore:
    store = run.store(patient.path.stem)
    table = store.tables()["mitosis"]
    found = table["position"][table["score"] >= threshold]
    return match_detections(found * np.array(store.mpp), patient.truth.mitoses * np.array(store.mpp))


def _survival(run: Run, patients: list[Patient], say: Say) -> None:
    risks = [run.results[p.path.stem]["pipelines"]["survival"]["risk"] for p in patients]
    known = [(p, r) for p, r in zip(patients, risks, strict=True) if r is not None]
    if len(known) < 3:
        say("   survival: too few patients with a risk to compare")
        return
    time, event, risk = (np.array(v) for v in zip(*((p.time_months, p.event, r) for p, r in known), strict=True))
    c = bootstrap(lambda rows: concordance_index(time[rows], event[rows], risk[rows]).c_index, [p.patient for p, _ in known], draws=1000)
    truth = concordance_index(time, event, np.array([p.log_hazard for p, _ in known])).c_index
    say(f"   survival: C-index {c}, {int(event.sum())} events in {len(known)} patients; the true hazard itself reaches {truth:.3f}")


def closing(runs: list[Run], say: Say) -> None:
    """Where to look."""
    say("\n3. Where to look")
    for run in runs:
        say(f"   {run.folder / 'slides.csv'}")
        for slide_id in list(run.results)[:2]:
            base = run.folder / "slides" / slide_id
            say(f"     picture {base}.png\n     store   {base}.zarr\n     QuPath  {base}.geojson")
        if len(run.results) > 2:
            say(f"     and {len(run.results) - 2} more slides in {run.folder / 'slides'}")
    first, second = runs[0], runs[1]
    say(f"\n   wsikit view {first.folder / 'slides' / next(iter(first.results))}.zarr")
    say(f"   wsikit view {second.folder / 'slides' / next(iter(second.results))}.zarr")
    say(f"   wsikit report {second.folder}\n\n   {RESEARCH_USE_ONLY}")
