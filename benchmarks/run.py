"""Benchmarks: one command runs a chosen set of jobs, each case in a process of its own, and writes JSON with the machine's facts, tables and plots.

    python benchmarks/run.py --list
    python benchmarks/run.py tile score hotspot --out results/
    python benchmarks/run.py tile --only read --peer-python pathml=/somewhere/bin/python

See README.md beside this file for what is measured, and what to mind.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import report
from case import Case, Setup
from mosaic import QUICK, Mosaic, mosaic_slide, phantom_slide
from pictures import draw
from runs import PEERS, Bench, Scene

import wsikit as wk
from wsikit.grid import TileGrid
from wsikit.run.plan import BLOCK_PX, make_stage
from wsikit.survey import survey

TILE_PX = 256
PHANTOM_SIDE, QUICK_PHANTOM_SIDE = 8192, 1536
INTERRUPTED = 130  # exit status
HERE = Path(__file__).parent
Say = Callable[[str], None]


def job_names() -> list[str]:
    """Every module that says which cases it has: in ``jobs/``, or in this folder."""
    files = [*(HERE / "jobs").glob("*.py"), *HERE.glob("*.py")]
    return sorted(p.stem for p in files if "\ndef cases(" in p.read_text())


def load_job(name: str) -> Any:
    """The module of a job."""
    return importlib.import_module(f"jobs.{name}" if (HERE / "jobs" / f"{name}.py").exists() else name)


def scene_of(path: Path, file: Path) -> Scene:
    """A slide with the tiles that `wsikit tile` keeps of it, their corners written to a file."""
    slide = wk.open_slide(path)
    found = survey(slide)
    stage = make_stage("tiles", "", TileGrid(slide.reduced(1), TILE_PX), found.mask.tissue, found.raster, 0.0)
    corners = stage.grid.origins(stage.cells)
    np.save(file, corners)
    x, y = corners[stage.tissue.argmax()].tolist()
    return Scene(path, file, TILE_PX, (x, y), len(corners) * TILE_PX**2 / 1e6)


def peer_python(text: str) -> tuple[str, Path]:
    """``NAME=PATH`` of --peer-python."""
    name, _, path = text.partition("=")
    if name not in PEERS or not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{text}: NAME=PATH, of a Python interpreter; names are {', '.join(PEERS)}")
    return name, Path(path).absolute()


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run benchmarks: each case in its own process, in an order shuffled anew for each repetition.")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"{', '.join(job_names())} [default: all of them]")
    parser.add_argument("--quick", action="store_true", help="small slides, one repetition: checks that everything runs, its figures mean nothing")
    parser.add_argument("--repeats", type=int, help="how often each case is measured [default: 5; with --quick 1]")
    parser.add_argument("--cores", type=int, help="most cores that a case may use [default: all]")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only cases with this in their name (repeatable), and the floors")
    parser.add_argument("--no-peers", action="store_true", help="only wsikit and the floors")
    parser.add_argument("--peer-python", action="append", default=[], type=peer_python, metavar="NAME=PATH", help="a peer's own interpreter (repeatable)")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--slides", type=Path, help="where the mosaic and the phantom are kept [default: wsikit's cache]")
    parser.add_argument("--scratch", type=Path, help="where stores are written: the disk to measure [default: the system's temporary folder]")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where <job>.json, <job>.md and plots go")
    asked = parser.parse_args(given)
    if unknown := set(asked.jobs) - set(job_names()):
        parser.error(f"{', '.join(sorted(unknown))}: jobs are {', '.join(job_names())}")
    return asked


def chosen_cases(job: Any, asked: argparse.Namespace, setup: Setup) -> list[Case]:
    """A job's cases that were asked for."""
    found = [c for c in job.cases(setup) if not (c.peer and asked.no_peers)]
    return [c for c in found if not asked.only or c.stage == "floor" or any(text in c.name for text in asked.only)]


def setup_of(asked: argparse.Namespace) -> tuple[Setup, Mosaic]:
    """How large everything is."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    what = QUICK if asked.quick else Mosaic()
    block = min(BLOCK_PX, what.width // TILE_PX * TILE_PX, what.height // TILE_PX * TILE_PX)
    return Setup(min(asked.cores or available, available), block, asked.quick), what


def scenes_of(cases: list[Case], asked: argparse.Namespace, what: Mosaic, scratch: Path, say: Say) -> dict[str, Scene]:
    """The slides that these cases work on, made where they are not there yet."""
    make = {
        "mosaic": lambda: mosaic_slide(what, asked.slides, say),
        "phantom": lambda: phantom_slide(QUICK_PHANTOM_SIDE if asked.quick else PHANTOM_SIDE, asked.slides, say),
    }
    return {k: scene_of(make[k](), scratch / f"{k}.npy") for k in sorted({c.slide for c in cases} - {""})}


def run_job(name: str, asked: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Measure a job's cases; returns its JSON."""
    setup, what = setup_of(asked)
    job, repeats = load_job(name), asked.repeats or (1 if asked.quick else 5)
    cases = chosen_cases(job, asked, setup)
    with tempfile.TemporaryDirectory(dir=asked.scratch) as folder:
        scenes = scenes_of(cases, asked, what, Path(folder), say)
        say(f"{name}: {len(cases)} cases, {repeats} times each, on up to {setup.cores} cores")
        bench = Bench(scenes, Path(folder), say, dict(asked.peer_python))
        measured = bench.run(cases, repeats)
    slides = {k: {"file": Path(s.path).name, "bytes": Path(s.path).stat().st_size, "tissue_mpx": round(s.tissue_mpx, 1)} for k, s in scenes.items()}
    about = {"repeats": repeats, "interrupted": bench.interrupted, "quick": asked.quick, "slides": slides, "tile_px": TILE_PX}
    return report.as_json(name, measured, about, getattr(job, "targets", lambda _: []))


def main() -> int:
    asked = arguments()
    names = asked.jobs or job_names()
    if asked.list:
        for name in names:
            print("\n".join(f"{name}: {c.name}" for c in chosen_cases(load_job(name), asked, setup_of(asked)[0])))
        return 0
    failed = False
    for name in names:
        facts = run_job(name, asked, lambda line: print(line, file=sys.stderr, flush=True))
        text = report.markdown(facts)
        print(text + "\n", flush=True)
        if asked.out:
            report.write_json(asked.out / f"{name}.json", facts)
            (asked.out / f"{name}.md").write_text(text + "\n")
            draw(facts, asked.out)
        failed |= any(c.get("absent", "").startswith("failed") for c in facts["cases"])
        if facts["about"]["interrupted"]:
            return INTERRUPTED
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
