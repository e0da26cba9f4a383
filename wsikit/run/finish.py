"""The last task of a slide: put its blocks' parts together, decide, and write tables, overlays, result and shapes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from safetensors.numpy import load_file

from wsikit import RESEARCH_USE_ONLY, __version__
from wsikit.aggregate.calls import call_slide, telling_tiles
from wsikit.aggregate.counting import Grounds, count_mitoses, near_threshold
from wsikit.aggregate.doubt import outside_domain, poor_quality, unknown_colours
from wsikit.aggregate.features import Inputs
from wsikit.aggregate.mitosis import density_map, merge
from wsikit.aggregate.occlusion import Contributions, contributions
from wsikit.aggregate.outlier import mark_tiles
from wsikit.aggregate.rates import detector_error
from wsikit.aggregate.region import Within, confined, describe_region, mosaic, region_mask
from wsikit.aggregate.searched import counts_of, searched, without_flaws
from wsikit.aggregate.survival import CoxRisk, predict_risk
from wsikit.clock import Clock, timed
from wsikit.export.geojson import COLOURS, write_geojson
from wsikit.grid import Raster, TileGrid, on_mask
from wsikit.models import RISK_PIPELINE, Card
from wsikit.overlay.heat import ATTENTION, explained, heat_map, heat_placement
from wsikit.overlay.picture import write_overview
from wsikit.review import Review
from wsikit.run import damaged
from wsikit.run.explain import explanation, write_explained
from wsikit.run.inputs import tile_inputs
from wsikit.run.job import Job, ModelRef, load_job
from wsikit.run.labels import LABELS_OF_STORE, write_region
from wsikit.run.ledger import commit_slide, finished_stages, written_parts
from wsikit.run.plan import BLOCK_LEVELS, DAMAGED, PIXELS, PYRAMID_FACTOR, QUALITY, TILES, Plan, Stage, make_stage
from wsikit.run.prepare import load_plan, store_path
from wsikit.run.quality import quality_summary, write_quality
from wsikit.run.stains import stain_of
from wsikit.salvage import touching
from wsikit.store import SlideStore, Table
from wsikit.store.columns import write_table
from wsikit.store.durable import digest_of, disk_errors, write_json
from wsikit.store.image import Placement, coarser, write_image

NO_NUMBERS = (
    *("call", "probability", "tile_share", "doubt", "set", "coverage", "outlying", "count", "per_mm2"),
    *("low", "high", "hotspot", "left_out", "near_threshold", "corrected", "region_mm2", "share", "tiles", "explanation"),
    *("grading", "risk", "group", "survival", "survival_interval", "event_probability", "event_probability_interval", "features"),
)
SURVIVAL_INPUTS = "survival_inputs"
REVIEW = "review"


@timed
def finish_slide(run_dir: str, run_key: str, slide_id: str) -> dict[str, Any]:
    """Put a slide together once all its blocks are done; returns its status, and the ``seconds`` of each stage.

    Doing it again gives the same bytes.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    job = load_job(run_dir, run_key)
    path = store_path(run_dir, slide_id)
    store = SlideStore(path)
    plan = load_plan(str(path), digest_of(store.attributes))
    cards = job.cards()
    done, work, clock = finished_stages(path, plan), plan.work(), Clock()
    with clock("put together"):
        damaged.collect(store, job.max_damaged)
        for name, stage in sorted(plan.stages.items(), key=lambda item: item[0] != QUALITY):  # detectors leave out what is blurred
            if name == PIXELS:
                _coarse_levels(path)
                _write_tiles(path, store, stage, job)
            elif name not in done:
                # only the parts of this plan: an earlier one, cut into other blocks, may have left some as well
                parts = written_parts(path, name, [block for block, names in work.items() if name in names])
                if name == QUALITY:
                    write_quality(path, store, stage, parts)
                elif explained(name):
                    write_explained(path, store, stage, job, parts)
                else:
                    _write_columns(path, store, stage, cards[name], job.models[name], parts)
        _drop_others(path, plan)
    with clock("aggregate"):
        aggregate_slide(run_dir, run_key, slide_id)
    with clock("digest"):
        commit_slide(path, plan, job)
    return {"status": "ok", "seconds": clock.seconds}


