"""The benchmark runs: each case in a process of its own, on a small slide, its figures in the JSON. No speeds are checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import slide_to_zarr

SCRIPT = Path(slide_to_zarr.__file__)


def test_cases_are_chosen_by_name_and_the_floors_always_stay() -> None:
    everything = slide_to_zarr.chosen_cases(Namespace(quick=True, no_peers=False, only=[]), 2, 2048)
    names = [c.name for c in slide_to_zarr.chosen_cases(Namespace(quick=True, no_peers=False, only=["torchstain", "read: wsikit"]), 2, 2048)]
    assert [n for n in names if n.startswith("decode floor")] == [c.name for c in everything if c.stage == "decode floor"]
    assert "slide → Zarr: openslide + torchstain script, 2 cores, mosaic" in names
    assert "read: wsikit, 1 core, phantom" in names
    assert not [n for n in names if "TIAToolbox" in n]
    assert not [c for c in slide_to_zarr.chosen_cases(Namespace(quick=True, no_peers=True, only=[]), 2, 2048) if c.packages]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_wsikits_own_cases_run_and_are_reported(cmu: Path, tmp_path: Path) -> None:
    asked = {"--slides": tmp_path / "slides", "--scratch": tmp_path, "--json": tmp_path / "a.json", "--plot": tmp_path / "a.png"}
    command = [sys.executable, str(SCRIPT), "--quick", "--cores", "1", "--no-peers", *(str(part) for pair in asked.items() for part in pair)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads((tmp_path / "a.json").read_text())
    cases = {c["name"]: c for c in facts["cases"]}
    assert not [c for c in cases.values() if "absent" in c]
    together = cases["slide → Zarr: wsikit, 1 core, mosaic"]
    assert together["mpx"] == pytest.approx(facts["about"]["slides"]["mosaic"]["tissue_mpx"], abs=0.1)
    assert together["files"] > 5
    assert together["bytes"] > 1e6
    assert together["peak_bytes"] > 5e7
    assert facts["together"]["bottleneck"] in facts["together"]["ms_per_mpx"]
    assert len(facts["targets"]) == 12
    assert "the bottleneck is" in done.stdout
    assert (tmp_path / "a.png").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("tmp")]  # nothing is left on the measured disk
