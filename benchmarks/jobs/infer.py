"""How much of the bare network's speed does `wsikit score` keep? Slides from the first look to their reports, beside the network on tiles in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from case import Case, Floor, Setup
from jobs.score import passes
from task import Task
from verdict import Figures, Target

STAGE, FLOOR, EAGER, SCORE, TIA = "infer", "floor", "eager torch", "wsikit score", "TIAToolbox's predictor"
PIPELINE, BATCH = "sts-subtype", 16
NETWORKS = {"densenet121": 224, "inception_v3": 299}  # with their tiles' sides in px
Work = Callable[[], int]


def cases(setup: Setup) -> list[Case]:
    """Each network with random weights. The floor is the network alone on the engine that a run takes; one worker a core, so the roof of n is n times that."""
    few = 2 * BATCH if setup.quick else 128
    found = []
    for name, tile in list(NETWORKS.items())[: 1 if setup.quick else None]:
        how: dict[str, Any] = {"model": name, "side": tile, "tiles": few, "batch": BATCH}
        alone = f"{name}, the engine alone"
        found.append(Case(FLOOR, alone, "jobs.infer:alone", options=how, slide="phantom", unit="tiles"))
        for n in setup.counts:
            floors = (Floor(FLOOR, alone, times=1 / n, cores=1),)
            work = how | {"passes": [[PIPELINE]], "workers": n if n > 1 else 0, "slides": n}
            found += [
                Case(STAGE, f"{name}, {SCORE}", "jobs.infer:scored", n, options=work, slide="phantom", unit="tiles", floors=floors),
                Case(STAGE, f"{name}, {EAGER}", "jobs.infer:eager_torch", n, options=how, unit="tiles"),
                Case(STAGE, f"{name}, {TIA}", "jobs.peers:tia_predict", n, few, how, "tiatoolbox", "phantom", "tiles"),
            ]
        most = setup.counts[-1]
        found.append(Case(STAGE, f"{name}, {TIA}, from the slide", "jobs.peers:tia_predict_slide", most, None, how, "tiatoolbox", "phantom", "tiles"))
    return found


def targets(f: Figures) -> list[Target]:
    """What was promised of inference."""
    from wsikit.models._engine import _has_bfloat16

    wanted = 8 if _has_bfloat16() else 2
    found = []
    for name in (n for n in NETWORKS if f.find(FLOOR, f"{n}, the engine alone")):
        alone = f.rate(FLOOR, f"{name}, the engine alone")
        found.append(Target(f"{name}: `wsikit score` ≥ 0.9 × the engine alone, one core", f.rate(STAGE, f"{name}, {SCORE}") / alone, 0.9))
        found.append(Target(f"{name}: the engine alone ≥ {wanted} × eager torch, one core", alone / f.rate(STAGE, f"{name}, {EAGER}"), wanted))
    return found


@contextmanager
def _model(task: Task) -> Iterator[Path]:
    from engines import make_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        make_model(folder, task.options["model"], task.options["side"], task.options["batch"])
        yield folder


def _shown(task: Task, predict: Callable[[np.ndarray], Any], at_once: int) -> Work:
    """Shows it tiles that lie in memory, again and again."""
    from wsikit.models._engine import probe_tiles

    tiles, n = probe_tiles(task.options["side"], at_once), task.options["tiles"]
    predict(tiles)

    def work() -> int:
        times = -(-n // at_once)
        for _ in range(times):
            predict(tiles)
        return times * at_once

    return work


@contextmanager
def alone(task: Task) -> Iterator[Work]:
    """The network as a worker has it, in one thread: nothing is read, cut, stained or written."""
    import torch

    from wsikit.models import load_model
    from wsikit.run.job import choose_engines, choose_models

    torch.set_num_threads(1)
    with _model(task) as folder:
        ref = choose_engines(choose_models([PIPELINE], {PIPELINE: folder}), "cpu", "auto", {})[PIPELINE]
        task.facts["said"] = {"ran on": ref.engine, "its probabilities from torch's, at most": f"{ref.engine_difference or 0:.1g}"}
        model: Any = load_model(Path(ref.folder), "cpu", ref.engine)
        yield _shown(task, model.predict, 4 * task.options["batch"])  # as many as scoring shows it at once


@contextmanager
def eager_torch(task: Task) -> Iterator[Work]:
    """The network as a notebook runs it."""
    import torch
    from engines import eager

    torch.set_num_threads(task.cores)
    with _model(task) as folder:
        yield _shown(task, eager(folder), task.options["batch"])


@contextmanager
def scored(task: Task) -> Iterator[Work]:
    """`wsikit.score` of a slide a core, with everything in it: the first look, reading, stain, tiles, tables, overlays, digests."""
    import torch

    import wsikit as wk

    torch.set_num_threads(1)
    with _model(task) as folder:
        task.options["models"] = {PIPELINE: folder}
        with passes(task) as work:

            def tiles() -> int:
                work()
                stores = Path(task.scratch).glob("*/*/slides/*.zarr")
                return sum(len(wk.open_store(path).tables()[PIPELINE]["tissue"]) for path in stores)

            yield tiles