def aggregate_slide(run_dir: str, run_key: str, slide_id: str) -> None:
    """Recompute a slide's result, overlays and shapes from its stored columns; no pixels are read."""
    job = load_job(run_dir, run_key)
    path = store_path(run_dir, slide_id)
    store = SlideStore(path)
    plan = load_plan(str(path), digest_of(store.attributes))
    results: dict[str, Any] = {}
    within = None
    for name, card in sorted(job.cards().items(), key=lambda item: item[0] != job.counting.within):
        results[name] = _pipeline_result(store, card, job, plan.stages.get(name), within)
        if name == job.counting.within:  # the first: what is within nothing comes after it
            within = confined(store, name, results[name])
    results = {name: results[name] for name in job.cards()}
    more: dict[str, Any] = {}
    shutil.rmtree(path / "overlays" / RISK_PIPELINE, ignore_errors=True)
    facts, risk, inputs = job.case(slide_id).extra, job.risk(), None
    if risk is not None:
        results[RISK_PIPELINE], inputs = _risk_result(store, risk, job, results, facts)
        more = {} if inputs is None else {SURVIVAL_INPUTS: inputs.to_json()}
    reviewed = Review(store, job.cards(), results=results, counting=job.counting, facts=facts, risk=risk, inputs=inputs).summary()
    more |= {} if reviewed is None else {REVIEW: reviewed}
    write_json(path.with_suffix(".json"), slide_result(store, plan, job, results) | more)
    write_geojson(store, path.with_suffix(".geojson"))
    write_overview(store, path.with_suffix(".png"))


def slide_result(store: SlideStore, plan: Plan, job: Job, results: dict[str, Any]) -> dict[str, Any]:
    """The slide's result with all that is needed to trace it."""
    a = store.attributes
    return {
        "schema": a["schema"],
        "statement": RESEARCH_USE_ONLY,
        "slide_id": store.slide_id,
        "status": "ok",
        "reason": "",
        "slide": a["slide"],
        "tissue_mm2": a["survey"]["tissue_mm2"],
        "n_tiles": _count_tiles(store, plan),
        "damaged": damaged.summary(store),
        "quality": quality_summary(store),
        "stain": a["stain"],
        "pipelines": results,
        "provenance": {
            "wsikit": __version__,
            "survey": a["survey"],
            "model_stains": a.get("model_stains", {}),
            "stages": {name: {k: info[k] for k in ("key", "tile_px", "overlap_px", "min_tissue", "raster")} for name, info in a["stages"].items()},
            "models": {name: ref.model_dump(exclude={"folder"}) for name, ref in job.models.items()},
            "device": job.device,
        },
    }


def _count_tiles(store: SlideStore, plan: Plan) -> int:
    """Tiles that models scored; where there are no models, those that were kept."""
    tables = store.tables()
    models = {name: stage for name, stage in plan.stages.items() if name not in (PIXELS, QUALITY) and not explained(name)}
    scored = [len(stage.cells) - len(tables[name].attributes["dropped"]) for name, stage in models.items()]
    return sum(scored) if scored or PIXELS not in plan.stages else len(store.tables()[TILES]["tissue"])


def _drop_others(path: Path, plan: Plan) -> None:
    """Remove columns that no stage stands for any more: a pipeline that is refused now, say."""
    wanted = {*plan.stages, DAMAGED, *([TILES] if PIXELS in plan.stages else []), *LABELS_OF_STORE}
    for folder in [*(path / "tables").iterdir(), *(path / "overlays").iterdir(), *(path / "labels").iterdir()]:
        if folder.is_dir() and folder.name not in wanted:
            shutil.rmtree(folder)


def _write_columns(path: Path, store: SlideStore, stage: Stage, card: Card, ref: ModelRef, parts: Iterable[Path]) -> None:
    """A pipeline's table and heat map from its blocks' parts, in the order of the tiles."""
    columns, stage, dropped = _whole_tiles(store, stage, card, parts)
    about: dict[str, Any] = {"model": ref.model_dump(exclude={"folder"}), "classes": card.classes, "task": card.task, "key": stage.key}
    attributes = about | {"cells": list(stage.grid.shape), "dropped": dropped.tolist()}
    table, overlay = path / "tables" / stage.name, path / "overlays" / stage.name
    for folder in (table, overlay):
        shutil.rmtree(folder, ignore_errors=True)
    if card.task == "detect":
        columns, (heat, place), attributes["blurred_detections"] = _detections(store, card, dropped, columns)
        channels = [f"{card.classes[0]} per mm2"]
    elif card.segmentation is not None:
        columns |= tile_columns(stage)
        heat, place = _region(path, store, card, stage, columns["map"])
        channels = [card.segmentation.region]
    else:
        columns |= tile_columns(stage)
        if (outlying := mark_tiles(card, Path(ref.folder), columns["feature"])) is not None:
            columns["outlying"] = outlying
        values, channels = _channels(card, columns)
        heat, place = heat_map(stage.grid, stage.cells, values), heat_placement(stage.grid)
    write_table(table, columns, attributes)
    top = 1.0 if card.task != "detect" else max(1.0, float(np.nanmax(heat, initial=0.0, where=~np.isnan(heat))))
    window = {"min": 0.0, "max": top, "start": 0.0, "end": top}
    omero = {"channels": [{"label": c, "color": "FFFFFF", "active": True, "window": window} for c in channels]}
    write_image(overlay, stage.name, [heat], [place], fill=float("nan"), extra={"omero": omero})


