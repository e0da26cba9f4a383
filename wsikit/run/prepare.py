"""The first task of a slide: look at it at low power, decide which tiles are scored, and lay out its store."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wsikit import RESEARCH_USE_ONLY
from wsikit.clock import Clock, timed
from wsikit.colour import icc_facts
from wsikit.cut import normalise
from wsikit.errors import DigestMismatchError, ResolutionMismatchError, StoreMismatchError, UnsupportedFormatError
from wsikit.gate import admit
from wsikit.grid import Raster, TileGrid
from wsikit.location import locate
from wsikit.overlay.heat import explained, explaining
from wsikit.readers._container import missing_tiles
from wsikit.run.damaged import advice
from wsikit.run.explain import explain_recipe
from wsikit.run.job import Job, load_job
from wsikit.run.labels import write_labels
from wsikit.run.ledger import commit_layout, layout
from wsikit.run.missing import check_missing
from wsikit.run.plan import (
    BLOCK_LEVELS,
    PIXELS,
    PYRAMID_FACTOR,
    QUALITY,
    Plan,
    block_grid,
    chunk_px,
    finest_downsample,
    grid_info,
    grid_of,
    make_stage,
    pyramid_sizes,
    shard_px,
    stored_tile_px,
)
from wsikit.run.quality import quality_layout, quality_stage
from wsikit.run.stains import model_stains, stain_key, stain_of
from wsikit.slide import Slide
from wsikit.store import SCHEMA, SlideStore
from wsikit.store.durable import digest_of
from wsikit.store.image import RGB_CHANNELS, Placement, coarser, create_array, multiscales, write_group, write_image
from wsikit.survey import Survey, survey
from wsikit.tissue.quality import slide_shares

SURVEY_VERSION = 4  # raise it when tissue or stain would come out otherwise, or more is written down


def store_path(run_dir: str | Path, slide_id: str) -> Path:
    """Where a slide's store is."""
    return Path(run_dir) / "slides" / f"{slide_id}.zarr"


def open_case(run_dir: str, run_key: str, slide_id: str, reader: str | None = None) -> Slide:
    """A slide of a run, opened once per process, and again when its file was replaced.

    Without ``reader``, which is known once the slide is prepared, the file is looked at in a process of its own first.
    """
    job = load_job(run_dir, run_key)
    case = job.case(slide_id)
    if case.refused:
        raise UnsupportedFormatError(case.refused)
    file = locate(case.path)
    stamp = (s.st_ino, s.st_size, s.st_mtime_ns) if file.exists() and (s := file.stat()) else ()
    return _open_case(case.path, case.mpp, case.mpp_source, case.focal_plane, job.icc, reader or admit(case.path, job.reader), stamp)


@lru_cache(maxsize=4)
def _open_case(path: str, mpp: float | None, mpp_source: str, focal_plane: str | None, icc: str, reader: str, stamp: tuple[int, ...]) -> Slide:
    return Slide(path, mpp=mpp, mpp_source=mpp_source, reader=reader, focal_plane=focal_plane, icc=icc)


@timed
def prepare_slide(run_dir: str, run_key: str, slide_id: str) -> dict[str, Any]:
    """Make a slide's store ready for its blocks, or find that it is; returns the number of ``blocks`` of its plan and ``seconds`` by stage.

    Raises
    ------
    SlideError
        The slide cannot be used; the message says why.
    OutputError
        The store cannot be written.
    """
    job = load_job(run_dir, run_key)
    slide = open_case(run_dir, run_key, slide_id)
    path = store_path(run_dir, slide_id)
    clock = Clock()
    with clock("digest"):
        check_digest(slide, job.case(slide_id).expect_sha256)
        facts = _slide_facts(slide)
    survey_key = digest_of([SURVEY_VERSION, SCHEMA, facts, stain_key(job), job.pixels.model_dump() if job.pixels else None])
    grids, refused = _model_grids(slide, job)
    laid = layout(path)
    old = _attributes(path) if laid else None
    if old is None or old["survey"]["key"] != survey_key:
        clear_slide(path)
        laid = None
        with clock("survey"):
            with advice(job):
                found = survey(slide, job.stain, job.stain_target, any_stain=job.any_stain, leave_out=job.max_damaged > 0)
            check_missing(slide, found)
        old = _lay_out(path, _layouts(slide, job, grids), job, found, facts, survey_key)
    with_stains = old | {"model_stains": model_stains(slide, path, job, old)}
    wanted = _stages(job, grids, with_stains)
    # what explains a model that is no longer this run's goes with it
    stages = {k: v for k, v in sorted((old["stages"] | wanted).items()) if k not in refused and (k in wanted or not explained(k))}
    attributes = with_stains | {"stages": stages, "refused": refused, "block_px": job.block_px}
    if attributes != old or not laid:
        write_group(path, {"wsikit": attributes})
        commit_layout(path, laid or {})
    return {"blocks": len(load_plan(str(path), digest_of(attributes)).work()), "seconds": clock.seconds}


