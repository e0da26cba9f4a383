"""The middle task: one block. Decode once, let every model see it, write its part, say what was written."""

from __future__ import annotations

from concurrent.futures import Future
from functools import lru_cache
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

from wsikit.clock import Clock, timed
from wsikit.cut import Canvas, Want, cut
from wsikit.geometry import Region
from wsikit.grid import Block, TileGrid
from wsikit.models import load_model
from wsikit.overlay.heat import TITLE, explained
from wsikit.run.damaged import advice
from wsikit.run.device import device_errors
from wsikit.run.explain import explain
from wsikit.run.job import Job, load_job
from wsikit.run.plan import BLOCK_LEVELS, PIXELS, PYRAMID_FACTOR, QUALITY, Plan, Stage, chunk_px
from wsikit.run.prepare import load_plan, load_tissue, open_case, store_path
from wsikit.run.quality import measure
from wsikit.run.stains import AS_SCANNED, stain_of
from wsikit.salvage import touching
from wsikit.stain import StainFit
from wsikit.store import SlideStore
from wsikit.store.codec import PixelCodec, parse_codec
from wsikit.store.direct import write_later
from wsikit.store.durable import digest_of
from wsikit.store.image import coarser
from wsikit.store.receipts import Receipt
from wsikit.store.shard import encode_shard

if TYPE_CHECKING:
    from wsikit.models._network import Detections, Network

_DEVICE = Lock()  # a worker with two threads decodes in one while the other's block is on the GPU


@lru_cache(maxsize=8)
def worker_model(folder: str, digest: str, device: str, engine: str = "torch") -> Network:
    """A model, loaded once per worker process. ``digest`` makes a changed model another one."""
    import torch

    torch.set_num_threads(1)  # kernels add in another order with more threads; parallel work comes from more workers
    return load_model(folder, device, engine)


@device_errors()
@timed
def do_block(run_dir: str, run_key: str, slide_id: str, block: Block, names: list[str]) -> dict[str, Any]:
    """Do some stages of a block and return its receipt, once all its bytes are on the disk, with the ``seconds`` of each stage.

    Raises
    ------
    DamagedSlideError
        The slide cannot be decoded here.
    OutputError
        The disk is full or cannot be written.
    EngineError
        The GPU failed.
    """
    job = load_job(run_dir, run_key)
    path = store_path(run_dir, slide_id)
    attributes = SlideStore(path).attributes
    plan = load_plan(str(path), digest_of(attributes))
    wants = {}
    for name in names:
        stage = plan.stages[name]
        stain = AS_SCANNED if name == QUALITY else StainFit.model_validate(stain_of(attributes, job.cards().get(explained(name) or name)))
        wants[name] = Want(stage.grid, stage.cells[plan.rows(name, block)], stain)
    clock = Clock()
    lost: list[Region] | None = [] if job.max_damaged else None
    with advice(job):
        canvases = cut(open_case(run_dir, run_key, slide_id, attributes["slide"]["reader"]), wants, job.device, clock, lost)
    used = {name: plan.rows(name, block)[~touching(want.grid, want.cells, lost or [])] for name, want in wants.items()}
    files: dict[Path, Future[str]] = {}
    if PIXELS in names:  # the largest files first: they are written while the rest is worked out
        assert job.pixels is not None
        codec = parse_codec(job.pixels.codec)
        with clock("encode"):
            files |= _write_pixels(path, canvases[PIXELS], block, plan.stages[PIXELS], plan, attributes["pixels"]["shard_px"], codec)
    for name in names:
        if name == PIXELS or not len(used[name]):
            continue  # all of it is damaged
        columns = _columns(job, path, attributes, plan.stages[name], used[name], canvases[name], clock)
        part = path.with_suffix(".parts") / name / f"{block.name}.safetensors"
        # safetensors writes the memory as it lies, and says that it lies row by row
        files[part] = write_later(part, [save({k: np.ascontiguousarray(v) for k, v in columns.items()})])
    keys = {name: plan.part_key(name) for name in names}
    with clock("write"):
        written = {f.relative_to(path.parent).as_posix(): files[f].result() for f in sorted(files)}
    receipt = Receipt(block=block.name, keys=keys, files=written, damaged=[(r.x, r.y, r.w, r.h) for r in lost or []])
    return receipt.model_dump() | {"seconds": clock.seconds}


