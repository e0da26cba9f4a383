"""Calls by hand, and each reason to withhold one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.aggregate.calls import bag_probability, call_patient, call_slide
from wsikit.aggregate.doubt import doubt, outside_domain, prediction_set, withheld_call
from wsikit.models import Card

Make = Callable[..., Card]


def tiles(*rows: tuple[float, float, float], repeat: int = 1) -> np.ndarray:
    return np.array(rows * repeat, np.float32)


def test_a_slide_is_called_by_mean_probability_and_not_by_majority(make_card: Make) -> None:
    """Seven tiles lean to A, five are sure of B: the mean says B, the share of tiles says A, both are given."""
    probability = np.concatenate([tiles((0.5, 0.3, 0.2), repeat=7), tiles((0.0, 1.0, 0.0), repeat=5)])
    result = call_slide(make_card(), probability)
    assert (result["status"], result["reason"], result["call"], result["n_tiles"]) == ("ok", "", "B", 12)
    assert result["probability"] == pytest.approx({"A": 3.5 / 12, "B": 7.1 / 12, "C": 1.4 / 12}, abs=1e-6)
    assert result["tile_share"] == pytest.approx({"A": 7 / 12, "B": 5 / 12, "C": 0.0}, abs=1e-6)
    p = np.array([3.5, 7.1, 1.4]) / 12
    assert result["doubt"] == pytest.approx(-(p * np.log(p)).sum() / math.log(3), abs=1e-5)


def test_a_patient_is_the_mean_of_all_tiles(make_card: Make) -> None:
    rng = np.random.default_rng(0)
    slides = [rng.dirichlet((1, 3, 1), n).astype(np.float32) for n in (30, 5, 120)]
    card = make_card(decision={"min_probability": 0.0, "min_tiles": 1})
    patient, whole = call_patient(card, [call_slide(card, s) for s in slides]), call_slide(card, np.concatenate(slides))
    assert patient["n_tiles"] == 155
    assert patient["call"] == whole["call"] == "B"
    for key in ("probability", "tile_share"):
        assert patient[key] == pytest.approx(whole[key], abs=2e-6)
    assert patient["doubt"] == pytest.approx(whole["doubt"], abs=1e-5)


def test_slides_too_small_for_a_call_of_their_own_count_for_the_patient(make_card: Make) -> None:
    card = make_card(decision={"min_tiles": 10})
    small = [
        call_slide(card, tiles((0.1, 0.1, 0.8), repeat=6)),
        call_slide(card, tiles((0.2, 0.1, 0.7), repeat=6)),
        call_slide(card, tiles()[:0].reshape(0, 3)),
    ]
    assert [s["status"] for s in small] == ["abstained"] * 3
    patient = call_patient(card, small)
    assert (patient["status"], patient["call"], patient["n_tiles"]) == ("ok", "C", 12)
    assert patient["probability"]["C"] == pytest.approx(0.75)


def test_a_calibrated_models_tiles_are_tempered_once_and_then_averaged(make_card: Make) -> None:
    """As its temperature was learnt. At 2 a probability is its square root, over their sum; one of a bag is tempered as one."""
    card = make_card(calibration={"origin": "a test", "patients": 20, "slides": 20, "temperature": 2.0})
    p = tiles((0.9, 0.05, 0.05), (0.2, 0.5, 0.3), repeat=6)
    root = np.sqrt(p.astype(np.float64))
    assert list(call_slide(card, p)["probability"].values()) == pytest.approx((root / root.sum(1, keepdims=True)).mean(0), abs=1e-6)
    bag = np.sqrt(bag_probability(p, np.zeros(12)))
    assert list(call_slide(card, p, attention=np.zeros(12))["probability"].values()) == pytest.approx(bag / bag.sum(), abs=1e-6)


def test_a_class_at_the_cut_off_is_in_the_set(make_card: Make) -> None:
    """The cut-off is a calibration patient's own: without equality, sets would hold the truth less often than they say."""
    conformal = {"coverage": 0.9, "cutoff": 0.6, "patients": 20}
    card = make_card(calibration={"origin": "a test", "patients": 20, "slides": 20, "conformal": conformal})
    assert prediction_set(card, np.array([0.6, 0.4, 0.0])) == ["A", "B"]
    assert prediction_set(card, np.array([0.61, 0.39, 0.0])) == ["A"]