def check_digest(slide: Slide, expected: str) -> None:
    """Is it the file that was promised? Without a promise, any is.

    Raises
    ------
    DigestMismatchError
        No.
    """
    if expected and slide.digest != expected:
        raise DigestMismatchError(
            f"{slide.path}: its SHA-256 is {slide.digest} and not {expected} as expected; it is another file or was changed, copy it again from the scanner"
        )


def clear_slide(path: Path) -> None:
    """Remove all that a run left of a slide: it was made from other bytes or other parameters."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(path.with_suffix(".parts"), ignore_errors=True)
    for suffix in (".receipts.jsonl", ".json", ".geojson", ".png"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _attributes(path: Path) -> dict[str, Any] | None:
    try:
        return SlideStore(path).attributes
    except StoreMismatchError:
        return None


def _slide_facts(slide: Slide) -> dict[str, Any]:
    return {
        "digest": slide.digest,
        "size": list(slide.size),
        "mpp": list(slide.require_mpp()),
        "mpp_source": slide.mpp_source,
        "reader": slide.reader,
        "vendor": slide.facts.vendor,
        "objective": slide.facts.objective,
        "icc": icc_facts(slide.facts.icc, slide.icc),
        "focal_plane": slide.focal_plane,
        "bounds": [slide.bounds.x, slide.bounds.y, slide.bounds.w, slide.bounds.h],
        "warnings": list(slide.warnings),
        "levels": [list(level.size) for level in slide.levels],
        "phantom": slide.is_phantom,
        "missing_tiles": len(missing_tiles(slide.path)),
    }


def _model_grids(slide: Slide, job: Job) -> tuple[dict[str, TileGrid], dict[str, str]]:
    """The grid of each pipeline, and why any has none."""
    grids, refused = {}, {}
    for name, card in job.cards().items():
        try:
            grids[name] = TileGrid(slide.raster(card.mpp, upsample=job.upsample), card.tile_px, card.overlap_px)
        except ResolutionMismatchError as e:
            refused[name] = str(e)
    return grids, refused


def _stages(job: Job, grids: dict[str, TileGrid], attributes: dict[str, Any]) -> dict[str, Any]:
    """What the plan needs of each stage, with the digest of all that its numbers depend on."""
    survey_key, cards = attributes["survey"]["key"], job.cards()
    stages = {}
    for name, tiles in grids.items():
        stain = stain_of(attributes, cards[name])
        stages[name] = {"key": digest_of([survey_key, stain, name, *job.models[name].recipe]), "min_tissue": cards[name].min_tissue, **grid_info(tiles)}
        if name in job.explain:
            stages[explaining(name)] = stages[name] | {"key": digest_of([survey_key, stain, explaining(name), *explain_recipe(job, name)])}
    if attributes["pixels"]:
        grid = {k: v for k, v in attributes["pixels"].items() if k != "shard_px"}
        stages[PIXELS] = {"key": digest_of([survey_key, attributes["stain"], PIXELS, attributes["pixels"]]), "min_tissue": 0.0, **grid}
    return stages | {QUALITY: quality_stage(attributes)}


def _pixel_layout(slide: Slide, job: Job, grids: dict[str, TileGrid]) -> dict[str, Any] | None:
    """The grid of kept pixels and the side of their shards; None when none are kept."""
    if job.pixels is None:
        return None
    if job.pixels.mpp is not None:
        raster = slide.raster(job.pixels.mpp, upsample=job.upsample)
    else:
        raster = min((g.raster for g in grids.values()), key=lambda r: r.downsample, default=slide.reduced(1))
    grid = TileGrid(raster, stored_tile_px(job.pixels.tile_px))  # stored tiles do not overlap, whatever overlap their table has
    return grid_info(grid) | {"shard_px": shard_px(grid, finest_downsample([grid, *grids.values()]), job.block_px)}


def _layouts(slide: Slide, job: Job, grids: dict[str, TileGrid]) -> dict[str, Any]:
    pixels = _pixel_layout(slide, job, grids)
    return {"pixels": pixels, "quality": quality_layout(slide, grid_of(pixels) if pixels else None)}


def _lay_out(path: Path, layouts: dict[str, Any], job: Job, found: Survey, facts: dict[str, Any], key: str) -> dict[str, Any]:
    """Write the empty store: image levels, labels, attributes last."""
    pixels = layouts["pixels"]
    places = _empty_pyramid(path, grid_of(pixels), pixels["shard_px"], job) if pixels else _overview_pyramid(path, found, job)
    write_labels(path, found, len(places))
    for group in ("tables", "overlays"):
        write_group(path / group, {})
    attributes = {
        "schema": SCHEMA,
        "statement": RESEARCH_USE_ONLY,
        "slide": facts,
        "survey": {
            "key": key,
            "raster": found.raster.to_json(),
            "tissue_mm2": round(found.tissue_mm2, 6),
            "foreign_share": round(float(found.mask.foreign.mean()), 6),
            "black_share": round(float(found.mask.black.mean()), 6),
            "brown_share": round(found.brown, 6),
            "white_point": round(found.mask.white_point, 3),
            "shares": slide_shares(found.mask.kind),
            "damaged": [[r.x, r.y, r.w, r.h] for r in found.lost],
        },
        "stain": found.stain.model_dump(),
        **layouts,
        "stages": {},
        "refused": {},
    }
    ome = {"version": "0.5", "multiscales": multiscales(path.stem, places), "omero": {"channels": RGB_CHANNELS, "rdefs": {"model": "color"}}}
    write_group(path, {"ome": ome, "wsikit": attributes})
    return attributes


def _overview_pyramid(path: Path, found: Survey, job: Job) -> list[Placement]:
    """Overview power only: the low-power picture in the reference's colours."""
    rgb = np.asarray(normalise(found.overview, found.stain))
    levels, places, downsample = [rgb], [Placement.of_raster(found.raster)], found.raster.downsample
    mpp0 = (found.raster.mpp[0] / downsample[0], found.raster.mpp[1] / downsample[1])
    for _ in pyramid_sizes(found.raster.size)[1:]:
        downsample = (downsample[0] * PYRAMID_FACTOR, downsample[1] * PYRAMID_FACTOR)
        levels.append(coarser(levels[-1], PYRAMID_FACTOR))
        places.append(Placement.of(downsample, mpp0))
    write_image(path, path.stem, [np.ascontiguousarray(np.moveaxis(lv, -1, 0)) for lv in levels], places, fill=255)
    return places


