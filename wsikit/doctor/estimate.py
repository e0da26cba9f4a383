"""How many hours and how much disk will an archive take here? From a short run on a phantom, and each slide's tissue.

A phantom is scored with the chosen models by one worker, as a slide would be. Its seconds are told apart by what they grow with: tiles of each
model, megapixels that are read, and the slide. Real slides differ in how their tiles are compressed and stored: take it as half to twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsikit.doctor.examine import total_bytes, unpacked
from wsikit.errors import SlideError
from wsikit.geometry import Level, Size
from wsikit.grid import Raster, TileGrid, make_raster
from wsikit.models import Card
from wsikit.run import score
from wsikit.run.engine import default_workers
from wsikit.run.job import Job, choose_models
from wsikit.run.plan import make_stage
from wsikit.run.prepare import load_plan
from wsikit.store.durable import digest_of

PHANTOM_PX, PHANTOM_MPP = 1536, 0.5
START_SECONDS = 4.0  # of worker processes
_PIXELS = ("read", "resample", "stain", "quality")
HOW = "from a phantom of 1536 px scored now by one worker; real slides take about half to twice that"


@dataclass(frozen=True)
class Speed:
    """What a run costs here: seconds a tile of each pipeline, a megapixel of tissue at level 0, and a slide; bytes a mm² of tissue and a slide."""

    per_tile: Mapping[str, float]
    per_mpx: float
    per_slide: float
    bytes_per_mm2: float
    bytes_per_slide: float
    workers: int


def measure(pipelines: Sequence[str] | None, models: Mapping[str, str], device: str = "cpu") -> tuple[Speed, dict[str, Card]]:
    """Score a phantom with the chosen pipelines, and see what it takes.

    Raises
    ------
    UsageError, ModelError
        The pipelines or models cannot be.
    """
    from wsikit.testing.phantom import Spec, write_phantom

    chosen = choose_models(pipelines, models)  # those of real slides, also where a phantom is scored to time them
    cards = Job(models=chosen, slides=[]).cards()
    used = {name: ref.folder for name, ref in chosen.items()}
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for side in (PHANTOM_PX // 2, PHANTOM_PX):  # the first also loads and compiles what is needed once
            path = Path(folder) / f"phantom-{side}.tif"
            write_phantom(path, Spec(1, "LMS", side, side, mpp=PHANTOM_MPP))
            runs.append(score([path], Path(folder) / f"run-{side}", list(cards), models={n: used[n] for n in cards}, device=device, upsample=True))
        seconds, store = runs[1].seconds, runs[1].store(path.stem)
        stages = load_plan(str(store.path), digest_of(store.attributes)).stages
        tiles = {name: max(1, len(stages[name].cells)) for name in cards}
        mm2 = [next(iter(run.results.values()))["tissue_mm2"] for run in runs]
        stored = [total_bytes(run.folder / "slides") for run in runs]
    slope = max(0.0, (stored[1] - stored[0]) / (mm2[1] - mm2[0]))
    return Speed(
        per_tile={name: seconds.get(name, 0.0) / tiles[name] for name in cards},
        per_mpx=sum(seconds.get(s, 0.0) for s in _PIXELS) / (mm2[1] / PHANTOM_MPP**2),
        per_slide=sum(v for k, v in seconds.items() if k not in cards and k not in _PIXELS),
        bytes_per_mm2=slope,
        bytes_per_slide=max(0.0, stored[1] - slope * mm2[1]),
        workers=default_workers(device),
    ), cards


def estimate(rows: Sequence[Mapping[str, Any]], speed: Speed, cards: Mapping[str, Card]) -> dict[str, Any]:
    """Hours and gigabytes for the slides that can be scored, tiles by pipeline, and how many of these slides each pipeline will not answer for.

    ``too_coarse`` counts the slides that a pipeline's model will refuse, ``unknown_tissue`` the real ones on which a model of phantoms abstains.
    """
    usable = [r for r in rows if r["verdict"] == "ok" and "mask" in r and not r.get("duplicate_of")]
    tiles, coarse = dict.fromkeys(cards, 0), dict.fromkeys(cards, 0)
    real = sum(not r.get("phantom") for r in usable)
    seconds = mm2 = 0.0
    for row in usable:
        mask, raster = unpacked(row["mask"]), Raster.from_json(row["mask"]["raster"])
        levels = [Level(i, Size(int(w), int(h)), (dx, dy)) for i, (w, h, dx, dy) in enumerate(row["levels"])]
        for name, card in cards.items():
            try:
                grid = TileGrid(make_raster(levels, tuple(row["mpp"]), card.mpp), card.tile_px, card.overlap_px)
            except SlideError:  # too coarse for this model
                coarse[name] += 1
                continue
            n = len(make_stage(name, "", grid, mask, raster, card.min_tissue).cells)
            tiles[name] += n
            seconds += n * speed.per_tile[name]
        mm2 += row["tissue_mm2"]
        seconds += speed.per_slide + speed.per_mpx * row["tissue_mm2"] / (row["mpp"][0] * row["mpp"][1])
    wall = START_SECONDS + seconds / min(speed.workers, max(1, len(usable)))
    return {
        "slides": len(usable),
        "not_estimated": sum(r["verdict"] == "ok" and "mask" not in r for r in rows),
        "tissue_mm2": round(mm2, 1),
        "tiles": tiles,
        "too_coarse": {name: n for name, n in coarse.items() if n},
        "unknown_tissue": {name: real for name, card in cards.items() if real and card.trained_on.domain == "phantom"},
        "seconds": round(wall if usable else 0.0, 1),
        "hours": round(wall / 3600 if usable else 0.0, 3),
        "gigabytes": round((mm2 * speed.bytes_per_mm2 + len(usable) * speed.bytes_per_slide) / 1e9, 6),
        "workers": speed.workers,
        "how": HOW,
    }
