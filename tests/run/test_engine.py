"""Workers: they die, hang on to nothing, listen to nobody else, and may be on a scheduler that somebody else runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import wsikit as wk
from wsikit import gate
from wsikit.errors import EngineError
from wsikit.run import Progress, drive
from wsikit.run.engine import InProcess, Where, beside_gpus, default_workers, open_pool, visible_gpus, worker_options
from wsikit.sandbox import Sandbox
from wsikit.threads import cores

Differences = Callable[[Path, Path], set[str]]


def family() -> list[psutil.Process]:
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def worker_processes() -> list[psutil.Process]:
    return [p for p in family()[1:] if "spawn_main" in " ".join(p.cmdline())]


def test_a_worker_that_is_killed_costs_only_its_block(score: Any, undisturbed: Path, differences: Differences, tmp_path: Path) -> None:
    """Two workers: one dies in the middle; what they listen on is looked at meanwhile."""
    addresses: set[str] = set()
    killed: list[int] = []

    def disturb(event: Progress) -> None:
        if event.kind != "block" or killed:
            return
        addresses.update(c.laddr.ip for p in family() for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN)
        killed.append(worker_processes()[0].pid)
        os.kill(killed[0], signal.SIGKILL)

    run = score(tmp_path / "run", disturb, keep_tiles=True, workers=2)
    assert killed
    assert addresses == {"127.0.0.1"}
    assert differences(run.folder, undisturbed) == {"run.json"}
    assert not [p for p in worker_processes() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], "no worker outlives its run"


POISON_READER = """
import os, sys
from wsikit.readers.array import ArrayReader
class Poison(ArrayReader):
    name = "poison"
    @classmethod
    def accepts(cls, path):
        return 100 if path.name.startswith("poison") else 0
    def read(self, level, x, y, w, h):
        at_the_gate = any("wsikit.gate" in a for a in sys.orig_argv)
        if os.environ["POISON"] == "always" or not at_the_gate:
            os.abort()
        return super().read(level, x, y, w, h)
