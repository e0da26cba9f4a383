"""Scores of the published rules: counts at their edges, probabilities against simulation, and when a rule is not to be used."""

from __future__ import annotations

import numpy as np
import pytest

from wsikit.aggregate.counting import Counting, Grounds, count_mitoses, parse_counting
from wsikit.aggregate.grading import PRESETS, grade
from wsikit.aggregate.hotspot import SHAPES, Hotspot, Window
from wsikit.aggregate.rates import DetectorError, corrected_rate, detector_error, poisson_interval, score_probabilities
from wsikit.errors import UsageError

TOLD = {"neoadjuvant": "no", "diagnosis": "leiomyosarcoma"}
ZEHRA = DetectorError(97, 33, 11)


def spot(count: int, tissue_mm2: float, *flags: str, window_mm2: float = 1.734) -> Hotspot:
    low, high = poisson_interval(count, tissue_mm2)
    return Hotspot(0.0, 0.0, 1.0, 1.0, tissue_mm2, count, count / tissue_mm2, low, high, flags, "square", window_mm2)


@pytest.mark.parametrize(("count", "score"), [(0, "1"), (9, "1"), (10, "2"), (19, "2"), (20, "3"), (60, "3")])
def test_fnclcc_scores_begin_at_ten_and_twenty(count: int, score: str) -> None:
    assert grade("fnclcc", spot(count, 1.734), TOLD)["score"] == score
    assert grade("fnclcc", spot(count, 1.5), TOLD)["score"] == score, "a window with 86 % of tissue is a window"


@pytest.mark.parametrize(("count", "score"), [(3, "below"), (4, "reached")])
def test_uterine_epithelioid_is_reached_at_four(count: int, score: str) -> None:
    assert grade("uterine-epithelioid", spot(count, 2.376), TOLD)["score"] == score
    assert grade("uterine-spindle", spot(count + 6, 2.376), TOLD)["score"] == score


def test_too_little_tissue_is_scaled_and_says_so() -> None:
    found = grade("fnclcc", spot(6, 0.867, "insufficient_area"), TOLD)
    assert (found["score"], found["count_in_area"]) == ("2", 12.0)
    assert found["flags"] == ["insufficient_area", "rescaled", "borderline"]
    assert (found["low"], found["high"]) == pytest.approx([2 * v for v in poisson_interval(6, 1.0)], abs=1e-3)


def test_a_count_whose_limits_reach_another_score_is_borderline() -> None:
    """Garwood: 3 → 0.6–8.8 stays below 10; 4 → 1.1–10.2 does not; 31 → 21.1–44.0 stays above 20."""
    flags = {count: "borderline" in grade("fnclcc", spot(count, 1.734), TOLD)["flags"] for count in (3, 4, 12, 30, 31)}
    assert flags == {3: False, 4: True, 12: True, 30: False, 31: False}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"neoadjuvant": "yes"}, "neoadjuvant"),
        ({"neoadjuvant": "TRUE "}, "neoadjuvant"),
        ({"neoadjuvant": "perhaps"}, "neither yes nor no"),
        ({"diagnosis": "Alveolar soft-part sarcoma"}, "not used for alveolar soft part sarcoma"),
        ({"diagnosis": "embryonal rhabdomyosarcoma"}, "not used"),
        ({"diagnosis": "ERMS"}, "not used"),
        ({"diagnosis": "Ewing's sarcoma"}, "not used for ewing sarcoma"),
        ({"diagnosis": "RMS, alveolar"}, "not used for rms alveolar"),
        ({"diagnosis": "Clear-Cell Sarcomas"}, "not used"),
    ],
)
def test_where_the_guideline_leaves_a_case_out_there_is_no_score(facts: dict[str, str], why: str) -> None:
    found = grade("fnclcc", spot(12, 1.734), facts)
    assert found["status"] == "not_applicable"
    assert why in found["reason"]
    assert "score" not in found


def test_what_the_cases_do_not_say_is_named() -> None:
    assert len(grade("fnclcc", spot(12, 1.734), {})["assumes"]) == 2
    for other in ("epithelioid leiomyosarcoma", "non-rhabdomyosarcoma soft tissue sarcoma", "harms", "sclerosing epithelioid fibrosarcoma"):
        assert grade("fnclcc", spot(12, 1.734), {**TOLD, "diagnosis": other})["status"] == "ok"
    for specimen in ("biopsy", "Core needle", "core biopsies"):
        assert "minimum" in grade("fnclcc", spot(12, 1.734), {**TOLD, "specimen": specimen})["flags"]
    assert "minimum" not in grade("fnclcc", spot(12, 1.734), {**TOLD, "specimen": "resection"})["flags"]
    assert "no grade" in grade("fnclcc", spot(12, 1.734), TOLD)["component"]


@pytest.mark.parametrize("error", [None, ZEHRA])
def test_probabilities_are_those_of_a_simulation(error: DetectorError | None) -> None:
    rng = np.random.default_rng(3)
    rate = rng.gamma(12.5, size=400_000)
    if error is not None:
        shares = rng.dirichlet([97.5, 33.5, 11.5], 400_000)
        rate *= (shares[:, 0] + shares[:, 2]) / (shares[:, 0] + shares[:, 1])
    expected = [(rate < 10).mean(), ((rate >= 10) & (rate < 20)).mean(), (rate >= 20).mean()]
    found = score_probabilities(12, (10, 20), error)
    assert found == pytest.approx(expected, abs=0.004)
    assert sum(found) == pytest.approx(1)


