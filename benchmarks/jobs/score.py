"""Three pipelines in one pass over the pixels, three passes over them, and the models alone: who waits for whom?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from case import Case, Floor, Setup
from jobs.tile import DECODE, FLOOR, decode_floor
from task import Task
from verdict import Figures, Target

STAGE, MODELS = "score", "three models"
PIPELINES = ["sts-subtype", "rms-subtype", "mitosis"]
ONE_PASS, THREE_PASSES = "one pass", "three passes"
SAMPLES = 64  # different tiles of each model, shown to it again and again
Work = Callable[[], int]


def cases(setup: Setup) -> list[Case]:
    """On the phantom, with the models that are bundled for it."""
    floors = (Floor(FLOOR, MODELS), Floor(FLOOR, DECODE))
    ways = {ONE_PASS: ([PIPELINES], floors), THREE_PASSES: ([[p] for p in PIPELINES], floors)}
    ways |= {p: ([[p]], ()) for p in PIPELINES}  # each of them has other models below it
    ours = [Case(STAGE, who, "jobs.score:passes", options={"passes": what}, slide="phantom", floors=below) for who, (what, below) in ways.items()]
    return [decode_floor(1, "phantom"), Case(FLOOR, MODELS, "jobs.score:models", slide="phantom"), *ours]


def targets(f: Figures) -> list[Target]:
    """What one pass is for."""
    one, models = f.rate(STAGE, ONE_PASS), f.rate(FLOOR, MODELS)
    return [
        Target("three pipelines in one pass, in no more than 1.1 × their models' own time", models / one, 1.1, at_most=True),
        Target("one pass is faster than three", one / f.rate(STAGE, THREE_PASSES), 1.0),
    ]


@contextmanager
def passes(task: Task) -> Iterator[Work]:
    """`wsikit.score` of the slide, once for each list of pipelines, after a small phantom was scored: models are loaded and compiled.

    ``models`` are those of pipelines that are not to have their default one.
    """
    from wsikit.run import score
    from wsikit.run.engine import Where, open_pool

    slides, workers = task.options.get("slides", 1), task.options.get("workers", 0)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        models = task.options.get("models", {})
        where: dict[str, Any] = {"workers": 0}
        if workers:
            pool = stack.enter_context(open_pool(Where(workers)))
            task.facts["cpu_seconds"] = None  # it is spent in other processes
            where = {"scheduler": pool.client.scheduler.address}
        small = [_small(folder / f"{i}.tif", i) for i in range(max(1, 2 * workers))]
        for pipelines in task.options["passes"]:
            score(small, folder / f"warm-{'-'.join(pipelines)}", pipelines, models=models, **where)
        paths = [_copy(task.slide, folder / f"slide-{i}") for i in range(slides)]

        def work() -> int:
            seconds: dict[str, float] = {}
            out = Path(tempfile.mkdtemp(dir=task.scratch))  # a folder that has results already would be taken as it is
            for pipelines in task.options["passes"]:
                run = score(paths, out / "-".join(pipelines), pipelines, models=models, **where)
                if run.failed:
                    raise RuntimeError(str(run.failed))
                seconds = {k: seconds.get(k, 0.0) + run.seconds.get(k, 0.0) for k in seconds | run.seconds}
            task.facts["seconds_of"] = seconds
            return slides * len(task.corners()) * task.tile**2

        yield work


def _small(path: Path, seed: int) -> Path:
    from wsikit.testing.phantom import Spec, write_phantom

    write_phantom(path, Spec(seed, "LMS", 1024, 1024))
    return path


def _copy(slide: str, stem: Path) -> Path:
    """A file of its own: links to one file are one slide."""
    path = stem.with_suffix(Path(slide).suffix)
    shutil.copyfile(slide, path)
    return path


@contextmanager
def models(task: Task) -> Iterator[Work]:
    """The networks on tiles that lie in memory, as many of each as the slide has: nothing is read, cut, stained or written."""
    import torch

    torch.set_num_threads(task.cores)
    shown = [(_network(name), *_tiles(task.slide, name)) for name in task.options.get("pipelines", PIPELINES)]
    for network, tiles, _ in shown:
        network.predict(tiles[: network.card.batch])
    task.facts["tiles"] = {network.card.pipeline: n for network, _, n in shown}

    def work() -> int:
        for network, tiles, n in shown:
            batch = network.card.batch
            for start in islice(cycle(range(0, max(1, len(tiles) - batch + 1), batch)), -(-n // batch)):
                network.predict(tiles[start : start + batch])
        return len(task.corners()) * task.tile**2

    yield work


def _network(pipeline: str) -> Any:
    """The pipeline's model for phantoms, on the engine that a run takes by itself."""
    from wsikit.models import load_model
    from wsikit.run.job import choose_engines, choose_models

    ref = choose_engines(choose_models([pipeline], {}, phantoms=True), "cpu", "auto", {})[pipeline]
    return load_model(Path(ref.folder), "cpu", ref.engine)


def _tiles(slide: str, pipeline: str) -> tuple[np.ndarray, int]:
    """Some tiles of a model, uint8 (N, T, T, 3), and how many a run shows it."""
    import wsikit as wk
    from wsikit.grid import TileGrid
    from wsikit.models import read_card
    from wsikit.run.job import choose_models
    from wsikit.run.plan import make_stage
    from wsikit.survey import survey

    card = read_card(Path(choose_models([pipeline], {}, phantoms=True)[pipeline].folder))
    opened = wk.open_slide(slide)
    found = survey(opened)
    stage = make_stage(pipeline, "", TileGrid(opened.raster(card.mpp), card.tile_px, card.overlap_px), found.mask.tissue, found.raster, card.min_tissue)
    d, side = stage.grid.raster.downsample, card.tile_px
    origins = stage.grid.origins(stage.cells)[np.linspace(0, len(stage.cells) - 1, SAMPLES).astype(int)]
    cut = [opened.read((int(x), int(y), round(side * d[0]), round(side * d[1])), mpp=stage.grid.raster.mpp[0])[:side, :side] for x, y in origins]
    return np.stack([np.pad(t, ((0, side - t.shape[0]), (0, side - t.shape[1]), (0, 0)), mode="edge") for t in cut]), len(stage.cells)