READER = Poison
"""
MORE_READERS = "import wsikit.readers\nwsikit.readers.__path__.append({folder!r})\n"


@pytest.fixture
def poison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A slide whose reader ends the process, at the gate only where POISON says always; workers find the reader as they would an installed one."""
    import numpy as np

    (tmp_path / "readers").mkdir()
    (tmp_path / "readers/poison.py").write_text(POISON_READER)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(MORE_READERS.format(folder=str(tmp_path / "readers")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.setenv("POISON", "in a worker")
    np.save(tmp_path / "poison.npy", np.full((600, 600, 3), 200, np.uint8))
    return tmp_path / "poison.npy"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_slide_that_kills_its_workers_is_named_and_the_others_finish(slide: Path, poison: Path, tmp_path: Path, workers: int) -> None:
    """First in line, so that every other task has been beside it."""
    others = [shutil.copy(slide, tmp_path / f"{name}.tif") for name in "abc"]
    run = wk.score([poison, *others], tmp_path / "run", ["sts-subtype"], workers=workers, mpp_override=0.5, block_px=512)
    assert list(run.results) == ["poison", "a", "b", "c"]
    assert set(run.failed) == {"poison"}
    assert "the worker processes that took this slide died or hung each time, also alone" in run.failed["poison"]
    assert [r["status"] for r in run.results.values()] == ["failed", "ok", "ok", "ok"]


def test_a_slide_that_kills_whoever_opens_it_is_stopped_at_the_gate(slide: Path, poison: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the work is done in this process, which must not end."""
    monkeypatch.setenv("POISON", "always")
    with Sandbox("wsikit.gate:inspect") as sandbox:
        monkeypatch.setattr(gate, "_sandbox", lambda: sandbox)
        run = wk.score([poison, slide], tmp_path / "run", ["sts-subtype"], workers=0, mpp_override=0.5)
        assert sandbox.starts == 2
    assert [r["status"] for r in run.results.values()] == ["failed", "ok"]
    assert "opening it ended the process that looked at it (SIGABRT)" in run.failed["poison"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler and two workers, started as other people start them, in another folder; its address and the scheduler."""
    (tmp_path / "elsewhere").mkdir()
    dask, started = [sys.executable, "-m", "dask"], []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([*dask, *arguments], cwd=tmp_path / "elsewhere", stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        return started[-1]

    where = tmp_path / "scheduler.json"
    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(where))
    for name in ("one", "two"):
        start("worker", "--scheduler-file", str(where), "--nthreads", "1", "--no-dashboard", "--name", name, "--host", "127.0.0.1")
    while not where.exists():
        time.sleep(0.05)
    import json

    yield json.loads(where.read_text())["address"], scheduler
    for process in reversed(started):
        process.terminate()
    for process in started:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def test_a_scheduler_of_somebody_else(
    score: Any,
    slide: Path,
    undisturbed_lean: Path,
    differences: Differences,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cluster: tuple[str, subprocess.Popen[bytes]],
) -> None:
    """Same bytes, from paths relative to where the run was started; then the scheduler dies under a second run."""
    address, scheduler = cluster
    monkeypatch.chdir(tmp_path)
    shutil.copy(slide, "small.tif")
    run = wk.score(["small.tif"], "run", ["mitosis", "sts-subtype"], block_px=512, scheduler=address)
    assert run.failed == {}
    assert differences(tmp_path / "run", undisturbed_lean) == {"run.json", "slides.csv"}, "the table has the slide's path"
    assert address.startswith("tcp://127.0.0.1:")

    def end(event: Progress) -> None:
        if event.kind == "block" and scheduler.poll() is None:
            scheduler.kill()
            scheduler.wait()

    begun = time.monotonic()
    with pytest.raises(EngineError, match="the scheduler went away; what is done is kept, run the same command again"):
        score(tmp_path / "second", end, scheduler=address)
    assert time.monotonic() - begun < 60
    assert "failed" not in (tmp_path / "second/slides.csv").read_text()
    score(tmp_path / "second")
    assert score.done[-1] < 4
    assert differences(tmp_path / "second", undisturbed_lean) == {"run.json"}


def test_a_gpu_a_worker_in_turn() -> None:
    gpus = ["4", "GPU-8932f937"]
    assert [worker_options(i, "cuda", gpus)["env"] for i in range(3)] == [{"CUDA_VISIBLE_DEVICES": g} for g in ("4", "GPU-8932f937", "4")]
    assert worker_options(0, "cpu")["env"] == worker_options(0, "cuda:1")["env"] == {}
    assert all(worker_options(0, device)["host"] == "127.0.0.1" for device in ("cpu", "cuda"))


def test_workers_have_one_thread_a_library_whatever_the_shell_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    monkeypatch.delenv("WSIKIT_THREADS", raising=False)
    with open_pool(Where(1)) as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS", of_block=True).result(60) == "1"
        assert pool.submit(os.getenv, "WSIKIT_THREADS", of_block=True).result(60) == str(cores())
    assert (os.environ["OMP_NUM_THREADS"], os.environ.get("WSIKIT_THREADS")) == ("16", None)


def test_what_needs_no_gpu_is_done_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes as they are started where there is a GPU and cores are left over; none of these tasks touches one."""
    monkeypatch.setattr("wsikit.run.engine.cores", lambda: 4)
    with open_pool(Where(1), "cuda") as pool:
        assert pool.workers == 1
        for of_block, said in ((True, (visible_gpus("cuda")[0], "4")), (False, ("", "1"))):
            for name, value in zip(("CUDA_VISIBLE_DEVICES", "WSIKIT_THREADS"), said, strict=True):
                assert {pool.submit(os.getenv, name, of_block=of_block).result(60) for _ in range(5)} == {value}
    assert (beside_gpus(8, "cuda"), beside_gpus(1, "cpu")) == (0, 0)


@pytest.mark.parametrize(
    ("allowed", "count", "expected"),
    [("", 2, ["0", "1"]), ("2,3", 2, ["2", "3"]), (" 5 , 6,7", 3, ["5", "6", "7"]), ("MIG-1,MIG-2", 1, ["MIG-1"]), ("0,-1,3", 1, ["0"])],
)
def test_gpus_are_those_that_this_process_was_given(monkeypatch: pytest.MonkeyPatch, allowed: str, count: int, expected: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert visible_gpus("cuda") == expected
    assert default_workers("cuda") == count


def test_workers_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= default_workers("cpu") <= 8
    assert default_workers("mps") == default_workers("cuda:1") == 1
    monkeypatch.setattr("wsikit.run.engine.cores", lambda: 64)
    assert default_workers("cpu") == 8


def test_work_in_process_answers_at_once_and_keeps_errors_for_whoever_asks() -> None:
    assert InProcess().submit(divmod, 7, 2).result(0) == (3, 1)
    broken = InProcess().submit(divmod, 7, 0)
    assert isinstance(broken.exception(0), ZeroDivisionError)
    with pytest.raises(KeyboardInterrupt):
        InProcess().submit(_interrupt)


def _interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_slide_whose_reader_hangs_is_named_and_the_others_finish(
    slide: Path, poison: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = tmp_path / "readers/poison.py"
    reader.write_text(reader.read_text().replace("os.abort()", "import time; time.sleep(3600)"))
    monkeypatch.setattr(drive, "WATCH_SECONDS", 1.0)
    run = wk.score([poison, slide], tmp_path / "run", ["sts-subtype"], workers=workers, mpp_override=0.5, task_seconds=8.0)
    assert "died or hung each time" in run.failed["poison"]
    assert run.results["small"]["status"] == "ok"


@pytest.mark.slow
def test_a_script_without_its_guard_is_told_so(slide: Path, tmp_path: Path) -> None:
    """Each worker imports the script that started it, and would start it again."""
    script = tmp_path / "script.py"
    script.write_text(f"import wsikit as wk\nwk.score([{str(slide)!r}], 'run', ['sts-subtype'], workers=1)\n")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert "EngineError: worker processes do not start" in done.stderr.splitlines()[-1]
    assert "if __name__ == '__main__':" in done.stderr.splitlines()[-1]