def _whole_tiles(store: SlideStore, stage: Stage, card: Card, parts: Iterable[Path]) -> tuple[dict[str, np.ndarray], Stage, np.ndarray]:
    """The columns of all parts in the order of the tiles, the stage of these tiles, and the cells that are left out as damaged, int64 (N, 2)."""
    loaded = [load_file(p) for p in parts]
    columns = {k: np.concatenate([part[k] for part in loaded]) for k in loaded[0]} if loaded else _no_columns(card)
    whole = ~touching(stage.grid, stage.cells, damaged.places(store))
    row = columns.pop("row")
    order = np.argsort(row, kind="stable")
    order = order[whole[row[order]]]  # a neighbouring block may have found that a tile's rim is damaged
    columns = {k: v[order] for k, v in columns.items()}
    return columns, replace(stage, cells=stage.cells[whole], tissue=stage.tissue[whole]), stage.cells[~whole]


def _channels(card: Card, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """What a classifier's heat map shows of each tile, (N, C), and the names of that: probabilities, and attention where the model has it."""
    values, channels = columns["probability"], list(card.classes)
    if ATTENTION in columns and len(values):  # 1 is the tile that is looked at most
        values = np.column_stack([values, np.exp(columns[ATTENTION] - columns[ATTENTION].max())])
        channels.append(ATTENTION)
    return values, channels


def _region(path: Path, store: SlideStore, card: Card, stage: Stage, squares: np.ndarray) -> tuple[np.ndarray, Placement]:
    """Write the region as a label; its probability as a heat map, and its place."""
    assert card.segmentation is not None
    raster = Raster.from_json(store.attributes["survey"]["raster"])
    values = mosaic(stage.grid, stage.cells, squares)
    side = card.segmentation.cell_px
    d = stage.grid.raster.downsample
    if not len(squares):
        side = stage.grid.stride_px
    square = (side * d[0], side * d[1])
    mask = region_mask(values, square, store.tissue() == 1, raster, card.segmentation)
    write_region(path, stage.name, mask, raster, COLOURS["Tumour"])
    return values[None], Placement.of(square, store.mpp)


def _write_tiles(path: Path, store: SlideStore, stage: Stage, job: Job) -> None:
    """``tables/tiles``: where the tiles of the kept pixels are, with the overlap that was asked for."""
    assert job.pixels is not None
    raster = Raster.from_json(store.attributes["survey"]["raster"])
    grid = TileGrid(stage.grid.raster, job.pixels.tile_px, job.pixels.overlap_px)
    tiles = make_stage(TILES, stage.key, grid, store.tissue() == 1, raster, 0.0)
    whole = ~touching(grid, tiles.cells, damaged.places(store))
    tiles = replace(tiles, cells=tiles.cells[whole], tissue=tiles.tissue[whole])
    shutil.rmtree(path / "tables" / TILES, ignore_errors=True)
    write_table(path / "tables" / TILES, tile_columns(tiles), {"task": TILES, "key": stage.key, "tile_px": grid.tile_px, "overlap_px": grid.overlap_px})


def tile_columns(stage: Stage) -> dict[str, np.ndarray]:
    """Where each tile is, and how much of it is tissue."""
    size = np.tile(np.array(stage.grid.tile_size), (len(stage.cells), 1))
    return {"origin": stage.grid.origins(stage.cells), "size": size, "tissue": stage.tissue.astype(np.float32)}


def _no_columns(card: Card) -> dict[str, np.ndarray]:
    """The columns of a slide without tissue."""
    if card.task == "detect":
        kind = {"atypical": np.empty(0, np.float32)} if card.architecture.get("verifier") else {}
        return kind | {
            "row": np.empty(0, np.int64),
            "position": np.empty((0, 2)),
            "score": np.empty(0, np.float32),
            "class": np.empty(0, np.int64),
            "size": np.empty((0, 2), np.float32),
        }
    more: dict[str, np.ndarray] = {"map": np.empty((0, 1), np.uint8)} if card.task == "segment" else {"feature": np.empty((0, 1), np.float16)}
    if card.calibration and card.calibration.outliers and card.calibration.outliers.layers:
        more["outlying"] = np.empty(0, np.uint8)
    return {"row": np.empty(0, np.int64), "probability": np.empty((0, len(card.classes)), np.float32), **more}


def _detections(
    store: SlideStore, card: Card, dropped: np.ndarray, columns: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, Placement], int]:
    """Detections on tissue that is not blurred, merged across tiles and blocks; the density map of those that count; and how many lay where it is blurred."""
    assert card.detection is not None
    downsample, threshold, radius_um = Raster.from_json(store.attributes["survey"]["raster"]).downsample, card.detection.threshold, card.detection.merge_um
    ground = without_flaws(store, card.pipeline, dropped)
    lost = on_mask(columns["position"], ground.blurred, downsample) & (columns["score"] >= np.float32(threshold))
    n_lost = len(merge(columns["position"][lost], columns["score"][lost], store.mpp, radius_um))
    columns = {k: v[on_mask(columns["position"], ground.tissue, downsample)] for k, v in columns.items()}
    kept = merge(columns["position"], columns["score"], store.mpp, radius_um)
    columns = {k: v[kept] for k, v in columns.items()}
    counted = columns["position"][columns["score"] >= np.float32(threshold)]
    heat, cell = density_map(counted, ground.tissue, downsample, store.mpp)
    return columns, (heat[None], Placement.of(cell, store.mpp)), n_lost


