"""From slide to normalised Zarr, beside the peers, in one run.

    python benchmarks/slide_to_zarr.py --json result.json --plot result.png

See README.md beside this file for what is measured, and what to mind.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import report
from cases import STAGES, Case, all_cases
from mosaic import QUICK, Mosaic, mosaic_slide, phantom_slide
from runs import Bench, Scene

import wsikit as wk
from wsikit.grid import TileGrid
from wsikit.run.plan import BLOCK_PX, make_stage
from wsikit.survey import survey

TILE_PX = 256
PHANTOM_SIDE, QUICK_PHANTOM_SIDE = 8192, 1536


def scene_of(path: Path, file: Path) -> Scene:
    """A slide with the tiles that `wsikit tile` keeps of it, their corners written to a file."""
    slide = wk.open_slide(path)
    found = survey(slide)
    stage = make_stage("tiles", "", TileGrid(slide.reduced(1), TILE_PX), found.mask.tissue, found.raster, 0.0)
    corners = stage.grid.origins(stage.cells)
    np.save(file, corners)
    x, y = corners[stage.tissue.argmax()].tolist()
    return Scene(path, file, TILE_PX, (x, y), len(corners) * TILE_PX**2 / 1e6)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="From slide to normalised Zarr beside the peers, each case in its own process, in one run.")
    parser.add_argument("--quick", action="store_true", help="a small slide, one repetition: checks that everything runs, its figures mean nothing")
    parser.add_argument("--repeats", type=int, help="how often each case is measured [default: 5; with --quick 1]")
    parser.add_argument("--cores", type=int, help="most cores that a case may use [default: all]")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only cases with this in their name (repeatable), and decode floors")
    parser.add_argument("--no-peers", action="store_true", help="only wsikit and the decode floor")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--slides", type=Path, help="where the mosaic and the phantom are kept [default: wsikit's cache]")
    parser.add_argument("--scratch", type=Path, help="where stores are written: the disk to measure [default: the system's temporary folder]")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    return parser.parse_args()


def chosen_cases(given: argparse.Namespace, cores: int, block: int) -> list[Case]:
    found = all_cases(cores, block, quick=given.quick)
    if given.no_peers:
        found = [c for c in found if not c.packages]
    if given.only:
        found = [c for c in found if c.stage == STAGES[0] or any(text in c.name for text in given.only)]
    return found


def main() -> int:
    given = arguments()
    repeats = given.repeats or (1 if given.quick else 5)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(given.cores or available, available)
    what = QUICK if given.quick else Mosaic()
    block = min(BLOCK_PX, what.width // TILE_PX * TILE_PX, what.height // TILE_PX * TILE_PX)
    cases = chosen_cases(given, cores, block)
    if given.list:
        print("\n".join(c.name for c in cases))
        return 0

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    slides = {"mosaic": mosaic_slide(what, given.slides, say), "phantom": phantom_slide(QUICK_PHANTOM_SIDE if given.quick else PHANTOM_SIDE, given.slides, say)}
    with tempfile.TemporaryDirectory(dir=given.scratch) as name:
        scratch = Path(name)
        scenes = {k: scene_of(path, scratch / f"{k}.npy") for k, path in slides.items()}
        tissue = {k: round(s.tissue_mpx, 1) for k, s in scenes.items()}
        say(f"{len(cases)} cases, {repeats} times each, on up to {cores} cores; tissue, MPx: {tissue}")
        measured = Bench(scenes, scratch, say).run(cases, repeats)
    about = {"slides": {k: {"file": p.name, "bytes": p.stat().st_size, "tissue_mpx": tissue[k]} for k, p in slides.items()}}
    about |= {"mosaic_megapixels": what.width * what.height / 1e6, "repeats": repeats, "quick": given.quick, "tile_px": TILE_PX}
    facts = report.as_json(measured, about)
    report.show(measured, facts)
    if given.json:
        report.write_json(given.json, facts)
    if given.plot:
        report.plot(given.plot, measured, facts)
    return 1 if any(m.absent.startswith("failed") for m in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
