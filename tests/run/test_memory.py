"""A given memory is shared out so that it holds, and a slide that asks for more ends its worker and no other slide."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wsikit as wk
from wsikit.errors import UsageError
from wsikit.run.memory import BYTES_PER_PX, DRIVER_BYTES, SMALLEST_PX, WORKER_BYTES, parse_memory, share_out
from wsikit.run.plan import BLOCK_PX
from wsikit.testing.phantom import Spec, make_phantom, write_pyramid

GIB = 2**30


@given(memory=st.integers(2**20, 2**40), workers=st.integers(0, 64), models=st.booleans())
def test_shares_add_up_to_no_more_than_there_is(memory: int, workers: int, models: bool) -> None:
    try:
        share = share_out(memory, workers, models=models)
    except UsageError:
        assert memory < DRIVER_BYTES + WORKER_BYTES[models] + BYTES_PER_PX * SMALLEST_PX**2
        return
    assert (share.workers == 0) == (workers == 0)
    assert share.workers <= workers
    n = max(1, share.workers)
    driver = DRIVER_BYTES if workers else 0
    assert driver + n * share.worker_bytes <= memory
    assert WORKER_BYTES[models] + BYTES_PER_PX * share.block_px**2 <= share.worker_bytes
    assert SMALLEST_PX <= share.block_px <= BLOCK_PX


def test_enough_memory_changes_nothing() -> None:
    assert share_out(64 * GIB, 8, models=True)[:2] == (8, BLOCK_PX)


@pytest.mark.parametrize(("text", "value"), [("16GiB", 16 * GIB), ("2 gb", 2 * 10**9), ("512MiB", 2**29), ("1048576", 2**20)])
def test_memory_as_people_write_it(text: str, value: int) -> None:
    assert parse_memory(text) == value


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "3 parsecs", "1e99GiB", "nan"])
def test_other_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="16GiB"):
        parse_memory(text)


def test_too_little_is_refused_before_any_work(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least"):
        wk.score([slide], tmp_path / "run", ["sts-subtype"], memory="1GiB", workers=1)
    assert not (tmp_path / "run").exists()


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """The most that a process and its children held together, shared memory counted once."""
    most, root = 0, psutil.Process(process.pid)
    while process.poll() is None:
        held = 0
        for one in [root, *root.children(recursive=True)]:
            try:
                held += one.memory_full_info().pss
            except (psutil.Error, OSError):
                continue
        most = max(most, held)
        time.sleep(0.1)
    return most


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="proportional memory is told by Linux only")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_stays_within_its_memory(tmp_path: Path, workers: int) -> None:
    rgb, _ = make_phantom(Spec(4, "LMS", 1024, 1024))
    field = np.tile(rgb, (8, 8, 1))
    write_pyramid(tmp_path / "large.tif", field, 0.5)
    command = ["tile", str(tmp_path / "large.tif"), "-o", str(tmp_path / "run"), "--memory", f"{900 * workers}MiB", "--workers", str(workers)]
    process = subprocess.Popen([sys.executable, "-m", "wsikit", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = peak_bytes(process)
    assert process.returncode == 0
    assert peak < 900 * workers * 2**20


GREEDY = """
import numpy as np
from wsikit.readers.array import ArrayReader
class Greedy(ArrayReader):
    name = "greedy"
    @classmethod
    def accepts(cls, path):
        return 100 if path.name.startswith("greedy") else 0
    def read(self, level, x, y, w, h):
        import sys, time
        if "distributed" in sys.modules:  # in a worker; the gate would have refused it
            self.hoard = [np.ones(2**25) for _ in range(40)]
            time.sleep(5)
        return super().read(level, x, y, w, h)
READER = Greedy
"""


def test_a_slide_that_takes_too_much_ends_its_worker_and_no_other_slide(tmp_path: Path, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "readers").mkdir()
    (tmp_path / "readers/greedy.py").write_text(GREEDY)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(f"import wsikit.readers\nwsikit.readers.__path__.append({str(tmp_path / 'readers')!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    np.save(tmp_path / "greedy.npy", np.full((600, 600, 3), 200, np.uint8))
    run = wk.run.tile_slides([tmp_path / "greedy.npy", slide], tmp_path / "run", pixels=wk.run.job.Pixels(mpp=1.0), workers=1, memory="1GiB", mpp_override=0.5)
    assert "out of memory" in run.failed["greedy"]
    assert run.results[slide.stem]["status"] == "ok"
