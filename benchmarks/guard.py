"""Did anything become slower? Ratios to floors that are measured at the same time, compared with those committed; one that fell by more than 15 % fails.

    python benchmarks/guard.py               # half a minute; exit code 1, and what it was, where something fell
    python benchmarks/guard.py --update      # lower this kind of processor's baseline to today's ratios where these are less

The work and its floor take turns on one thread of one process, their processor time is compared and the median of the pairs taken, so that what
else the machine does falls on both alike. What seems to have fallen is measured again, twice, and the best counts: noise goes away, a slower
program does not. Processes differ all the same (where their memory lies, what their compiler chose), so the baseline is the lowest of several
runs: `--update` a few times on a new processor, after taking its old entry out where something became faster for good. Waiting (for a disk, for
other processes) is not seen by this: see run.py. Ratios differ between kinds of processor; on one that the baseline does not know nothing is compared.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("WSIKIT_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

import numpy as np  # after the number of threads is known
from task import Task

BASELINE = Path(__file__).with_name("baseline.json")
FALL, AGAIN = 0.15, 2
SLIDE_PX = 1536
LEAST_SECONDS = 0.04  # what is shorter is done several times between two looks at the clock
BLOCK = {"side": SLIDE_PX, "count": 1}


@dataclass(frozen=True)
class Ratio:
    """Work and its floor, functions of the benchmarks' jobs, and how many pairs of them are measured."""

    name: str
    work: str
    floor: str
    options: dict[str, Any] = field(default_factory=dict)
    pairs: int = 9


RATIOS = (
    Ratio("read", "jobs.tile_ours:read_blocks", "jobs.tile_ours:decode_floor"),
    Ratio("read + resample", "jobs.tile_ours:read_resample", "jobs.tile_ours:decode_floor", {"mpp": 1.0}),
    Ratio("stain", "jobs.tile_ours:stain", "jobs.tile_ours:decode_floor", BLOCK),
    Ratio("write zstd:1", "jobs.tile_ours:shards", "jobs.tile_ours:encode_floor", BLOCK | {"codec": "zstd:1"}),
    Ratio("write jpeg:90", "jobs.tile_ours:shards", "jobs.tile_ours:encode_floor", BLOCK | {"codec": "jpeg:90"}),
    Ratio("score, three pipelines in one pass", "jobs.score:passes", "jobs.score:models", {"passes": [["sts-subtype", "rms-subtype", "mitosis"]]}, pairs=3),
    Ratio("aggregate", "jobs.aggregate:aggregate", "jobs.aggregate:read", {"n": 20_000}, pairs=7),
    Ratio("hotspot, square", "jobs.hotspot:ours", "jobs.hotspot:cells", {"n": 20_000, "shape": "square"}, pairs=5),
    Ratio("hotspot, fields", "jobs.hotspot:ours", "jobs.hotspot:cells", {"n": 20_000, "shape": "fields"}, pairs=5),
    Ratio("export geojson", "jobs.export:export", "jobs.export:dumps", {"n": 20_000, "kind": "geojson"}, pairs=5),
    Ratio("heat map", "jobs.overlay:heat", "jobs.overlay:plain_file", {"side": 400}, pairs=7),
)


def processor() -> str:
    """This kind of processor: its name, and the instructions that make a difference."""
    from report import facts_of_machine

    facts = facts_of_machine()
    return f"{facts['cpu']} ({', '.join(facts['instructions'])})"


@contextmanager
def works(ratio: Ratio, slide: tuple[str, str], folder: Path) -> Iterator[tuple[Any, Any]]:
    """The work and its floor, set up; runs of the same phantom are shared."""
    with ExitStack() as stack:
        made = []
        for function in (ratio.work, ratio.floor):
            scratch = Path(tempfile.mkdtemp(dir=folder))
            module, name = function.split(":")
            task = Task(function, *slide, 256, [0, 0], None, 1, str(scratch), ratio.options)
            made.append(stack.enter_context(getattr(importlib.import_module(module), name)(task)))
        yield made[0], made[1]


def rate(work: Any) -> float:
    """How much it does per second of the processor."""
    amount, start = 0.0, time.process_time()
    while (spent := time.process_time() - start) < LEAST_SECONDS:
        amount += work()
    return amount / spent


def measure(ratio: Ratio, slide: tuple[str, str], folder: Path) -> float:
    """The median of work ÷ floor over pairs that follow each other."""
    with works(ratio, slide, folder) as (work, floor):
        rate(work), rate(floor)
        return float(np.median([rate(work) / rate(floor) for _ in range(ratio.pairs)]))


def fallen(now: Mapping[str, float], before: Mapping[str, float], most: float = FALL) -> list[str]:
    """Names of what is slower than it was; what only one of them measured is not compared."""
    return [name for name, was in before.items() if name in now and now[name] < (1 - most) * was]


def lowest(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """The baseline after one more run: what is measured no longer goes."""
    return {name: float(f"{min(value, before.get(name, value)):.4g}") for name, value in now.items()}


def measure_all(before: Mapping[str, float]) -> dict[str, float]:
    """Every ratio; what fell against ``before`` is measured again, and its best taken."""
    from mosaic import phantom_slide
    from run import scene_of

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = scene_of(phantom_slide(SLIDE_PX, folder / "slides"), folder / "tiles.npy")
        slide = (str(scene.path), str(scene.tiles))
        now = {ratio.name: measure(ratio, slide, folder) for ratio in RATIOS}
        for _ in range(AGAIN):
            for ratio in (r for r in RATIOS if r.name in fallen(now, before)):
                now[ratio.name] = max(now[ratio.name], measure(ratio, slide, folder))
    return now


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true", help="lower the baseline of this kind of processor to today's ratios")
    asked = parser.parse_args()
    known: dict[str, dict[str, float]] = json.loads(BASELINE.read_bytes()) if BASELINE.exists() else {}
    here = processor()
    before = {} if asked.update else known.get(here, {})
    now = measure_all(before)
    slower = fallen(now, before)
    for name, value in now.items():
        was = f", it was {before[name]:.3f} ({value / before[name] - 1:+.0%})" if name in before else ""
        print(f"{'SLOWER  ' if name in slower else ''}{name}: {value:.3f} × its floor{was}")
    if asked.update:
        known[here] = lowest(known.get(here, {}), now)
        BASELINE.write_text(json.dumps(known, indent=1) + "\n")
    elif not before:
        print(f"the baseline knows no {here}: nothing was compared; --update adds it")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
