"""Cohorts whose hazard is known: effects come back within their intervals, slides beat the clinic, and no effect is called none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wsikit.metrics import concordance_index
from wsikit.survival.columns import fit_encoder
from wsikit.survival.cox import fit_cox
from wsikit.survival.curves import Z95
from wsikit.survival.folds import event_folds
from wsikit.survival.follow_up import FollowUp
from wsikit.survival.recipe import Patients, Recipe
from wsikit.survival.validate import compare, cross_validate, difference_verdict, months_of, validate, verdict
from wsikit.testing.cohort import IMAGE_EFFECTS, draw_patients

IMAGE = ["mitosis.per_mm2", "pathomics.texture_contrast", "pathomics.nuclei_per_mm2"]
LOG1P = ["mitosis.per_mm2", "pathomics.nuclei_per_mm2"]


def patients(seed: int, effects: dict[str, float], n: int = 200) -> tuple[Patients, np.ndarray]:
    drawn = draw_patients(n, seed, effects)
    follow = FollowUp(np.array(drawn.names), drawn.time_months, drawn.event, "OS")
    return Patients(pd.DataFrame(drawn.columns, index=drawn.names), follow), drawn.log_hazard


def test_effects_are_recovered_within_their_intervals() -> None:
    """In 40 cohorts of 200 patients, 95 % intervals hold the true effects about 95 times of 100, and the estimates are not biased."""
    hits, estimates = 0, []
    names = list(IMAGE_EFFECTS)
    true = np.array([IMAGE_EFFECTS[n] for n in names])
    for seed in range(40):
        p, _ = patients(seed, IMAGE_EFFECTS)
        found = fit_cox(fit_encoder(p.table[names], LOG1P).transform(p.table), names, p.follow, penalty=0.0)
        hits += int((np.abs(found.beta - true) <= Z95 * found.se).sum())
        estimates.append(found.beta)
    assert 0.91 <= hits / (40 * len(names)) <= 0.99
    assert np.mean(estimates, 0) == pytest.approx(true, abs=0.05)


def test_slides_beat_the_clinic_where_the_hazard_is_in_the_slides() -> None:
    p, log_hazard = patients(3, IMAGE_EFFECTS)
    folds, months = event_folds(p.follow, 5), months_of(p.follow, [36.0])
    image, clinic, both = (cross_validate(Recipe(c, penalty=None, log1p=LOG1P), p, folds, months) for c in (IMAGE, ["age"], [*IMAGE, "age"]))
    scores = validate(p.follow, both, [36.0], 300)
    best = concordance_index(p.follow.time_months, p.follow.event, log_hazard).c_index
    assert scores["c_index"].low < best < scores["c_index"].high
    assert scores["ipa"].low > 0
    difference = compare(p.follow, image, clinic, draws=300)
    assert difference.low > 0
    assert "slides is better" in difference_verdict("slides", "clinic", difference)


def test_no_effect_is_about_a_half_and_said_so() -> None:
    """Over six cohorts without any effect: C is 0.5 on average, and at most a few are said to be anything else."""
    values, said = [], []
    for seed in range(6):
        p, _ = patients(100 + seed, {}, 120)
        found = cross_validate(Recipe([*IMAGE, "age"], penalty=0.1, log1p=LOG1P), p, event_folds(p.follow, 5), months_of(p.follow, []))
        c = validate(p.follow, found, [], 40)
        values.append(c["c_index"].value)
        said.append(verdict(c))
    assert np.mean(values) == pytest.approx(0.5, abs=0.05)
    assert sum("no better than chance" in s for s in said) >= 5