def _limits(card: Card) -> dict[str, str]:
    """What a model's makers say it is not for, where they say it: it goes with every answer."""
    return {"limitations": card.limitations} if card.limitations else {}


def _pipeline_result(store: SlideStore, card: Card, job: Job, stage: Stage | None, within: Within | None) -> dict[str, Any]:
    """A pipeline's answer for the slide, with the model that gave it."""
    ref = job.models[card.pipeline]
    elsewhere = ({"licence": card.licence} if card.source else {}) | _limits(card)
    model = {"name": ref.name, "digest": ref.digest, "trained_on": card.trained_on.domain} | elsewhere | card.terms
    if stage is None:
        return {"status": "refused", "reason": store.attributes["refused"].get(card.pipeline, "not scored"), "model": model}
    table = store.tables()[card.pipeline]
    if card.task == "classify":
        inside = _inside(store, table, within)
        outlying = table["outlying"][inside] if "outlying" in table else None
        attention = table[ATTENTION][inside] if ATTENTION in table else None
        result = call_slide(card, table["probability"][inside], outlying, attention)
        result |= telling_tiles(card, table["probability"][inside], table["origin"][inside], table["size"][inside], result, attention)
        result |= explanation(store, card.pipeline, result)
    elif card.task == "segment":
        result = _describe(store, card, len(table["map"]))
    else:
        result = _count(store, card, table, job, within)
    reason = outside_domain(card, store.attributes["slide"]["phantom"]) or poor_quality(quality_summary(store)["tiles"])
    if within is not None:
        reason = reason or within.reason
        result["within"] = within.to_json()
    if not reason and (result["status"] == "ok" or result.get("probability")):  # probabilities of a call that is withheld still go into the patient's
        colours = unknown_colours(card, stain_of(store.attributes, card))
        reason = "; ".join(filter(None, [result["reason"], colours])) if colours else ""
    enlarged = {"enlarged": times} if (times := stage.grid.raster.enlarged) else {}
    return _withheld(result, reason) | enlarged | {"model": model}


def _inside(store: SlideStore, table: Any, within: Within | None) -> np.ndarray:
    """Which tiles have their centre in the region: bool (N,)."""
    if within is None:
        return np.ones(len(table["tissue"]), bool)
    return on_mask(table["origin"] + table["size"] / 2, within.mask, tuple(store.attributes["survey"]["raster"]["downsample"]))


def _describe(store: SlideStore, card: Card, n_tiles: int) -> dict[str, Any]:
    assert card.segmentation is not None
    mask, survey = store.region(card.pipeline), store.attributes["survey"]
    assert mask is not None
    return describe_region(mask, survey["tissue_mm2"], Raster.from_json(survey["raster"]), card.segmentation, n_tiles)


