"""Grad-CAM of a classifier's tiles as a stage of its own: asked for with a run or after it, done block by block, and nothing else done again.

It is computed by torch in float32, whatever engine scores: other engines have no gradients.

Of a model that calls slides by attention, the map is of the slide's logits. These are the tiles' own, each times its attention, and so are their gradients:
what is kept of a tile's block is the map of its own logits, and its attention weights it where the slide is put together.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file

from wsikit import RESEARCH_USE_ONLY
from wsikit.aggregate.calls import attention_weights
from wsikit.errors import UsageError
from wsikit.models import RISK_PIPELINE, read_card
from wsikit.overlay.grad_cam import assemble, placement
from wsikit.overlay.heat import ATTENTION, METHOD, explained, explaining
from wsikit.run import damaged
from wsikit.run.job import Explained, Job, ModelRef
from wsikit.run.plan import Stage
from wsikit.salvage import touching
from wsikit.store import SlideStore
from wsikit.store.image import write_group, write_image

if TYPE_CHECKING:
    from wsikit.cut import Canvas
    from wsikit.models._cam import GradCam

VERSION = 1  # raise it when a map would come out otherwise
MOST_CLASSES = 16
SQUARE_PX = 28  # of a tile, at least: finer grids, as of transformers' tokens, are averaged, so that a slide's map is no larger than that of a CNN


def choose_explained(wanted: Sequence[str], models: Mapping[str, ModelRef]) -> dict[str, Explained]:
    """What ``PIPELINE`` or ``PIPELINE=CLASS,CLASS`` ask for, after trying that these models' networks have such maps.

    Raises
    ------
    UsageError
        It is no pipeline of this run, has no such class, or too many classes to draw them all.
    ModelError
        Its network has no maps, or no gradients.
    """
    found = {}
    for said in wanted:
        name, _, classes = said.partition("=")
        if name not in models:
            raise UsageError(f"--explain {said}: '{name}' is no pipeline of this run; there are: {', '.join(models) or '(none)'}")
        found[name] = _explained(said, [c.strip() for c in classes.split(",") if c.strip()], models[name])
    return found


def _explained(said: str, classes: list[str], ref: ModelRef) -> Explained:
    card = read_card(Path(ref.folder))
    if card.pipeline == RISK_PIPELINE or card.task != "classify":
        raise UsageError(f"--explain {said}: Grad-CAM is of classifiers of tiles, and the task of model {card.name} is '{card.task}'")
    chosen = list(dict.fromkeys(classes)) or card.classes
    if len(chosen) > MOST_CLASSES:
        raise UsageError(f"--explain {said}: {len(chosen)} classes are more than {MOST_CLASSES}; name some: --explain {card.pipeline}={','.join(chosen[:2])}")
    return Explained(classes=chosen, layer=_grad_cam(ref.folder, ref.digest, "cpu", tuple(chosen)).maps.name)


@lru_cache(maxsize=4)
def _grad_cam(folder: str, digest: str, device: str, classes: tuple[str, ...]) -> GradCam:
    """Made once per process; ``digest`` makes a changed model another one."""
    from wsikit.models import load_model
    from wsikit.models._cam import GradCam

    return GradCam(load_model(folder, device), classes)


def explain_recipe(job: Job, pipeline: str) -> list[Any]:
    """All that the maps depend on beside the slide: not on what else scores it, nor by which engine."""
    ref = job.models[pipeline]
    weighted = [ATTENTION] if read_card(Path(ref.folder)).architecture.get("name") == "mil" else []
    return [VERSION, ref.digest, job.explain[pipeline].model_dump(), *weighted]


def explain(job: Job, stage: Stage, rows: np.ndarray, canvas: Canvas) -> dict[str, np.ndarray]:
    """The maps of some tiles of a block, float16 (N, K, S, S); ``row`` int64 says which of the stage's tiles each is of."""
    import torch

    torch.set_num_threads(1)  # sums come out the same everywhere, as for scoring
    pipeline = explained(stage.name)
    ref, wanted = job.models[pipeline], job.explain[pipeline]
    cam = _grad_cam(ref.folder, ref.digest, job.device, tuple(wanted.classes))
    corners = stage.grid.corners_px(stage.cells[rows])
    step = cam.batch * 4
    parts = [own_squares(cam(canvas.tiles(corners[i : i + step])), stage) for i in range(0, len(rows), step)]
    return {"row": rows, "map": np.concatenate(parts)}