def _columns(job: Job, path: Path, attributes: dict[str, Any], stage: Stage, rows: np.ndarray, canvas: Canvas, clock: Clock) -> dict[str, np.ndarray]:
    """What a stage finds in some of its tiles."""
    if stage.name == QUALITY:
        with clock(QUALITY):
            return measure(attributes, stage, rows, canvas, load_tissue(str(path), digest_of(attributes)))
    if explained(stage.name):
        with _DEVICE, clock(TITLE):
            return explain(job, stage, rows, canvas)
    ref = job.models[stage.name]
    with _DEVICE, clock(stage.name):
        return _score(worker_model(ref.folder, ref.digest, job.device, ref.engine), stage, rows, canvas)


def _score(model: Network, stage: Stage, rows: np.ndarray, canvas: Canvas) -> dict[str, np.ndarray]:
    """A model's columns for some tiles; ``row`` int64 says which of the stage's tiles each belongs to."""
    corners = stage.grid.corners_px(stage.cells[rows])
    step = model.card.batch * 4
    parts = []
    for start in range(0, len(rows), step):
        chosen = slice(start, start + step)
        result = model.predict(canvas.tiles(corners[chosen]))
        if model.card.task == "detect":
            parts += [_owned(d, c, r, stage.grid) for d, c, r in zip(result, corners[chosen], rows[chosen], strict=True)]
        elif model.card.task == "segment":
            parts.append({"row": rows[chosen], **result})
        else:
            parts.append({"row": rows[chosen], **result, "feature": result["feature"].astype(np.float16)})
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def _owned(found: Detections, corner: np.ndarray, row: int, grid: TileGrid) -> dict[str, np.ndarray]:
    """The detections whose centre lies in the tile's own cell, in level-0 px: a neighbour has seen the others better."""
    margin = grid.overlap_px / 2
    mine = ((found.position >= margin) & (found.position < grid.tile_px - margin)).all(1)
    downsample = np.array(grid.raster.downsample)
    kind = {} if found.atypical is None else {"atypical": found.atypical[mine].astype(np.float32)}
    return kind | {
        "row": np.full(int(mine.sum()), row, np.int64),
        "position": (found.position[mine].astype(np.float64) + corner) * downsample,
        "score": found.score[mine].astype(np.float32),
        "class": found.label[mine].astype(np.int64),
        "size": (found.size[mine] * downsample).astype(np.float32),
    }


def _write_pixels(path: Path, canvas: Canvas, block: Block, stage: Stage, plan: Plan, side: int, codec: PixelCodec) -> dict[Path, Future[str]]:
    """Fill the block's shard at each level it owns; returns the digests-to-be of the shards that come to be."""
    t = stage.grid.tile_px
    rgb = _on_white(canvas, stage.grid.corners_px(stage.cells[plan.rows(PIXELS, block)]), (block.column * side, block.row * side), side)
    files = {}
    for level in range(BLOCK_LEVELS):
        array = path / str(level)
        if not array.exists():
            break
        file = array / f"c/0/{block.row}/{block.column}"
        parts = encode_shard(rgb, chunk_px(len(rgb), t), codec)
        if first := next(parts, None):
            files[file] = write_later(file, chain([first], parts))
        else:
            file.unlink(missing_ok=True)
        rgb = coarser(rgb, PYRAMID_FACTOR)
    return files


def _on_white(canvas: Canvas, corners: np.ndarray, origin: tuple[int, int], side: int) -> np.ndarray:
    """The block's square with its tiles, white between them: uint8 (side, side, 3)."""
    pixels, t = canvas.array(), canvas.tile_px
    if pixels.shape[:2] == (side, side) and len(corners) * t * t == side * side:
        return pixels  # every tile is there, so a copy would be the same
    rgb, kept = np.empty((side, side, 3), np.uint8), {(x, y) for x, y in corners.tolist()}
    for y in range(0, side, t):
        for x in range(0, side, t):
            at_x, at_y = origin[0] + x, origin[1] + y
            has = (at_x, at_y) in kept
            rgb[y : y + t, x : x + t] = pixels[at_y - canvas.y : at_y - canvas.y + t, at_x - canvas.x : at_x - canvas.x + t] if has else 255
    return rgb