def _empty_pyramid(path: Path, grid: TileGrid, side: int, job: Job) -> list[Placement]:
    """Arrays of all levels for pixels that are kept; a block fills one shard in each of the first three."""
    assert job.pixels is not None
    write_group(path, {})
    downsample, mpp = grid.raster.downsample, grid.raster.mpp
    places = []
    for i, size in enumerate(pyramid_sizes(grid.raster.size)):
        factor = PYRAMID_FACTOR**i
        shard = side // factor if i < BLOCK_LEVELS else -(-max(size) // grid.tile_px) * grid.tile_px
        chunk = chunk_px(shard, grid.tile_px)
        create_array(path, str(i), (3, size.h, size.w), "|u1", 255, chunk=(3, chunk, chunk), shard=(3, shard, shard), codec=job.pixels.codec)
        places.append(Placement.of((downsample[0] * factor, downsample[1] * factor), (mpp[0] / downsample[0], mpp[1] / downsample[1])))
    return places


@lru_cache(maxsize=2)
def load_tissue(path: str, attributes_digest: str) -> np.ndarray:
    """Where a prepared store has tissue: bool (H, W) on its low-power raster."""
    return np.asarray(SlideStore(path).tissue() == 1)


@lru_cache(maxsize=4)
def load_plan(path: str, attributes_digest: str) -> Plan:
    """The plan of a prepared store: its stages' grids over its tissue label."""
    store = SlideStore(path)
    mask, raster = load_tissue(path, attributes_digest), Raster.from_json(store.attributes["survey"]["raster"])
    infos, pixels = store.attributes["stages"], store.attributes["pixels"]
    grids = {name: grid_of(info) for name, info in infos.items()}
    stages = {name: make_stage(name, info["key"], grids[name], mask, raster, info["min_tissue"]) for name, info in infos.items()}
    return Plan(block_grid(grids, store.attributes["block_px"], pixels["shard_px"] if pixels else None), stages)