def own_squares(maps: np.ndarray, stage: Stage) -> np.ndarray:
    """Of maps float32 (N, K, h, w) that cover tiles, what lies in the tiles' own cells, without their overlap: float16 (N, K, S, S)."""
    grid = stage.grid
    share = grid.stride_px / grid.tile_px
    side = max(1, min(grid.stride_px // SQUARE_PX, round(min(maps.shape[2:]) * share)))
    first = (1 - share) / 2
    for n in maps.shape[:1:-1]:  # columns, then rows
        weights = _averaging(n, first, share, side)
        # not a product of matrices, which adds up in another order for other numbers of tiles
        maps = sum(maps[..., k, None] * weights[:, k] for k in range(n)).swapaxes(2, 3)
    return np.clip(maps, 0, np.finfo(np.float16).max).astype(np.float16)


def _averaging(n: int, first: float, share: float, side: int) -> np.ndarray:
    """Weights float32 (side, n) of the mean, over ``side`` equal parts of [first, first + share], of a line of n equal pixels over [0, 1]."""
    edges = (first + share * np.arange(side + 1) / side) * n
    low, high = np.maximum(edges[:-1, None], np.arange(n)), np.minimum(edges[1:, None], np.arange(1, n + 1))
    covered = np.clip(high - low, 0, None)
    return np.asarray(covered / covered.sum(1, keepdims=True), np.float32)


def write_explained(path: Path, store: SlideStore, stage: Stage, job: Job, parts: Iterable[Path]) -> None:
    """``overlays/<pipeline>-grad-cam``: a channel a class, with where it is from in its attributes."""
    pipeline = explained(stage.name)
    ref, wanted = job.models[pipeline], job.explain[pipeline]
    whole = ~touching(stage.grid, stage.cells, damaged.places(store))
    weight = _attention(store, pipeline, whole)
    maps = _maps(parts, stage, whole, weight)
    # a tile that is looked at far more than all others is no speck: its brightest place is 1
    heat, logits = assemble(stage.grid, len(wanted.classes), maps) if weight is None else assemble(stage.grid, len(wanted.classes), maps, 1.0)
    side = heat.shape[1] // stage.grid.shape[1]
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    omero = {"channels": [{"label": c, "color": "FFFFFF", "active": i == 0, "window": window} for i, c in enumerate(wanted.classes)]}
    overlay = path / "overlays" / stage.name
    shutil.rmtree(overlay, ignore_errors=True)
    write_image(overlay, stage.name, [heat], [placement(stage.grid, side)], fill=float("nan"), extra={"omero": omero})
    about: dict[str, Any] = {
        "method": METHOD if weight is None else f"{METHOD}, each tile weighted by its attention",
        "pipeline": pipeline,
        "model": ref.model_dump(exclude={"folder", "engine", "engine_difference"}),
        "layer": wanted.layer,
    }
    about |= {"classes": wanted.classes, "key": stage.key, "logits_at_1": logits, "squares_per_tile": side, "statement": RESEARCH_USE_ONLY}
    write_group(overlay, {"wsikit": about})


def _attention(store: SlideStore, pipeline: str, whole: np.ndarray) -> np.ndarray | None:
    """How much each tile of a stage counts in the slide's logits, float32 (N,), 0 for those that are not whole; None where all count alike."""
    table = store.tables()[pipeline]
    if ATTENTION not in table:
        return None
    weight = np.zeros(len(whole), np.float32)
    weight[whole] = attention_weights(table[ATTENTION])
    return weight


def _maps(parts: Iterable[Path], stage: Stage, whole: np.ndarray, weight: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for part in parts:
        columns = load_file(part)
        rows = columns["row"][kept := whole[columns["row"]]]
        maps = columns["map"][kept]
        yield stage.cells[rows], maps if weight is None else maps * weight[rows, None, None, None]


def explanation(store: SlideStore, pipeline: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """What a pipeline's answer says of its map: which overlay, of which class it is shown, and how many logits its 1 stands for. No answer says nothing."""
    name = explaining(pipeline)
    if result["status"] != "ok" or name not in store.overlays():
        return {}
    about = store.about_overlay(name)
    shown = result["call"] if result.get("call") in about["classes"] else about["classes"][0]
    logits = about["logits_at_1"]
    # where each of many tiles has a small share of the slide's logits, so has the map
    logits = round(logits, 6) if about["method"] == METHOD else float(f"{logits:.6g}")
    return {"explanation": {"overlay": name, "class": shown, "logits_at_1": logits}}
