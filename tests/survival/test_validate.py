"""Recipes on patients that they have not seen: no leak, the truth where there is one, and 0.5 where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from wsikit.errors import LabelsError
from wsikit.survival.folds import event_folds, site_folds
from wsikit.survival.follow_up import FollowUp
from wsikit.survival.groups import cut_offs, group_of, separation
from wsikit.survival.logistic import by_time, fit_logistic, yes_or_no
from wsikit.survival.recipe import SIGNATURE, Discrete, Patients, Recipe
from wsikit.survival.validate import compare, cross_validate, difference_verdict, months_of, statistics, validate, verdict

H = [12.0, 36.0]


def cohort(n: int = 200, effect: float = 0.9, seed: int = 0, columns: int = 2) -> Patients:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns))
    time, censored = rng.exponential(40 * np.exp(-effect * x[:, 0])), rng.uniform(15, 90, n)
    site = np.array(["A", "B", "C"])[np.arange(n) % 3]
    follow = FollowUp(np.array([f"P{i}" for i in range(n)]), np.minimum(time, censored).clip(0.1), time <= censored, "OS", None, site)
    return Patients(pd.DataFrame(x, columns=[f"x{i}" for i in range(columns)]), follow)


def test_folds_hold_each_patient_once_and_events_evenly() -> None:
    follow = cohort().follow
    folds = event_folds(follow, 5, seed=3)
    assert np.bincount(folds).tolist() == [40] * 5
    events = [follow.event[folds == k].sum() for k in range(5)]
    assert max(events) - min(events) <= 1
    sites, names = site_folds(follow)
    assert names == ["A", "B", "C"]
    assert all(len(set(follow.site[sites == k])) == 1 for k in range(3))  # type: ignore[index]
    with pytest.raises(LabelsError, match="3 events cannot be spread over 5 folds"):
        event_folds(FollowUp(follow.patient, follow.time_months, np.arange(200) < 3, "OS"), 5)
    with pytest.raises(LabelsError, match="need a column 'site'"):
        site_folds(FollowUp(follow.patient, follow.time_months, follow.event, "OS"))


def test_predictions_come_from_models_that_have_not_seen_the_patient() -> None:
    """Changing one patient's outcome and features changes predictions of the other folds only."""
    p = cohort(80)
    folds = event_folds(p.follow, 4)
    months = months_of(p.follow, H)
    before = cross_validate(Recipe(["x0", "x1"]), p, folds, months)
    i = int(np.flatnonzero(p.follow.event)[0])
    time = p.follow.time_months.copy()
    time[i] = 0.2
    changed = Patients(p.table, FollowUp(p.follow.patient, time, p.follow.event, "OS"))
    after = cross_validate(Recipe(["x0", "x1"]), changed, folds, months)
    assert after.risk[folds == folds[i]].tolist() == before.risk[folds == folds[i]].tolist()
    assert (after.risk[folds != folds[i]] != before.risk[folds != folds[i]]).all()


def test_the_truth_is_found_and_said() -> None:
    p = cohort()
    folds, months = event_folds(p.follow, 5), months_of(p.follow, H)
    real, noise = (cross_validate(Recipe([c]), p, folds, months) for c in ("x0", "x1"))
    scores = validate(p.follow, real, H, 300)
    assert scores["c_index"].low > 0.6
    assert scores["ipa"].low > 0
    assert scores["auc_36"].low > 0.6
    assert "more often than by chance" in verdict(scores)
    nothing = validate(p.follow, noise, H, 300)
    assert nothing["c_index"].low < 0.5
    assert "no better than chance" in verdict(nothing)
    assert nothing["ipa"].value < 0.02
    difference = compare(p.follow, real, noise, draws=300)
    assert difference.low > 0
    assert compare(p.follow, real, noise, "ibs", 300).high < 0
    assert "image is better" in difference_verdict("image", "clinic", difference)
    assert "no difference" in difference_verdict("a", "b", compare(p.follow, noise, noise, draws=50))
    assert set(scores) == set(statistics(p.follow, real, H))


def test_selection_outside_the_folds_would_look_good_and_inside_it_does_not() -> None:
    """300 columns of noise: chosen on all patients they seem to predict; chosen in the folds they do not."""
    p = cohort(100, effect=0.0, columns=300)
    folds, months = event_folds(p.follow, 5), months_of(p.follow, H)
    from wsikit.survival.select import relevance

    best = [f"x{i}" for i in np.argsort(-relevance(p.table.to_numpy(), p.follow))[:6]]
    leaked = validate(p.follow, cross_validate(Recipe(best), p, folds, months), H, 100)["c_index"]
    honest = validate(p.follow, cross_validate(Recipe(list(p.table), select="mrmr"), p, folds, months), H, 100)["c_index"]
    assert leaked.low > 0.55
    assert honest.low < 0.5 < honest.high + 0.03