def _count(store: SlideStore, card: Card, table: Table, job: Job, within: Within | None) -> dict[str, Any]:
    assert card.detection is not None
    counting, facts = job.counting, job.case(store.slide_id).extra
    raster, position, score = Raster.from_json(store.attributes["survey"]["raster"]), table["position"], table["score"]
    downsample, ground = raster.downsample, searched(store, card.pipeline)
    tissue, dull = ground.tissue, ground.blurred
    left_out: dict[str, Any] = {"blurred_detections": table.attributes.get("blurred_detections")}
    if within is not None:
        tissue, dull, left_out = tissue & within.mask, dull & within.mask, {}  # which of them lay in the region was not kept
    inside = on_mask(position, tissue, downsample)
    position, score = position[inside], score[inside]
    counted = position[counts_of(store, {"threshold": card.detection.threshold})(position, score)]
    how: dict[str, Any] = {"gradings": counting.grading, "facts": facts, "error": detector_error(card.metrics)}
    window = counting.window(card.detection.hotspot_mm2)
    answer = count_mitoses(counted, len(score) - len(counted), card.detection.threshold, Grounds(tissue, downsample, store.mpp), window, **how)
    if answer["status"] == "ok":
        answer["near_threshold"] = near_threshold(score, card.detection)
    elif dull.any():
        answer["reason"] = f"all tissue {'of ' + repr(within.name) if within else 'of the slide'} is blurred, and nothing is counted there"
    return answer | {"left_out": {"blurred_mm2": round(float(dull.sum()) * math.prod(raster.mpp) / 1e6, 6)} | left_out}


def _risk_result(store: SlideStore, model: CoxRisk, job: Job, results: dict[str, Any], facts: Mapping[str, str]) -> tuple[dict[str, Any], Inputs | None]:
    """The slide's risk, and what was measured on its tiles for that, if anything was."""
    ref, cards = job.models[RISK_PIPELINE], job.cards()
    withheld = outside_domain(model.card, store.attributes["slide"]["phantom"])
    about = {"model": {"name": ref.name, "digest": ref.digest, "trained_on": model.card.trained_on.domain} | _limits(model.card) | model.card.terms}
    inputs = tile_inputs(store, model, cards)
    result = _withheld(predict_risk(model, results, store.attributes["survey"]["tissue_mm2"], inputs, facts, job.counting), withheld)
    if result["status"] == "ok" and (parts := contributions(model, store, results, result["features"], cards)) is not None:
        result["occlusion"] = _write_contributions(store, parts)
    return result | about, inputs


def _write_contributions(store: SlideStore, parts: Contributions) -> dict[str, Any]:
    """``overlays/survival``: what raises and what lowers the risk, each as a share of the largest; returns how much that is."""
    largest = float(np.nanmax(np.abs(parts.values), initial=0.0, where=~np.isnan(parts.values)))
    share = parts.values / (largest or 1.0)
    heat = np.stack([np.maximum(share, 0), np.maximum(-share, 0)]).astype(np.float32)
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    omero = {"channels": [{"label": c, "color": "FFFFFF", "active": True, "window": window} for c in ("raises the risk", "lowers the risk")]}
    overlay = store.path / "overlays" / RISK_PIPELINE
    write_image(overlay, RISK_PIPELINE, [heat], [Placement.of(parts.cell, store.mpp)], fill=float("nan"), extra={"omero": omero})
    return {"largest_log_risk": round(largest, 6), "cell_um": [round(c * m, 3) for c, m in zip(parts.cell, store.mpp, strict=True)]}


def _withheld(result: dict[str, Any], reason: str) -> dict[str, Any]:
    """The result without its numbers, when they would mean nothing."""
    if not reason:
        return result
    kept = {k: v for k, v in result.items() if k not in NO_NUMBERS}
    return kept | {"status": "abstained", "reason": reason}


def _coarse_levels(path: Path) -> None:
    """The levels that no block writes, from the coarsest that blocks do write."""
    level = BLOCK_LEVELS
    while (path / str(level)).exists():
        with disk_errors(path):
            finer = np.moveaxis(np.asarray(zarr.open_array(str(path / str(level - 1)), mode="r")[...]), 0, -1)
            target = zarr.open_array(str(path / str(level)), mode="r+")
            target[...] = np.moveaxis(coarser(np.ascontiguousarray(finer), PYRAMID_FACTOR), -1, 0)
        level += 1
