"""A hundred kills at random moments, of a worker, of the command, of everything, and damage planted between: the same bytes come out."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import wsikit as wk
from wsikit.run.job import Pixels
from wsikit.testing.phantom import Spec, write_phantom

Differences = Callable[[Path, Path], set[str]]
KILLS = int(os.environ.get("WSIKIT_CHAOS_KILLS", "100"))
BLOCK_PX = 256
READER = """
import os, sys
from wsikit.readers.native import NativeReader
AT_THE_GATE = any("wsikit.gate" in a for a in sys.orig_argv)
class Counting(NativeReader):
    name = "native"
    def read(self, level, x, y, w, h):
        if not AT_THE_GATE:
            fd = os.open(os.environ["WSIKIT_CHAOS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(fd, b"%d %d %d %d %d\\n" % (level, x, y, w, h))
            os.close(fd)
        return super().read(level, x, y, w, h)
READER = Counting
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.tif"
    write_phantom(path, Spec(21, "UPS", 2048, 2048))
    return path


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where every process of a run says what it reads of level 0, so that blocks done twice are seen."""
    (tmp_path / "readers").mkdir()
    (tmp_path / "readers/zz_counting.py").write_text(READER)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(f"import wsikit.readers\nwsikit.readers.__path__.append({str(tmp_path / 'readers')!r})\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.setenv("WSIKIT_CHAOS_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def block_reads(log: Path) -> int:
    """How many blocks were begun: each reads its window of level 0 once."""
    lines = log.read_text().splitlines() if log.exists() else []
    return sum(line.startswith("0 ") for line in lines)


def start(slide: Path, folder: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from wsikit.run import tile_slides; from wsikit.run.job import Pixels\n"
        f"if __name__ == '__main__': tile_slides([sys.argv[1]], sys.argv[2], pixels=Pixels(mpp=0.5), block_px={BLOCK_PX}, workers=2)"
    )
    script = folder.parent / "run.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(slide), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_a_while(run: subprocess.Popen[bytes], folder: Path, rng: random.Random) -> bool:
    """Until some more blocks have a receipt and a moment has passed, or just for some seconds; whether the run still goes on."""

    def receipts() -> int:
        file = folder / "slides/large.receipts.jsonl"
        return len(file.read_bytes().splitlines()) if file.exists() else 0

    wanted = receipts() + rng.randrange(1, 12)
    until = time.monotonic() + (rng.uniform(0, 5) if rng.random() < 0.15 else 120)
    while run.poll() is None and receipts() < wanted and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.2))
    return run.poll() is None


def is_worker(process: psutil.Process) -> bool:
    """Whether a process is one of dask's; one that just died is none."""
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def kill_something(run: subprocess.Popen[bytes], rng: random.Random) -> tuple[str, int]:
    """Kill -9 of one worker, of the command with its scheduler, or of all; says which, and how many workers that ended."""
    workers = [p for p in psutil.Process(run.pid).children(recursive=True) if is_worker(p)]
    kind = rng.choice(["worker", "command", "everything"]) if workers else "everything"
    if kind == "worker":
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers).pid, signal.SIGKILL)
    elif kind == "command":
        os.kill(run.pid, signal.SIGKILL)
        psutil.wait_procs(workers, timeout=60)
        assert not [p for p in workers if is_worker(p)], "workers end with their command"
    else:
        os.killpg(run.pid, signal.SIGKILL)
    return kind, 1 if kind == "worker" else len(workers)


def plant_damage(folder: Path, rng: random.Random) -> bool:
    """Flip a bit of some stored shard."""
    shards = sorted(p for p in folder.glob("slides/*.zarr/0/c/0/*/*") if p.is_file())
    if not shards:
        return False
    path = rng.choice(shards)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return True


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_and_damage_at_random(large: Path, log: Path, differences: Differences, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(8)
    undisturbed = wk.run.tile_slides([large], tmp_path / "undisturbed", pixels=Pixels(mpp=0.5), block_px=BLOCK_PX).folder
    assert start(large, tmp_path / "counted").wait() == 0
    blocks = block_reads(log)
    assert blocks >= 40
    log.unlink()
    kills = lost = damaged = finished = 0
    while kills < KILLS:
        folder = tmp_path / f"run{finished}"
        run = start(large, folder)
        while wait_a_while(run, folder, rng):
            kind, ended = kill_something(run, rng)
            kills, lost = kills + 1, lost + ended
            if kind != "worker":
                run.wait()
                break
        if run.poll() == 0:
            assert differences(folder, undisturbed) == {"run.json"}
            finished += 1
        elif rng.random() < 0.2:
            damaged += plant_damage(folder, rng)
    assert start(large, tmp_path / f"run{finished}").wait() == 0
    assert differences(tmp_path / f"run{finished}", undisturbed) == {"run.json"}
    again = block_reads(log) - (finished + 1) * blocks - damaged
    with capsys.disabled():
        sys.stdout.write(f"\n{kills} kills of {lost} workers, {damaged} damaged shards, {finished + 1} runs of {blocks} blocks, {again} blocks done again\n")
    assert again <= 1.2 * lost
