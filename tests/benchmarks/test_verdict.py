"""From figures to verdicts: the right case is compared with the right one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report
from case import Case, Floor
from jobs.tile import ALL, DECODE, FLOOR, READ, STAIN, targets
from pictures import draw
from runs import Measured
from task import Task
from verdict import GIB, Figures, Target, breakdown, roofline, wrong_pixels


def measured(stage: str, who: str, cores: int, *rates: float, floors: tuple[Floor, ...] = (), **facts: Any) -> Measured:
    runs = [
        {"amount": 1e6, "seconds": 1 / r, "cpu_seconds": 0.5 / r, "bytes": 10, "files": 30, "peak_bytes": GIB, "others_cores": 0.0, "facts": {}, "versions": {}}
        | facts
        for r in rates
    ]
    return Measured(Case(stage, who, "ours:none", cores, slide="mosaic", floors=floors), runs)


@pytest.fixture
def figures() -> list[Measured]:
    return [
        measured(FLOOR, DECODE, 1, 190, 200, 900),
        measured(FLOOR, DECODE, 2, 400),
        measured(READ, "wsikit", 1, 170),
        measured(READ, "openslide + Pillow", 1, 40),
        measured(STAIN, "wsikit", 1, 180),
        measured(ALL, "wsikit", 1, 50, peak_bytes=GIB),
        measured(ALL, "wsikit", 2, 60),
        measured(ALL, "wsikit --workers 2", 2, 95, peak_bytes=3 * GIB),
        measured(ALL, "wsikit --workers 1, 3 slides", 1, 48),
        measured(ALL, "wsikit --workers 2, 3 slides", 2, 90),
        measured(ALL, "TIAToolbox", 2, 3),
        Measured(
            Case(ALL, "openslide + torchstain script", "peers:script", 2, peer="torchstain", slide="mosaic"), absent="cannot be installed: no such package"
        ),
    ]


def test_targets_compare_medians_of_the_cases_they_name(figures: list[Measured]) -> None:
    found = {t.what: t for t in targets(Figures(figures))}
    assert found["reading ≥ 0.8 × the decode floor, one core"].value == pytest.approx(170 / 200)  # the median, not the mean
    assert found["reading ≥ 5 × openslide + Pillow, one core"].value == pytest.approx(170 / 40)
    assert found["reading ≥ 5 × openslide + Pillow, one core"].verdict == "missed"
    assert found["slide → Zarr, lossless, ≥ 0.25 × the decode floor, one core"].value == pytest.approx(0.25)
    assert found["slide → Zarr, lossless, ≥ 0.25 × the decode floor, one core"].verdict == "reached"
    assert found["slide → Zarr ≥ 30 × TIAToolbox, 2 cores each"].value == pytest.approx(95 / 3)  # the faster way of wsikit
    assert found["two cores ≥ 1.7 × one, 3 slides → Zarr"].value == pytest.approx(90 / 48)
    assert found["resident memory of all processes together ≤ 2 GiB"].verdict == "missed"  # the worst case counts


def test_per_core_second_counts_the_time_at_work_and_not_that_of_others(figures: list[Measured]) -> None:
    idle = measured(READ, "wsikit", 1, 170, cpu_seconds=1 / 340)
    unknown = measured(ALL, "wsikit", 2, 60, cpu_seconds=None)
    f = Figures([idle, unknown, *figures], per_core=True)
    assert f.rate(READ, "wsikit") == pytest.approx(340)
    assert f.rate(FLOOR, DECODE) == pytest.approx(400)
    assert math.isnan(f.rate(ALL, "wsikit", 2))
    found = {t.what: t.value for t in targets(f)}
    assert found["reading ≥ 0.8 × the decode floor, one core"] == pytest.approx(340 / 400)
    assert math.isnan(found["two cores ≥ 1.7 × one, 3 slides → Zarr"])


def test_what_was_not_measured_is_no_verdict(figures: list[Measured]) -> None:
    found = {t.what: t.verdict for t in targets(Figures(figures))}
    assert found["slide → Zarr ≥ 15 × openslide + torchstain, 2 cores each"] == "not measured"
    assert found["slide → Zarr, jpeg:90, ≥ 0.35 × the decode floor, one core"] == "not measured"
    assert {t.verdict for t in targets(Figures([]))} == {"not measured"}


@pytest.mark.parametrize(("value", "at_most", "verdict"), [(2.0, False, "reached"), (1.9, False, "missed"), (2.0, True, "reached"), (2.1, True, "missed")])
def test_a_target_is_reached_at_its_very_value(value: float, at_most: bool, verdict: str) -> None:
    assert Target("x", value, 2.0, at_most=at_most).verdict == verdict
    assert Target("x", math.nan, 2.0, at_most=at_most).verdict == "not measured"


def test_time_by_its_own_clock_has_the_largest_first_also_between_the_stages() -> None:
    run = {"seconds_of": {"read": 0.004, "write pixels": 0.009}}
    found = breakdown(measured(ALL, "wsikit", 1, 50, facts=run))
    assert found == {"write pixels": 9.0, "between the stages": 7.0, "read": 4.0}
    assert list(found) == ["write pixels", "between the stages", "read"]
    assert breakdown(measured(ALL, "wsikit", 2, 50, facts=run)) == {}, "seconds of two workers are not seconds of the clock"


def test_the_roof_is_the_slower_of_processor_and_disk_and_the_largest_floor_of_it_is_the_bound() -> None:
    floors = (Floor(FLOOR, DECODE), Floor(FLOOR, "encode", times=2), Floor(FLOOR, "disk", "disk"))
    alone = [measured(FLOOR, DECODE, 1, 200), measured(FLOOR, "encode", 1, 100)]
    ours = measured(ALL, "wsikit", 1, 20, floors=floors)
    fast = roofline(ours, Figures([*alone, measured(FLOOR, "disk", 1, 50), ours]))
    assert (fast["roof"], fast["of_roof"], fast["bound"]) == (40.0, 0.5, "encode")  # 1 / 200 + 2 / 100
    slow = roofline(ours, Figures([*alone, measured(FLOOR, "disk", 1, 25), ours]))
    assert (slow["roof"], slow["of_roof"], slow["bound"]) == (25.0, 0.8, "disk")
    assert slow["floor_seconds_per_unit"] == {DECODE: 0.005, "encode": 0.02, "disk": 0.04}
    assert roofline(ours, Figures([*alone, ours])) == {}, "a floor that was not measured is not guessed"


def test_a_floor_may_have_other_cores_than_the_case() -> None:
    one, two = measured("score", "1", 1, 10), measured("score", "2", 2, 18, floors=(Floor("score", "1", times=1 / 2, cores=1),))
    assert roofline(two, Figures([one, two]))["of_roof"] == pytest.approx(0.9)


def test_other_pixels_than_openslides_are_shown() -> None:
    right, wrong = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 100, np.uint8)
    wrong[1, 2, 0] = 55
    cases = [
        measured(READ, "openslide + Pillow", 1, 40, probe=right),
        measured(READ, "tiffslide", 1, 40, probe=right),
        measured(READ, "odd", 1, 40, probe=wrong),
    ]
    assert set(wrong_pixels(Figures(cases)).values()) == {0, 45}
    assert next(v for k, v in wrong_pixels(Figures(cases)).items() if "odd" in k) == 45


def test_json_and_plot_keep_every_repetition_and_say_why_a_peer_is_absent(figures: list[Measured], tmp_path: Path) -> None:
    facts = report.as_json("tile", figures, {"repeats": 3}, targets)
    report.write_json(tmp_path / "a.json", facts)
    read = json.loads((tmp_path / "a.json").read_text())
    assert read["cases"][0]["rate"] == {"median": 200.0, "min": 190.0, "max": 900.0, "all": [190.0, 200.0, 900.0]}
    assert [c["absent"] for c in read["cases"] if "absent" in c] == ["cannot be installed: no such package"]
    for path in draw(facts, tmp_path):
        assert path.read_bytes()[:4] == b"\x89PNG"
    text = report.markdown(facts)
    assert "absent: cannot be installed" in text
    assert "| missed |" in text
    assert "missed?" not in text


def test_verdicts_from_a_busy_machine_are_questioned() -> None:
    busy = [measured(FLOOR, DECODE, 1, 200, others_cores=1.4), measured(READ, "wsikit", 1, 100, others_cores=1.2)]
    facts = report.as_json("tile", busy, {"repeats": 1}, targets)
    assert facts["about"]["quiet"] is False
    text = report.markdown(facts)
    assert "missed?" in text
    assert "not quiet: other work kept 1.3 cores busy" in text


def test_the_page_has_the_results_that_are_committed() -> None:
    assert report.page(report.read_results()) == report.PAGE.read_text(), "python benchmarks/report.py writes it"


def test_slow_peers_get_fewer_tiles_spread_over_the_slide(tmp_path: Path) -> None:
    every = np.stack(np.meshgrid(np.arange(40), np.arange(30)), -1).reshape(-1, 2) * 256
    np.save(tmp_path / "tiles.npy", every)
    task = Task("a:b", "", str(tmp_path / "tiles.npy"), 256, [0, 0], 128, 1, "")
    corners = task.corners()
    assert len(set(corners)) == 128
    assert (corners[0], corners[-1]) == ((0, 0), (39 * 256, 29 * 256))
    rows = {y for _, y in corners}
    assert len(rows) >= 8
    assert len(Task("a:b", "", str(tmp_path / "tiles.npy"), 256, [0, 0], None, 1, "").corners()) == 1200


def test_the_work_is_shared_out_once_to_each_thread() -> None:
    task, seen = Task("a:b", "", "", 256, [0, 0], None, 3, ""), []
    task.threads(lambda part: seen.extend(part), list(range(10)))
    assert sorted(seen) == list(range(10))
