"""Run cases, each in a process of its own, in turn, and watch their memory."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from case import SCALE, Case
from task import CANNOT, UNCOUNTED, WARM

HERE = Path(__file__).parent
_OPENSLIDE = ("openslide-python==1.4.7", "openslide-bin==4.0.1.2", "pillow", "numpy")
# what is installed for each peer, pinned, in an environment of its own; --peer-python takes one that is there
PEERS = {
    "openslide": _OPENSLIDE,
    "torchstain": (*_OPENSLIDE, "torchstain==1.4.1", "torch==2.15.0", "zarr==3.1.6"),
    "tiatoolbox": ("tiatoolbox==2.1.3",),  # brings the newest torch, zarr and openslide that it allows
    "tiffslide": ("tiffslide==3.0.1; python_version<'3.12'", "tiffslide==4.0.0; python_version>='3.12'"),
    "cucim": ("cucim-cu13==26.10.0; sys_platform=='linux'",),
    "zarr": (*_OPENSLIDE, "zarr==3.1.6"),
    "lazyslide": ("lazyslide==0.13.0", "wsidata==0.12.0", "openslide-bin==4.0.1.2", "torchstain==1.4.1", "torch==2.15.0"),
    "pathml": ("pathml==3.0.8", "openslide-bin==4.0.1.2"),
}
LIMIT_SECONDS = 900
SAMPLE_SECONDS = 0.05
WATCHING = 0.04  # of a core at most goes to watching memory: all day on one of two cores, it took a fifth of what two workers gain


@dataclass(frozen=True)
class Scene:
    """A slide that cases work on: its path, the .npy file of the corners of its tissue tiles, and the one with the most tissue."""

    path: Path | str
    tiles: Path | str
    tile_px: int
    target: tuple[int, int]
    tissue_mpx: float


NO_SLIDE = Scene("", "", 256, (0, 0), 0.0)


@dataclass
class Measured:
    """All repetitions of a case; ``absent`` says why there are none."""

    case: Case
    runs: list[dict[str, Any]] = field(default_factory=list)
    absent: str = ""

    @property
    def rates(self) -> list[float]:
        """Units a second of each repetition."""
        return [self.amount(r) / r["seconds"] for r in self.runs]

    def amount(self, run: dict[str, Any]) -> float:
        """How much a repetition did, in the case's unit."""
        return run["amount"] / SCALE.get(self.case.unit, 1.0)

    @property
    def rate(self) -> float:
        """Their median."""
        return float(np.median(self.rates)) if self.runs else float("nan")

    @property
    def rate_per_core(self) -> float:
        """Median units per second of a core at work, which other work on the machine disturbs least; NaN where it is not known."""
        if not self.runs or any(r["cpu_seconds"] is None for r in self.runs):
            return float("nan")
        return float(np.median([self.amount(r) / max(1e-9, r["cpu_seconds"]) for r in self.runs]))

    def most(self, key: str) -> int:
        """The largest value of a fact over the repetitions."""
        return max((r[key] for r in self.runs), default=0)


