"""Who is believed about µm per px, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsikit.resolution import APPROXIMATE, Clue, Resolution, choose_mpp, contradiction, is_believable, parse_number

UNBELIEVABLE = [0.0, -0.0, -0.25, 0.0499, 20.01, 1e308, -1e308, 352.8, math.inf, -math.inf, math.nan]
GOOD = Clue("file metadata", 0.25, 0.26)


@pytest.mark.parametrize("mpp", [0.05, 0.1, 0.25, 1.0, 20.0])
def test_slides_have_these(mpp: float) -> None:
    assert is_believable(mpp)


@pytest.mark.parametrize("mpp", UNBELIEVABLE)
def test_no_slide_has_these(mpp: float) -> None:
    assert not is_believable(mpp)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_believable_is_the_range(mpp: float) -> None:
    assert is_believable(mpp) == (0.05 <= mpp <= 20)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.499", 0.499), ("0,499", 0.499), (" 0.25 ", 0.25), ("5e-1", 0.5), (20, 20.0), (0.5, 0.5), ("-1", -1.0), ("1e308", 1e308)],
)
def test_numbers_as_scanners_write_them(text: object, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", " ", "20x", "about 20", None, "1,234.5", "1,234", "-12,345", "1.2.3", "0.5 µm", "1_0", "0x10"])
def test_other_text_is_no_number(text: object) -> None:
    assert parse_number(text) is None


def test_not_a_number_is_not_believed() -> None:
    number = parse_number("nan")
    assert number is not None
    assert choose_mpp([], None, number).mpp is None


def test_an_override_beats_the_file() -> None:
    found = choose_mpp([GOOD], 40, 0.5)
    assert (found.mpp, found.source, found.refusal) == ((0.5, 0.5), "override", "")
    assert choose_mpp([GOOD], 40, 0.5, "csv").source == "csv"


def test_the_first_clue_beats_the_others_and_keeps_its_axes_apart() -> None:
    found = choose_mpp([GOOD, Clue("tiff resolution", 0.5, 0.5)], 20)
    assert (found.mpp, found.source, found.refusal) == ((0.25, 0.26), "file metadata", "")


@pytest.mark.parametrize(("objective", "mpp"), [(40, 0.25), (20, 0.5), (10, 1.0), (2.5, 4.0)])
def test_the_objective_is_the_last_resort_and_says_so(objective: float, mpp: float) -> None:
    found = choose_mpp([], objective)
    assert found.mpp == (mpp, mpp)
    assert found.source == APPROXIMATE
    assert "approximate" in found.source


@pytest.mark.parametrize("objective", [None, 0, -20, 0.1, 1000, math.nan, math.inf])
def test_no_believable_objective_is_no_resolution(objective: float | None) -> None:
    found = choose_mpp([], objective)
    assert found.mpp is None
    assert found.source == ""
    assert "states no resolution" in found.refusal


@pytest.mark.parametrize("bad", UNBELIEVABLE)
@pytest.mark.parametrize("axis", ["x", "y", "both"])
def test_an_impossible_clue_is_refused_and_not_passed_over(bad: float, axis: str) -> None:
    clue = Clue("file metadata", bad if axis != "y" else 0.25, bad if axis != "x" else 0.25)
    found = choose_mpp([clue, Clue("tiff resolution", 0.5, 0.5)], 20)
    assert found.mpp is None
    assert "file metadata" in found.refusal
    assert f"{bad:g}" in found.refusal


@pytest.mark.parametrize("bad", UNBELIEVABLE)
def test_an_impossible_override_is_refused_whatever_the_file_says(bad: float) -> None:
    found = choose_mpp([GOOD], 20, bad, "csv")
    assert found.mpp is None
    assert "csv" in found.refusal
    assert "0.05–20" in found.refusal


@pytest.mark.parametrize(("clues", "objective", "override"), [([], None, None), ([Clue("tiff resolution", 0, 0)], 20, None), ([], None, 1e308)])
def test_a_refusal_says_what_to_pass(clues: list[Clue], objective: float | None, override: float | None) -> None:
    refusal = choose_mpp(clues, objective, override).refusal
    assert "--mpp-override" in refusal
    assert "mpp column in the CSV" in refusal
    assert "\n" not in refusal


@given(st.lists(st.builds(Clue, st.just("file metadata"), st.floats(), st.floats()), max_size=2), st.none() | st.floats(), st.none() | st.floats())
def test_what_is_chosen_is_always_believable(clues: list[Clue], objective: float | None, override: float | None) -> None:
    found = choose_mpp(clues, objective, override)
    if found.mpp is None:
        assert found.refusal
        assert not found.source
    else:
        assert all(map(is_believable, found.mpp))
        assert found.source
        assert not found.refusal


@pytest.mark.parametrize(("mpp", "objective", "vendor"), [(0.2282, 40, "hamamatsu"), (0.499, 20, "aperio"), (0.2633, 40, "aperio"), (0.2325, 20, "mirax")])
def test_scanners_as_they_are_contradict_nothing(mpp: float, objective: float, vendor: str) -> None:
    assert contradiction(Resolution((mpp, mpp), "file metadata"), objective, vendor) == ""


@pytest.mark.parametrize(("mpp", "objective"), [(0.499, 40), (0.25, 20), (0.25, 2.5), (20.0, 40)])
def test_an_objective_of_another_scan_is_told(mpp: float, objective: float) -> None:
    found = contradiction(Resolution((mpp, mpp), "csv"), objective)
    assert f"{objective:g}x" in found
    assert f"{mpp:g} (csv)" in found


@given(st.none() | st.floats(0.05, 20), st.none() | st.floats())
def test_a_contradiction_is_text_and_never_an_error(mpp: float | None, objective: float | None) -> None:
    resolution = choose_mpp([Clue("file metadata", mpp, mpp)] if mpp else [], objective)
    found = contradiction(resolution, objective)
    assert "\n" not in found
    if resolution.source == APPROXIMATE:
        assert not found
