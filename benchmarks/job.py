"""What one measured process is told, and how it says what it found. No import from wsikit: peers' environments load this too."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

WARM = "warm.py"


@dataclass
class Job:
    """One case in one process.

    Attributes
    ----------
    function : ``module:function`` of this folder, a context manager that takes the job and gives the work to time
    slide : the slide's path
    tiles : .npy file of int64 (N, 2): upper-left corners of tissue tiles in level-0 px
    tile : their side
    target : corner of the tile with the most tissue, whose colours peers take as their reference
    take : how many of them to work on, spread over the slide in runs of one row; None for all
    cores : how many cores the process may use
    scratch : an empty folder for whatever is written
    options : of the function
    packages : whose versions to report
    """

    function: str
    slide: str
    tiles: str
    tile: int
    target: list[int]
    take: int | None
    cores: int
    scratch: str
    options: dict[str, Any] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def corners(self) -> list[tuple[int, int]]:
        """The tiles to work on, row by row."""
        found = np.load(self.tiles)
        if self.take is not None and self.take < len(found):
            run = min(16, self.take)
            starts = np.linspace(0, len(found) - run, self.take // run).astype(int)
            found = found[np.unique((starts[:, None] + np.arange(run)).ravel())]
        return [(int(x), int(y)) for x, y in found]

    def fullest(self, side: int, count: int) -> list[tuple[int, int]]:
        """Corners of the squares of a grid of ``side`` px that hold the most tissue tiles."""
        squares, n = np.unique(np.load(self.tiles) // side, axis=0, return_counts=True)
        return [(int(x) * side, int(y) * side) for x, y in squares[np.argsort(-n, kind="stable")[:count]]]

    def threads(self, work: Callable[[list[Any]], Any], items: list[Any], n: int | None = None) -> None:
        """Call ``work`` with n shares of the items (by default one per core), each in a thread of its own."""
        n = n or self.cores
        if n == 1:
            work(items)
            return
        step = -(-len(items) // n)
        with ThreadPoolExecutor(n) as pool:
            list(pool.map(work, [items[i : i + step] for i in range(0, len(items), step)]))


def bytes_and_files(folder: str) -> tuple[int, int]:
    """How much lies in a folder."""
    sizes = [p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()]
    return sum(sizes), len(sizes)


def _versions(packages: list[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def main(job_file: str, result_file: str) -> None:
    """Do a job: set up (not timed), work (timed), probe (not timed).

    The work returns the level-0 px that it did. The function may leave more in ``job.facts``; ``facts["probe"]``, a function,
    gives the pixels of a tile, so that the benchmark can tell whether they are the right ones.
    """
    job = Job(**json.loads(Path(job_file).read_text()))
    if hasattr(os, "sched_setaffinity"):  # before any library counts its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.cores])
    module, name = job.function.split(":")
    with getattr(importlib.import_module(module), name)(job) as work:
        subprocess.run([sys.executable, str(Path(__file__).parent / WARM), job.slide], check=True)
        start, cpu = time.perf_counter(), time.process_time()
        px = work()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        probe = job.facts.pop("probe", None)
        if probe is not None:
            np.save(Path(result_file).with_suffix(".npy"), np.asarray(probe(*job.corners()[0]))[..., :3])
    written, files = bytes_and_files(job.scratch)
    result = {"seconds": job.facts.pop("seconds", seconds), "cpu_seconds": job.facts.pop("cpu_seconds", cpu_seconds), "px": px}
    result |= {"bytes": written, "files": files, "facts": job.facts, "versions": _versions(job.packages)}
    Path(result_file).write_text(json.dumps(result))


if __name__ == "__main__":
    sys.modules["job"] = sys.modules["__main__"]  # so that the functions get this very class
    main(*sys.argv[1:])
