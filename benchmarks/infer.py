"""How much of the bare model's speed does `wsikit score` keep? Tiles per second of processor time, from a slide to its report beside the network alone.

One process, one thread, no workers: both take turns on the same tiles, and the time is that of the processor, so that what else the machine does falls on
both alike. Scoring has everything in it: the first look, reading, stain, tiles, tables, overlays, digests. Where that time goes is printed.

    python benchmarks/infer.py densenet121 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engines import make_model

from wsikit.models import load_model
from wsikit.models._engine import AUTO, probe_tiles
from wsikit.run import score
from wsikit.run.job import choose_engines, choose_models
from wsikit.testing.phantom import Spec, write_phantom

PIPELINE = "sts-subtype"


def bare(model: Any, tiles: np.ndarray, count: int) -> float:
    """Processor seconds of a network for so many tiles, which lie in memory."""
    batch = 4 * model.card.batch  # as many as scoring shows it at once
    start = time.process_time()
    for at in range(0, count, batch):
        model.predict(tiles[: min(batch, count - at)])
    return time.process_time() - start


def measure(name: str, tile: int, batch: int, rounds: int, side: int, engine: str, scratch: Path) -> dict[str, Any]:
    """Tiles a second of both, their ratio, and what scoring spends its seconds on."""
    torch.set_num_threads(1)
    folder, slide = scratch / "model", scratch / "slide.tif"
    make_model(folder, name, tile, batch)
    write_phantom(slide, Spec(1, "LMS", side, side))
    write_phantom(scratch / "small.tif", Spec(2, "LMS", 1024, 1024))
    how: dict[str, Any] = {"models": {PIPELINE: folder}, "engine": engine}
    score([scratch / "small.tif"], scratch / "warm", [PIPELINE], **how)  # loads the model and compiles
    ref = choose_engines(choose_models([PIPELINE], how["models"]), "cpu", engine, {})[PIPELINE]
    model, tiles = load_model(Path(ref.folder), "cpu", ref.engine), probe_tiles(tile, 4 * batch)
    model.predict(tiles)
    ratios, parts, count = [], [], 0
    for i in range(rounds):
        start, wall = time.process_time(), time.perf_counter()
        run = score([slide], scratch / f"run-{i}", [PIPELINE], **how)
        spent, took = time.process_time() - start, time.perf_counter() - wall
        count = len(run.store("slide").tables()[PIPELINE]["tissue"])
        alone = bare(model, tiles, count)
        ratios.append(alone / spent)
        parts.append({"score": count / spent, "bare": count / alone, "wall": took, "stages": run.seconds})
    middle = parts[int(np.argsort(ratios)[len(ratios) // 2])]
    return {
        "model": name,
        "engine": ref.engine,
        "tiles": count,
        "score_tiles_per_cpu_second": round(middle["score"], 2),
        "bare_tiles_per_cpu_second": round(middle["bare"], 2),
        "ratio": round(float(np.median(ratios)), 3),
        "ratios": [round(r, 3) for r in ratios],
        "seconds_of_stages": {k: round(v, 2) for k, v in sorted(middle["stages"].items(), key=lambda kv: -kv[1])},
        "wall_seconds": round(middle["wall"], 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="densenet121")
    parser.add_argument("--tile", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=6144, help="px of the phantom slide's side")
    parser.add_argument("--engine", default=AUTO)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(given.model, given.tile, given.batch, given.rounds, given.side, given.engine, Path(name)), indent=1))
