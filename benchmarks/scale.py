"""Does the engine keep its pace? Thousands of tiny slides through real workers, and a queue of blocks that only sleep.

uv run python benchmarks/scale.py --slides 2000 --queue 100000 --json scale.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from wsikit.run import Progress, tile_slides
from wsikit.run.engine import Where, open_pool
from wsikit.run.job import Pixels
from wsikit.testing.phantom import Spec, write_phantom

TINY_PX = 512


def memory_mib() -> float:
    """Resident memory of this process: the driver and dask's scheduler."""
    return psutil.Process().memory_info().rss / 2**20


def archive(folder: Path, count: int) -> Path:
    """A CSV of that many slides: copies of one, each a file and a slide of its own."""
    folder.mkdir(parents=True)
    write_phantom(folder / "0.tif", Spec(1, "UPS", TINY_PX, TINY_PX))
    for i in range(1, count):
        shutil.copyfile(folder / "0.tif", folder / f"{i}.tif")
    (folder / "slides.csv").write_text("path\n" + "".join(f"{i}.tif\n" for i in range(count)))
    return folder / "slides.csv"


def many_slides(folder: Path, count: int, workers: int) -> dict[str, Any]:
    """Slides per second over the first and the last tenth of an archive, and the driver's memory meanwhile."""
    slides = archive(folder / "slides", count)
    done: list[float] = []
    held: list[float] = []
    blocks = 0

    def note(event: Progress) -> None:
        nonlocal blocks
        blocks += event.kind == "block"
        if event.kind == "slide":
            done.append(time.perf_counter())
            if len(done) % max(1, count // 20) == 0:
                held.append(memory_mib())

    start = time.perf_counter()
    run = tile_slides([slides], folder / "run", pixels=Pixels(mpp=0.5), workers=workers, on_progress=note)
    seconds = time.perf_counter() - start
    tenth = max(2, count // 10)
    first, last = (done[tenth] - done[1]) / (tenth - 1), (done[-1] - done[-tenth]) / (tenth - 1)
    return {
        "slides": count,
        "failed": len(run.failed),
        "workers": workers,
        "seconds": round(seconds, 1),
        "slides_per_s": round(count / seconds, 2),
        "blocks_per_slide": blocks / count,
        "ms_per_slide_first_tenth": round(first * 1000, 1),
        "ms_per_slide_last_tenth": round(last * 1000, 1),
        "driver_mib": [round(m) for m in held],
    }


def nap(seconds: float) -> int:
    """A block that costs nothing but its place in the queue."""
    time.sleep(seconds)
    return os.getpid()


def sleeping_queue(count: int, workers: int, seconds: float = 0.0) -> dict[str, Any]:
    """What the scheduler and the driver's window take for each block, and the memory that they hold, however long the queue."""
    from concurrent.futures import FIRST_COMPLETED, wait

    held, pending = [], set()
    with open_pool(Where(workers)) as pool:
        start = time.perf_counter()
        for i in range(count):
            while len(pending) >= pool.window:
                _, pending = wait(pending, return_when=FIRST_COMPLETED)
            pending.add(pool.executor.submit(nap, seconds))
            if i % max(1, count // 10) == 0:
                held.append(memory_mib())
        wait(pending)
        took = time.perf_counter() - start
    return {"blocks": count, "workers": workers, "ms_per_block": round(took / count * 1000, 3), "driver_mib": [round(m) for m in held]}


def main() -> None:
    """Run what is asked for and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--slides", type=int, default=2000, help="tiny slides to tile [default: 2000]; 0 leaves it out")
    parser.add_argument("--queue", type=int, default=100_000, help="sleeping blocks [default: 100000]; 0 leaves it out")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=asked.scratch) as name:
        if asked.slides:
            found["archive"] = many_slides(Path(name) / "archive", asked.slides, asked.workers)
        if asked.queue:
            found["queue"] = sleeping_queue(asked.queue, asked.workers)
    found["load_1min"] = float(np.round(os.getloadavg()[0], 2)) if hasattr(os, "getloadavg") else None
    text = json.dumps(found, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
