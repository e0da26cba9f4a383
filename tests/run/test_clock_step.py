"""The clock is set while a run goes on: nobody is taken for dead, nothing is done twice, the same bytes come out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

STEPPED = """
import os, time
real = time.time
time.time = lambda: real() + (float(os.environ["CLOCK_STEP"]) if os.path.exists(os.environ["CLOCK_STEPPED"]) else 0.0)
"""
RUN = """
import sys, wsikit as wk
if __name__ == "__main__":
    blocks = []
    run = wk.score([sys.argv[1]], sys.argv[2], ["mitosis", "sts-subtype"], block_px=512, workers=2, on_progress=lambda e: blocks.append(e.kind == "block"))
    print(sum(blocks), list(run.failed.values()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", [7200, -7200])
def test_a_run_outlives_a_clock_that_is_set(
    slide: Path, undisturbed_lean: Path, differences: Callable[[Path, Path], set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Two hours are longer than any patience of dask or of the watch for hung workers. The machine's own clock is left alone: each process sees it moved."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(STEPPED)
    (tmp_path / "run.py").write_text(RUN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.setenv("CLOCK_STEP", str(step))
    monkeypatch.setenv("CLOCK_STEPPED", str(tmp_path / "stepped"))
    run = subprocess.Popen([sys.executable, str(tmp_path / "run.py"), str(slide), str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    receipts = tmp_path / "run/slides/small.receipts.jsonl"
    while run.poll() is None and not (receipts.exists() and b'"block": "r' in receipts.read_bytes()):
        time.sleep(0.02)
    (tmp_path / "stepped").touch()
    assert run.communicate(timeout=280)[0].split(" ", 1)[1] == "[]\n"
    assert differences(tmp_path / "run", undisturbed_lean) == {"run.json"}