class Bench:
    """Runs cases and keeps what they found."""

    def __init__(self, scenes: dict[str, Scene], scratch: Path, say: Callable[[str], None], pythons: Mapping[str, Path] | None = None) -> None:
        self._scenes, self._scratch, self._say, self.interrupted = scenes, scratch, say, False
        self._pythons: dict[str, list[str] | str] = {"": [sys.executable]} | {peer: [str(path)] for peer, path in (pythons or {}).items()}

    def run(self, cases: Sequence[Case], repeats: int, seed: int = 0) -> list[Measured]:
        """Every case ``repeats`` times, in another order each time: what disturbs the machine then disturbs all alike. Ctrl-C keeps what is done."""
        found = {case.name: Measured(case) for case in cases}
        for case in cases:
            command = self.command(case.peer)
            if isinstance(command, str):
                found[case.name].absent = command
        try:
            self._turns(list(found.values()), repeats, random.Random(seed))
        except KeyboardInterrupt:
            self.interrupted = True
            for m in found.values():
                m.absent = m.absent or ("" if m.runs else "interrupted")
        return list(found.values())

    def _turns(self, found: list[Measured], repeats: int, rng: random.Random) -> None:
        for turn in range(repeats):
            order = [m for m in found if not m.absent]
            rng.shuffle(order)
            for i, measured in enumerate(order):
                self._once(measured)
                last = f"{measured.rates[-1]:.4g} {measured.case.unit}/s" if measured.runs and not measured.absent else measured.absent
                self._say(f"[{turn + 1}/{repeats}, {i + 1}/{len(order)}] {measured.case.name}: {last}")

    def command(self, peer: str) -> list[str] | str:
        """How to start a peer's Python, or why that cannot be."""
        if peer not in self._pythons:
            self._say(f"environment: {', '.join(PEERS[peer])}")
            self._pythons[peer] = self._environment(PEERS[peer])
        return self._pythons[peer]

    def _environment(self, packages: tuple[str, ...]) -> list[str] | str:
        uv = os.environ.get("UV") or shutil.which("uv")
        if uv is None:
            return "uv is not installed"
        wanted = [part for package in packages for part in ("--with", package)]
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        command = [uv, "run", "--no-project", "--isolated", "--quiet", "--python", python, *wanted, "python"]
        try:
            asked = subprocess.run([*command, "-c", "import numpy"], capture_output=True, text=True, timeout=LIMIT_SECONDS, env=_clean(), cwd=self._scratch)
        except subprocess.TimeoutExpired:
            return "its environment took too long to make"
        if asked.returncode:
            return "cannot be installed: " + _last_line(asked.stderr)
        return command

    def _once(self, measured: Measured) -> None:
        case = measured.case
        scene = self._scenes.get(case.slide, NO_SLIDE)
        command = self.command(case.peer)
        assert isinstance(command, list)
        with tempfile.TemporaryDirectory(dir=self._scratch) as name:
            folder = Path(name)
            (folder / "out").mkdir()
            packages = [p.split("=")[0] for p in PEERS.get(case.peer, ())] + (["torch", "zarr", "numpy"] if case.peer else [])
            task = {"function": case.function, "slide": str(scene.path), "tiles": str(scene.tiles), "tile": scene.tile_px}
            task |= {"target": scene.target, "take": case.take, "cores": case.cores, "scratch": str(folder / "out")}
            task |= {"options": case.options, "packages": sorted(set(packages))}
            (folder / "task.json").write_text(json.dumps(task))
            with (folder / "log").open("w+") as log:
                command = [*command, str(HERE / "task.py"), str(folder / "task.json"), str(folder / "result.json")]
                # of wsikit, what is measured is what lies beside this folder, wherever else one is installed
                done, facts = _watched(command, log, folder, _clean() if case.peer else _clean() | {"PYTHONPATH": str(HERE.parent)})
                log.seek(0)
                if done or not (folder / "result.json").exists():
                    measured.absent = ("" if done == CANNOT else "failed: ") + _last_line(log.read())
                    return
            result = json.loads((folder / "result.json").read_text()) | facts
            probe = folder / "result.npy"
            if probe.exists():
                result["probe"] = np.load(probe)
            measured.runs.append(result)


def _watched(command: list[str], log: Any, folder: Path, environment: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """The exit status of a command; the most memory that its processes held at once (what they share counted once, where the system says: PSS), and
    how busy others kept the machine.
    """
    before, cpu = resource.getrusage(resource.RUSAGE_CHILDREN), psutil.cpu_times()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    peak, stop = {"bytes": 0.0, "watching": 0.0}, threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, stop))
    watcher.start()
    try:
        status = process.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    except KeyboardInterrupt:
        process.kill()
        raise
    finally:
        stop.set()
        watcher.join()
    after, cpu_after = resource.getrusage(resource.RUSAGE_CHILDREN), psutil.cpu_times()
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + peak["watching"]
    busy = sum(getattr(cpu_after, k) - getattr(cpu, k) for k in ("user", "system", "nice") if hasattr(cpu, k))
    others = max(0.0, busy - own) / (time.perf_counter() - start)
    return status, {"peak_bytes": int(peak["bytes"]), "others_cores": round(others, 3)}


def _watch(pid: int, peak: dict[str, float], stop: threading.Event) -> None:
    wait = SAMPLE_SECONDS
    while not stop.wait(wait):
        try:
            root = psutil.Process(pid)
            tree = [p for p in (root, *root.children(recursive=True)) if p.name() != "uv" and not any(a.endswith((WARM, UNCOUNTED)) for a in p.cmdline())]
            peak["bytes"] = max(peak["bytes"], sum(_memory(p) for p in tree))
        except psutil.Error:  # one ended while we looked
            pass
        took = time.thread_time() - peak["watching"]
        peak["watching"] += took
        wait = max(SAMPLE_SECONDS, took / WATCHING)


def _memory(process: psutil.Process) -> float:
    found = process.memory_full_info()
    return float(getattr(found, "pss", found.rss))


def _clean() -> dict[str, str]:
    """The environment without what would lead a peer's Python to other packages."""
    return {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH", "WSIKIT_THREADS")} | {"PYTHONWARNINGS": "ignore"}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no message")[:200]