def test_gaps_are_filled_and_sites_left_out() -> None:
    p = cohort()
    table = p.table.copy()
    table.loc[::5, "x0"] = np.nan
    holes = Patients(table, p.follow)
    folds, _ = site_folds(p.follow)
    found = cross_validate(Recipe(["x0", "x1"], penalty=None), holes, folds, months_of(p.follow, H))
    assert np.isfinite(found.survival).all()
    assert validate(p.follow, found, H, 50)["c_index"].value > 0.6
    assert ((found.group >= 0) & (found.group <= 1)).all()


def test_a_signature_enters_out_of_fold() -> None:
    """A network that learns noise by heart must get no weight on top: its out-of-fold score does not predict."""
    p = cohort(120, effect=0.0, columns=20)
    model = Recipe((), "deepsurv", list(p.table)).fit(p)
    assert model.names == [SIGNATURE]
    assert abs(model.top.beta[0]) < 0.5
    both = Recipe(["x0"], "deepsurv", ["x1"]).fit(cohort(120))
    assert both.names == ["x0", SIGNATURE]
    assert both.top.beta[0] > 0.4


def test_discrete_hazards_give_survival_curves() -> None:
    p = cohort(150)
    months = np.linspace(0, 80, 9)
    found = Discrete(["x0", "x1"]).fit(p).survival(p, months)
    assert (np.diff(found, axis=1) <= 1e-12).all()
    assert found[:, 0] == pytest.approx(1)


def test_groups_are_cut_where_the_training_patients_were() -> None:
    risk = np.arange(9.0)
    assert cut_offs(risk) == [4.0]
    assert cut_offs(risk, 3) == pytest.approx([8 / 3, 16 / 3])
    p = cohort()
    model = Recipe(["x0"]).fit(p)
    cuts = cut_offs(model.risk(p))
    found = separation(p.follow, [group_of(r, cuts) for r in model.risk(p)], 60.0)
    assert [g.name for g in found.groups] == ["low", "high"]
    assert [g.patients for g in found.groups] == [100, 100]
    assert found.log_rank.p < 1e-4
    ratio, low, high = found.hazard_ratio["high"]
    assert 1 < low < ratio < high
    assert found.groups[0].restricted_mean_months[0] > found.groups[1].restricted_mean_months[0]


def test_yes_or_no() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    yes = rng.uniform(size=300) < 1 / (1 + np.exp(-(x[:, 0] - 0.5)))
    fitted = fit_logistic(x, ["a", "b"], yes, penalty=1e-6)
    assert abs(fitted.beta[0] - 1) < 2.5 * fitted.se[0]
    assert abs(fitted.intercept + 0.5) < 2.5 * np.sqrt(fitted.covariance[0, 0])
    follow = yes_or_no(np.arange(300).astype(str), yes, "metastasis")
    p = Patients(pd.DataFrame(x, columns=["a", "b"]), follow)
    months = months_of(follow, [1.0])
    found = cross_validate(Recipe(["a", "b"], outcome="yes-no"), p, event_folds(follow, 5), months)
    scores = validate(follow, found, [1.0], 100)
    at = int(np.argmin(np.abs(months - 1.0)))
    assert scores["auc_1"].value == pytest.approx(roc_auc_score(yes, 1 - found.survival[:, at]))
    assert scores["auc_1"].low > 0.6
    low, high = fitted.interval(x[:3], np.array([1.0]))
    assert (low < fitted.survival(x[:3], np.array([1.0]))).all()
    assert (fitted.survival(x[:3], np.array([1.0])) < high).all()
    with pytest.raises(LabelsError, match="yes for all"):
        fit_logistic(x, ["a", "b"], np.ones(300, bool))


def test_by_a_time_those_followed_for_less_cannot_be_asked() -> None:
    f = FollowUp(np.array(list("abcd")), np.array([5.0, 30.0, 10.0, 24.0]), np.array([True, True, False, False]), "RFS")
    asked, unknown = by_time(f, 24.0)
    assert (asked.patient.tolist(), asked.event.tolist(), unknown) == (["a", "b", "d"], [True, False, False], ["c"])
    assert asked.endpoint == "RFS by 24 months"
    with pytest.raises(LabelsError, match="happened to 0 of"):
        by_time(f, 2.0)
