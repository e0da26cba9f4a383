"""From figures to verdicts: the right case is compared with the right one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report
from cases import ALL, FLOOR, READ, STAIN, Case, all_cases
from job import Job
from runs import Measured
from verdict import GIB, Figures, Target, breakdown, targets, wrong_pixels


def measured(stage: str, who: str, cores: int, *rates: float, **facts: Any) -> Measured:
    runs = [
        {"px": 1e6, "seconds": 1 / r, "cpu_seconds": 0.5 / r, "bytes": 10, "files": 30, "peak_bytes": GIB, "others_cores": 0.0, "facts": {}, "versions": {}}
        | facts
        for r in rates
    ]
    return Measured(Case(stage, who, "ours:none", cores), runs)


@pytest.fixture
def figures() -> list[Measured]:
    return [
        measured(FLOOR, "imagecodecs", 1, 190, 200, 900),
        measured(FLOOR, "imagecodecs", 2, 400),
        measured(READ, "wsikit", 1, 170),
        measured(READ, "openslide + Pillow", 1, 40),
        measured(STAIN, "wsikit", 1, 180),
        measured(ALL, "wsikit", 1, 50, peak_bytes=GIB),
        measured(ALL, "wsikit", 2, 60),
        measured(ALL, "wsikit --workers 2", 2, 95, peak_bytes=3 * GIB),
        measured(ALL, "wsikit --workers 1, 3 slides", 1, 48),
        measured(ALL, "wsikit --workers 2, 3 slides", 2, 90),
        measured(ALL, "TIAToolbox", 2, 3),
        Measured(Case(ALL, "openslide + torchstain script", "peers:script", 2, packages=("x",)), absent="cannot be installed: no such package"),
    ]


def test_targets_compare_medians_of_the_cases_they_name(figures: list[Measured]) -> None:
    found = {t.what: t for t in targets(Figures(figures), 440)}
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
    assert f.rate(FLOOR, "imagecodecs") == pytest.approx(400)
    assert math.isnan(f.rate(ALL, "wsikit", 2))
    found = {t.what: t.value for t in targets(f, 440)}
    assert found["reading ≥ 0.8 × the decode floor, one core"] == pytest.approx(340 / 400)
    assert math.isnan(found["two cores ≥ 1.7 × one, 3 slides → Zarr"])


def test_what_was_not_measured_is_no_verdict(figures: list[Measured]) -> None:
    found = {t.what: t.verdict for t in targets(Figures(figures), 440)}
    assert found["slide → Zarr ≥ 15 × openslide + torchstain, 2 cores each"] == "not measured"
    assert found["slide → Zarr, jpeg:90, ≥ 0.35 × the decode floor, one core"] == "not measured"
    assert {t.verdict for t in targets(Figures([]), 440)} == {"not measured"}


@pytest.mark.parametrize(("value", "at_most", "verdict"), [(2.0, False, "reached"), (1.9, False, "missed"), (2.0, True, "reached"), (2.1, True, "missed")])
def test_a_target_is_reached_at_its_very_value(value: float, at_most: bool, verdict: str) -> None:
    assert Target("x", value, 2.0, at_most=at_most).verdict == verdict
    assert Target("x", math.nan, 2.0, at_most=at_most).verdict == "not measured"


def test_the_bottleneck_is_the_stage_with_the_most_time_also_between_the_stages() -> None:
    run = {"seconds_of": {"read": 0.004, "write pixels": 0.009}}
    found = breakdown(Figures([measured(FLOOR, "imagecodecs", 1, 250), measured(ALL, "wsikit", 1, 50, facts=run)]))
    assert found["ms_per_mpx"] == {"write pixels": 9.0, "between the stages": 7.0, "read": 4.0}
    assert (found["whole"], found["decode_floor"], found["bottleneck"]) == (20.0, 4.0, "write pixels")


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


def test_json_and_plot_keep_every_repetition_and_say_why_a_peer_is_absent(figures: list[Measured], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = report.as_json(figures, {"mosaic_megapixels": 440, "repeats": 3})
    report.write_json(tmp_path / "a.json", facts)
    read = json.loads((tmp_path / "a.json").read_text())
    assert read["cases"][0]["mpx_per_s"] == {"median": 200.0, "min": 190.0, "max": 900.0, "all": [190.0, 200.0, 900.0]}
    assert [c["absent"] for c in read["cases"] if "absent" in c] == ["cannot be installed: no such package"]
    report.plot(tmp_path / "a.png", figures, facts)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    report.show(figures, facts)
    out = capsys.readouterr().out
    assert "absent" in out
    assert "missed" in out
    assert "missed?" not in out


def test_verdicts_from_a_busy_machine_are_questioned(capsys: pytest.CaptureFixture[str]) -> None:
    busy = [measured(FLOOR, "imagecodecs", 1, 200, others_cores=1.4), measured(READ, "wsikit", 1, 100, others_cores=1.2)]
    facts = report.as_json(busy, {"mosaic_megapixels": 440, "repeats": 1})
    assert facts["about"]["quiet"] is False
    report.show(busy, facts)
    out = capsys.readouterr().out
    assert "missed?" in out
    assert "no figure by the clock can be trusted" in out


def test_cases_have_names_of_their_own_and_peers_pinned_packages() -> None:
    found = all_cases(4, 4096)
    assert len({c.name for c in found}) == len(found)
    assert {c.cores for c in found} == {1, 2, 4}
    assert all(c.packages for c in found if c.function.startswith("peers:"))
    assert all("==" in package or package in ("pillow", "numpy") for c in found for package in c.packages)


def test_slow_peers_get_fewer_tiles_spread_over_the_slide(tmp_path: Path) -> None:
    every = np.stack(np.meshgrid(np.arange(40), np.arange(30)), -1).reshape(-1, 2) * 256
    np.save(tmp_path / "tiles.npy", every)
    job = Job("a:b", "", str(tmp_path / "tiles.npy"), 256, [0, 0], 128, 1, "")
    corners = job.corners()
    assert len(set(corners)) == 128
    assert (corners[0], corners[-1]) == ((0, 0), (39 * 256, 29 * 256))
    rows = {y for _, y in corners}
    assert len(rows) >= 8
    assert len(Job("a:b", "", str(tmp_path / "tiles.npy"), 256, [0, 0], None, 1, "").corners()) == 1200


def test_the_work_is_shared_out_once_to_each_thread() -> None:
    job, seen = Job("a:b", "", "", 256, [0, 0], None, 3, ""), []
    job.threads(lambda part: seen.extend(part), list(range(10)))
    assert sorted(seen) == list(range(10))