def test_detector_errors_move_and_widen_the_interval() -> None:
    """Zehra et al.: 130 detections for 108 figures, so fewer figures than detections, and less sure."""
    value, low, high = corrected_rate(20, 2.0, ZEHRA)
    assert value == pytest.approx(10 * 108 / 130)
    alone = [v * 108 / 130 for v in poisson_interval(20, 2.0)]
    assert low < value < high
    assert high - low > alone[1] - alone[0] - 0.6
    none = corrected_rate(0, 2.0, ZEHRA)
    assert none[:2] == (0, 0)
    assert 0.5 < none[2] < poisson_interval(0, 2.0)[1]
    sure = corrected_rate(20, 2.0, DetectorError(10**6, 0, 0))
    assert sure == pytest.approx((10, *poisson_interval(20, 2.0)), rel=0.06)
    assert high - low > (sure[2] - sure[1]) * 108 / 130


def test_only_whole_slides_and_fields_say_how_a_detector_errs() -> None:
    good = {"unit": "fields", "tp": 9, "fp": 2, "fn": 1}
    assert detector_error({"validation": {**good, "unit": "squares"}}) is None
    assert detector_error({"validation": {**good, "unit": "squares", "tp": 900}, "test": good, "note": "x"}) == DetectorError(9, 2, 1)
    assert detector_error({"a": {**good, "tp": 50}, "b": {**good, "unit": "slides"}}) == DetectorError(9, 2, 1)
    assert detector_error({"a": {**good, "tp": 0}, "b": {**good, "fp": 1.5}, "c": {**good, "fn": -1}}) is None


def test_each_preset_is_counted_in_its_own_area() -> None:
    """12 mitoses in a tight cluster, 1 far away: the same score whatever window the user looks at."""
    rng = np.random.default_rng(0)
    position = np.concatenate([rng.uniform(3000, 3400, (12, 2)), [[9000.0, 9000.0]]])
    ground = Grounds(np.ones((700, 700), bool), (16.0, 16.0), (0.5, 0.5))
    for window in (Window(0.2), Window(2.0), Window(1.734, "circle")):
        result = count_mitoses(position, 0, 0.5, ground, window, gradings=["fnclcc", "uterine-spindle"], facts=TOLD, error=ZEHRA)
        assert result["grading"]["fnclcc"]["window"]["window_mm2"] == PRESETS["fnclcc"].area_mm2 == 1.734
        assert result["grading"]["uterine-spindle"]["window"]["tissue_mm2"] == pytest.approx(2.376)
        assert [g["count_in_area"] for g in result["grading"].values()] == [12, 12]
        assert result["hotspot"]["count"] == 12
        assert result["hotspot"]["shape"] == window.shape
        assert result["hotspot"]["chance"]["share_as_high"] == pytest.approx(1 / 201, abs=1e-4)
        assert result["corrected"]["slide"]["per_mm2"] == pytest.approx(result["per_mm2"] * 108 / 130, abs=1e-5)


def test_a_preset_is_counted_in_the_shape_that_was_asked_for() -> None:
    """Ten fields in a row, two mitoses each: no square of their area holds all of them, and consecutive fields do."""
    diameter_px = 2 * np.sqrt(0.1734 / np.pi) * 2000
    middles = np.column_stack([2000 + diameter_px * np.arange(10), np.full(10, 6000.0)])
    position = np.concatenate([middles, middles + 20])
    ground = Grounds(np.ones((700, 700), bool), (16.0, 16.0), (0.5, 0.5))
    found = {s: count_mitoses(position, 0, 0.5, ground, Window(2.0, s), gradings=["fnclcc"], facts=TOLD)["grading"]["fnclcc"] for s in SHAPES}
    assert {s: g["window"]["shape"] for s, g in found.items()} == {s: s for s in SHAPES}
    assert {g["window"]["window_mm2"] for g in found.values()} == {1.734}
    assert len(found["fields"]["window"]["fields"]) == 10
    assert found["square"]["count_in_area"] < 10 < found["fields"]["count_in_area"] <= 20
    assert (found["square"]["score"], found["fields"]["score"]) == ("1", "2" if found["fields"]["count_in_area"] < 20 else "3")


def test_no_tissue_and_little_tissue_give_what_they_can() -> None:
    ground = Grounds(np.zeros((9, 9), bool), (16.0, 16.0), (0.5, 0.5))
    assert count_mitoses(np.empty((0, 2)), 0, 0.5, ground, Window(), gradings=["fnclcc"])["status"] == "abstained"
    ground = Grounds(np.ones((9, 9), bool), (16.0, 16.0), (0.5, 0.5))
    result = count_mitoses(np.array([[5.0, 5.0]]), 0, 0.5, ground, Window(2.0, "fields"), gradings=["fnclcc"], facts=TOLD)
    assert result["hotspot"]["flags"] == ["insufficient_area"]
    assert "chance" not in result["hotspot"]
    assert "rescaled" in result["grading"]["fnclcc"]["flags"]


def test_settings_that_cannot_be_are_refused_by_name() -> None:
    assert parse_counting(area_mm2=None, shape=None) == Counting()
    assert parse_counting(field_mm=0.55, fields=10).window(2.0).area_mm2 == pytest.approx(2.376, abs=1e-3)
    assert parse_counting(shape="circle").window(1.5) == Window(1.5, "circle")
    for bad, named in (
        ({"area_mm2": -1.0}, "--hotspot-area: Input should be greater than 0"),
        ({"shape": "hexagon"}, "shape"),
        ({"grading": ["french"]}, "no grading is called 'french'; there are: fnclcc"),
        ({"area_mm2": 2.0, "field_mm": 0.5}, "not both"),
        ({"fields": 0}, "fields"),
    ):
        with pytest.raises(UsageError, match=named):
            parse_counting(**bad)