def test_too_few_tiles_withhold_the_call_and_keep_the_numbers(make_card: Make) -> None:
    card = make_card(decision={"min_tiles": 10})
    result = call_slide(card, tiles((0.9, 0.1, 0.0), repeat=9))
    assert (result["status"], result["call"]) == ("abstained", "")
    assert result["reason"] == "only 9 tiles of tissue were scored, 10 are needed"
    assert result["probability"]["A"] == pytest.approx(0.9)
    assert call_slide(card, tiles((0.9, 0.1, 0.0), repeat=10))["call"] == "A"


def test_no_class_above_the_cards_minimum_withholds_the_call(make_card: Make) -> None:
    result = call_slide(make_card(decision={"min_probability": 0.6}), tiles((0.59, 0.21, 0.2), repeat=20))
    assert (result["status"], result["call"]) == ("abstained", "")
    assert result["reason"] == "no class reaches probability 0.6: the highest is 0.590"
    assert call_slide(make_card(decision={"min_probability": 0.25}), tiles((0.25, 0.5, 0.25), repeat=20))["call"] == "B"
    assert withheld_call(make_card(decision={"min_probability": 0.5}), np.array([0.5, 0.5, 0.0]), 20) == ""


def test_a_slide_without_tiles_has_no_numbers(make_card: Make) -> None:
    result = call_slide(make_card(), np.empty((0, 3), np.float32))
    assert (result["status"], result["call"], result["probability"], result["doubt"], result["n_tiles"]) == ("abstained", "", {}, None, 0)
    assert "no tile" in result["reason"]
    assert call_patient(make_card(), [result, result])["status"] == "abstained"


def test_a_model_that_gives_no_numbers_gives_no_call(make_card: Make) -> None:
    probability = tiles((0.1, 0.8, 0.1), repeat=40)
    probability[7, 2] = np.nan
    result = call_slide(make_card(), probability)
    assert (result["status"], result["call"], result["probability"], result["doubt"]) == ("abstained", "", {}, None)
    assert "no number for 1 of 40 tiles" in result["reason"]
    good = call_slide(make_card(), tiles((0.1, 0.8, 0.1), repeat=12))
    patient = call_patient(make_card(), [result, good])
    assert (patient["call"], patient["n_tiles"]) == ("B", 12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=8))
def test_doubt_is_between_certain_and_undecided_whatever_the_order(weights: list[float]) -> None:
    p = np.array(weights) / np.sum(weights)
    assert 0 <= doubt(p) <= 1 + 1e-12
    assert doubt(p[::-1]) == pytest.approx(doubt(p))
    assert doubt(np.eye(len(p))[0]) == 0
    assert doubt(np.full(len(p), 1 / len(p))) == pytest.approx(1)


def test_doubt_by_hand() -> None:
    assert doubt(np.array([0.9, 0.1])) == pytest.approx(0.4689956)
    assert doubt(np.array([0.7, 0.2, 0.1])) == pytest.approx(0.7298466991620975)
    assert doubt(np.array([1.0])) == 0


def test_a_phantom_model_says_nothing_about_tissue(make_card: Make) -> None:
    phantom = make_card(trained_on={"domain": "phantom", "description": "phantoms"})
    assert "phantoms" in outside_domain(phantom, is_phantom_slide=False)
    assert "--model sts-subtype=" in outside_domain(phantom, is_phantom_slide=False)
    assert outside_domain(phantom, is_phantom_slide=True) == ""
    assert outside_domain(make_card(), is_phantom_slide=False) == ""
