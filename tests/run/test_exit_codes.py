"""The real program, from outside: how it leaves, and what lies in the folder then."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

Differences = Callable[[Path, Path], set[str]]


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "wsikit", *map(str, arguments)]
    # tests in the background of a shell inherit that SIGINT is ignored
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=listen)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "slides.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def test_130_then_1_then_0_then_2(slide: Path, phantom: object, undisturbed_lean: Path, differences: Differences, tmp_path: Path) -> None:
    """Stopped by Ctrl-C, gone on with but for a bad slide, done once that is mended, and nothing to do with what is not there."""
    folder = tmp_path / "run"
    good, bad, last = (tmp_path / f"{name}.tif" for name in ("z-first", "bad", "a-last"))
    shutil.copy(phantom.path, good)  # type: ignore[attr-defined]
    bad.write_bytes(slide.read_bytes()[:40_000])
    shutil.copy(slide, last)
    command = ["score", good, bad, last, "-o", folder, "--pipeline", "sts-subtype", "--workers", 0]

    run = start(*command)
    while not (folder / "slides/z-first.receipts.jsonl").exists():
        assert run.poll() is None
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err.splitlines()[-1]) == (130, "", "wsikit: interrupted; what is done is kept, run the same command again to go on")

    run = start(*command)
    out, err = run.communicate(timeout=200)
    assert run.returncode == 1, err
    assert out.startswith(f"2 of 3 slides done; results in {folder / 'slides.csv'}\n  failed: bad: ")
    assert [(r["slide_id"], r["status"], r["path"]) for r in table(folder)] == [
        ("z-first", "ok", str(good)),
        ("bad", "failed", str(bad)),
        ("a-last", "ok", str(last)),
    ], "in input order"
    assert [bool(r["reason"]) for r in table(folder)] == [False, True, False]
    assert "Traceback" not in err

    shutil.copy(slide, bad)
    run = start(*command)
    out, _ = run.communicate(timeout=200)
    done = f"3 of 3 slides done; results in {folder / 'slides.csv'}"
    withheld = "  sts-subtype: answers for 1 of 3; abstained 2, such as: only 4 tiles of tissue were scored, 10 are needed"
    assert (run.returncode, out.splitlines()) == (0, [done, withheld])
    for part in ("tables", "overlays"):
        ours, theirs = (f / part / "sts-subtype" for f in (folder / "slides/bad.zarr", undisturbed_lean / "slides/small.zarr"))
        assert not differences(ours, theirs)

    run = start("score", tmp_path / "nowhere.svs", "-o", folder)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (2, "", f"wsikit: {tmp_path / 'nowhere.svs'}: no such file or folder; check the path\n")
    assert len(table(folder)) == 3
