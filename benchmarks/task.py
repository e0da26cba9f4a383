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
CANNOT = 3  # exit status
UNCOUNTED = "not-counted"  # an argument of processes that only set up: their memory is not the case's


class CannotError(Exception):
    """A case that cannot be measured here, and why."""


@dataclass
class Task:
    """One case in one process.

    Attributes
    ----------
    function : ``module:function`` of this folder, a context manager that takes the task and gives the work to time
    slide : the slide's path, empty where the case has none
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


def main(task_file: str, result_file: str) -> None:
    """Do a task: set up (not timed), work (timed), probe (not timed).

    The work returns how much it did. The function may leave more in ``task.facts``; ``facts["probe"]``, a function, gives the pixels of a tile, so that the
    benchmark can tell whether they are the right ones.
    """
    task = Task(**json.loads(Path(task_file).read_text()))
    if hasattr(os, "sched_setaffinity"):  # before any library counts its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task.cores])
    module, name = task.function.split(":")
    with getattr(importlib.import_module(module), name)(task) as work:
        if task.slide:
            subprocess.run([sys.executable, str(Path(__file__).parent / WARM), task.slide], check=True)
        start, cpu = time.perf_counter(), _cpu_seconds()
        amount = work()
        seconds, cpu_seconds = time.perf_counter() - start, _cpu_seconds() - cpu
        probe = task.facts.pop("probe", None)
        if probe is not None:
            np.save(Path(result_file).with_suffix(".npy"), np.asarray(probe(*task.corners()[0]))[..., :3])
    written, files = bytes_and_files(task.scratch)
    result = {"seconds": task.facts.pop("seconds", seconds), "cpu_seconds": task.facts.pop("cpu_seconds", cpu_seconds), "amount": amount}
    result |= {"bytes": written, "files": files, "facts": task.facts, "versions": _versions(task.packages)}
    Path(result_file).write_text(json.dumps(result))


def _cpu_seconds() -> float:
    """Of this process, and of those that it started and that have ended."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


if __name__ == "__main__":
    sys.modules["task"] = sys.modules["__main__"]  # so that the functions get these very classes
    try:
        main(*sys.argv[1:])
    except CannotError as e:
        print(e)
        sys.exit(CANNOT)
