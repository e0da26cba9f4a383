"""The benchmarks run: each case in a process of its own, on small slides, its figures in the JSON. No speeds are checked."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import run
from case import Setup
from runs import PEERS

SCRIPT = Path(run.__file__)
JOBS = ("aggregate", "export", "hotspot", "infer", "memory", "overlay", "predict", "scaling", "score", "start", "tile", "viewer")


def measured(folder: Path, *arguments: str) -> dict[str, Any]:
    """What the command wrote, of one job."""
    command = [sys.executable, str(SCRIPT), *arguments, "--quick", "--cores", "1", "--slides", str(folder / "slides"), "--scratch", str(folder)]
    done = subprocess.run([*command, "--out", str(folder / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"## {arguments[0]}" in done.stdout
    assert not [p for p in folder.iterdir() if p.name.startswith("tmp")], "something is left on the measured disk"
    return json.loads((folder / "out" / f"{arguments[0]}.json").read_text())


def test_every_job_is_found_and_its_cases_can_be_called() -> None:
    assert set(run.job_names()) >= set(JOBS)
    for name in run.job_names():
        cases = run.load_job(name).cases(Setup(4, 4096))
        assert len({c.name for c in cases}) == len(cases) > 0
        assert {c.peer for c in cases} <= PEERS.keys() | {""}
        for case in cases:
            module, function = case.function.split(":")
            assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("quick", [False, True])
def test_every_floor_is_measured_in_the_same_run_and_unit(quick: bool) -> None:
    for name in run.job_names():
        cases = run.load_job(name).cases(Setup(2, 4096, quick=quick))
        units = {(c.stage, c.who, c.cores, c.slide): c.unit for c in cases}
        for case in cases:
            for floor in case.floors:
                assert units[floor.stage, floor.who, floor.cores or case.cores, case.slide] == case.unit, (case.name, floor)


def test_cases_are_chosen_by_name_and_the_floors_always_stay() -> None:
    job, setup = run.load_job("tile"), Setup(2, 2048, quick=True)
    chosen = run.chosen_cases(job, run.arguments(["tile", "--only", "torchstain", "--only", "read: wsikit"]), setup)
    names = [c.name for c in chosen]
    assert [n for n in names if n.startswith("floor")] == [c.name for c in job.cases(setup) if c.stage == "floor"]
    assert "slide → Zarr: openslide + torchstain script, 2 cores, mosaic" in names
    assert "read: wsikit, 1 core, phantom" in names
    assert not [n for n in names if "TIAToolbox" in n]
    assert not [c for c in run.chosen_cases(job, run.arguments(["--no-peers"]), setup) if c.peer]


def test_peers_are_pinned_or_come_with_their_own_interpreter() -> None:
    assert all("==" in package or package in ("pillow", "numpy") for packages in PEERS.values() for package in packages)
    assert run.arguments(["--peer-python", f"cucim={sys.executable}"]).peer_python == [("cucim", Path(sys.executable).absolute())]
    for wrong in ("nosuch=/bin/sh", "cucim=/nowhere/python", "cucim", "nosuchjob"):
        with pytest.raises(SystemExit):
            run.arguments([wrong] if wrong == "nosuchjob" else ["--peer-python", wrong])


def test_a_small_run_writes_json_a_table_and_plots(tmp_path: Path) -> None:
    facts = measured(tmp_path, "hotspot")
    assert {"cpu", "cores", "python"} <= facts["about"]["machine"].keys()
    assert facts["about"]["quick"] is True
    ours = next(c for c in facts["cases"] if c["who"].startswith("wsikit, square"))
    assert 0 < ours["roofline"]["of_roof"] == pytest.approx(ours["rate"]["median"] / ours["roofline"]["roof"], rel=0.01)
    assert ours["peak_bytes"] > 3e7
    for name in ("hotspot.png", "hotspot-roofline.png"):
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"
    assert "| hotspot | wsikit, square" in (tmp_path / "out/hotspot.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_wsikits_own_cases_from_slide_to_zarr(cmu: Path, tmp_path: Path) -> None:
    facts = measured(tmp_path, "tile", "--no-peers")
    cases = {c["name"]: c for c in facts["cases"]}
    assert not [c for c in cases.values() if "absent" in c]
    together = cases["slide → Zarr: wsikit, 1 core, mosaic"]
    assert together["done"] == pytest.approx(facts["about"]["slides"]["mosaic"]["tissue_mpx"], rel=0.01)
    assert together["files"] > 5
    assert together["bytes"] > 1e6
    assert together["peak_bytes"] > 5e7
    assert together["roofline"].keys() >= {"roof", "of_roof", "bound"}
    assert "encode" in together["ms_per_unit"]
    assert len(facts["targets"]) == 13


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("job", [name for name in JOBS if name not in ("tile", "hotspot", "viewer")])
def test_the_other_jobs_run(job: str, tmp_path: Path) -> None:
    facts = measured(tmp_path, job, "--no-peers")
    assert not [c for c in facts["cases"] if "absent" in c]


def test_without_a_screen_the_viewer_is_absent_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere there is always a screen")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    (case,) = measured(tmp_path, "viewer")["cases"]
    assert case["absent"] == "needs a screen: see jobs/viewer.py"


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "start", "--quick", "--repeats", "500", "--only", "import wsikit", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=_with_ctrl_c)
    assert process.stderr is not None
    assert any(line.startswith("[2/500, 1/") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    facts = json.loads((tmp_path / "start.json").read_text())
    assert facts["about"]["interrupted"]
    assert all(c["rate"]["median"] > 0 for c in facts["cases"])
    assert "It was interrupted" in (tmp_path / "start.md").read_text()


def _with_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored
