"""Slides and stores as napari layers, all in µm with the centre of level-0 pixel (0, 0) at 0."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from napari.utils import Colormap
from shapely import get_coordinates

from wsikit.aggregate.searched import counts_of
from wsikit.colour import KEEP
from wsikit.geometry import Level, Region, Size
from wsikit.overlay.heat import TITLE, explained
from wsikit.overlay.picture import colours, heat_top
from wsikit.overlay.shapes import hotspot_outlines
from wsikit.slide import Slide
from wsikit.store import KINDS, LABELS, SlideStore
from wsikit.store.image import Placement

LayerData = tuple[Any, dict[str, Any], str]
_TILE_PX = 1024
UNITS = ("um", "um")
UNDECIDED = 0.5  # a tile whose likeliest class is below it speaks for none
MITOSIS, BELOW, HOTSPOT = "#d55e00", "#56b4e9", "#d55e00"  # the last is told from the yellow of a heat map
RING_UM, RING_PX = 20.0, (10.0, 10_000.0)  # a ring is never smaller than that on the screen, or nobody would see it on a whole slide


def _placed(place: Placement, **more: Any) -> dict[str, Any]:
    return {"scale": place.scale[::-1], "translate": place.translation[::-1], "units": UNITS, **more}


def slide_layers(slide: Slide, name: str | None = None) -> list[LayerData]:
    """The slide itself, decoded tile by tile as it comes into view; in px of level 0 when its mpp is not known."""
    mpp = slide.mpp or (1.0, 1.0)
    data = [lazy_level(slide, level) for level in slide.levels]
    options = _placed(Placement.of((1.0, 1.0), mpp), name=name or slide.path.name, rgb=True)
    return [(data, {**options, "multiscale": True}, "image") if len(data) > 1 else (data[0], options, "image")]


def lazy_level(slide: Slide, level: Level) -> da.Array:
    """A stored level as a dask array uint8 (H, W, 3) that reads only the tiles asked for."""

    def read(block_info: Any = None) -> np.ndarray:
        (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
        return slide.read_level(level.index, Region(x0, y0, x1 - x0, y1 - y0))

    chunks = (_edges(level.size.h), _edges(level.size.w), (3,))
    return da.map_blocks(read, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))


def _edges(n: int) -> tuple[int, ...]:
    return (*([_TILE_PX] * (n // _TILE_PX)), *([n % _TILE_PX] if n % _TILE_PX else []))


@dataclass(frozen=True)
class Planned:
    """A layer to come: where it lies in the pile (lowest first), whether it is shown at first, and what makes it."""

    rank: int
    shown: bool
    make: Callable[[], LayerData]


def plan_layers(store: SlideStore, slide: Slide | None) -> list[Planned]:
    """All layers of a store, lowest first; nothing of them is read before they are made.

    The slide (from its file where that still is), stored pixels, tissue, quality, a heat map a class, hatching where no answer is given.
    """
    pipelines, tables = store.result["pipelines"], store.tables()
    made: list[tuple[bool, Callable[[], LayerData]]] = []
    if slide is not None:
        made.append((True, lambda: slide_layers(slide, "slide")[0]))
    made.append((slide is None, lambda: _pixels(store, visible=slide is None)))
    made += [(False, lambda: _tissue(store)), (False, lambda: _kinds(store))]
    hatched = False
    answered = sorted((a["doubt"], n) for n, a in pipelines.items() if a.get("status") == "ok" and a.get("call"))
    first = answered[0][1] if answered else ""  # two heat maps at once would mix their colours
    for name in store.overlays():
        answer = pipelines.get(explained(name) or name, {})
        for i, channel in enumerate(store.channels(name)):
            if name != "quality" or channel == "blur":  # the rest of it is in the label layer, and finer
                shown = name == first and channel == answer.get("call")
                made.append((shown, partial(_heat, store, name, i, answer, shown)))
        if name in pipelines and name in tables and tables[name].attributes.get("task") == "classify":
            shown = answer.get("status") != "ok" and not hatched and bool(answer.get("n_tiles"))
            hatched |= shown
            made.append((shown, partial(_hatched, store, name, answer, shown)))
    made += [(False, partial(_region, store, name, mask)) for name in pipelines if (mask := store.region(name)) is not None]
    return [Planned(rank, shown, make) for rank, (shown, make) in enumerate(made)]


def store_layers(store: SlideStore) -> list[LayerData]:
    """All of `plan_layers`, then detections and hotspots."""
    layers = [p.make() for p in plan_layers(store, find_slide(store))]
    for name, answer in store.result["pipelines"].items():
        if name in store.tables() and "position" in store.tables()[name]:
            layers += _detections(store, name, answer)
    return layers


def find_slide(store: SlideStore) -> Slide | None:
    """The slide that a store was made from, by its run's ``run.json``; None when it is no longer there or is another file."""
    run, known = store.path.parent.parent / "run.json", store.attributes["slide"]
    icc = (known.get("icc") or {}).get("applied", KEEP)
    try:
        cases = json.loads(run.read_bytes())["job"]["slides"]
        case = next(c for c in cases if c["slide_id"] == store.slide_id)
        # the reader that scored it opens it at once; an unknown file would be looked at in a process of its own first
        slide = Slide(case["path"], mpp=case["mpp"], mpp_source=case["mpp_source"], focal_plane=case.get("focal_plane"), reader=known["reader"], icc=icc)
    except (OSError, ValueError, KeyError, StopIteration):
        return None
    return slide if slide.size == Size(*known["size"]) and slide.mpp == store.mpp else None


def _pixels(store: SlideStore, visible: bool) -> LayerData:
    levels = store.levels()
    data = [da.moveaxis(da.from_zarr(array), 0, -1) for array, _ in levels]
    options = _placed(levels[0][1], name="stain-normalised", rgb=True, visible=visible)
    return (data, {**options, "multiscale": True}, "image") if len(data) > 1 else (data[0], options, "image")


def _tissue(store: SlideStore) -> LayerData:
    downsample = store.attributes["survey"]["raster"]["downsample"]
    colours: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    colours |= {v: np.array(rgba) / 255 for v, (_, rgba) in LABELS.items()}
    options = _placed(Placement.of(tuple(downsample), store.mpp), name="tissue", opacity=0.35, visible=False)
    return store.tissue(), options | {"colormap": colours}, "labels"


def _kinds(store: SlideStore) -> LayerData:
    downsample = store.attributes["survey"]["raster"]["downsample"]
    colours: dict[int | None, Any] = {None: "transparent", 0: "transparent", 1: "transparent"}
    colours |= {v: np.array(rgba) / 255 for v, (_, rgba) in KINDS.items() if v > 1}
    options = _placed(Placement.of(tuple(downsample), store.mpp), name="quality: ink, folds", opacity=0.6, visible=False)
    return store.kinds(), options | {"colormap": colours}, "labels"


def _region(store: SlideStore, name: str, mask: np.ndarray) -> LayerData:
    downsample = store.attributes["survey"]["raster"]["downsample"]
    options = _placed(Placement.of(tuple(downsample), store.mpp), name=f"{name}: region", opacity=0.4, visible=False)
    return mask.astype(np.uint8), options | {"colormap": {None: "transparent", 0: "transparent", 1: HOTSPOT}}, "labels"


def _heat(store: SlideStore, name: str, channel: int, answer: dict[str, Any], visible: bool) -> LayerData:
    """One class or kind of flaw."""
    heat, status = store.overlay(name), answer.get("status")
    values, title = heat.values[channel], heat.channels[channel]
    label = (f"{explained(name)} {TITLE}: {title}" if explained(name) else f"{name}: {title}") + (f" ({status})" if status not in ("ok", None) else "")
    options = _placed(heat.placement, name=label, colormap=fading_viridis(), contrast_limits=(0.0, heat_top(values)), blending="translucent")
    return values, options | {"interpolation2d": "nearest", "visible": visible, "metadata": {"legend": True}}, "image"


def _hatched(store: SlideStore, name: str, answer: dict[str, Any], visible: bool) -> LayerData:
    """Stripes where tiles were scored and no class is named: all of them when the slide's answer is withheld, else those without a probable class."""
    heat = store.overlay(name)
    scored = ~np.isnan(heat.values).all(0)
    undecided = scored & (np.nanmax(np.where(scored, heat.values, 0), 0) < UNDECIDED)
    where = undecided if answer.get("status") == "ok" else scored
    fine = max(1, min(64, 2048 // max(where.shape)))
    large = where.repeat(fine, 0).repeat(fine, 1)
    stripes = (np.add.outer(np.arange(large.shape[0]), np.arange(large.shape[1])) // max(1, fine // 16) % 4 == 0) & large
    rgba = np.zeros((*large.shape, 4), np.uint8)
    rgba[stripes] = (40, 40, 40, 150)
    shift = tuple(t - s * (fine - 1) / fine / 2 for t, s in zip(heat.placement.translation, heat.placement.scale, strict=True))
    place = Placement((heat.placement.scale[0] / fine, heat.placement.scale[1] / fine), (shift[0], shift[1]))
    return rgba, _placed(place, name=f"{name}: no answer", rgb=True, visible=visible, blending="translucent"), "image"


def fading_viridis() -> Colormap:
    """Viridis that is nearly clear at 0 and still lets the tissue through at 1."""
    steps = np.linspace(0, 1, 33)
    return Colormap(np.column_stack([colours(steps) / 255, 0.06 + 0.32 * steps]), name="fading viridis")


def _detections(store: SlideStore, name: str, answer: dict[str, Any]) -> Iterable[LayerData]:
    table = store.tables()[name]
    score, at = table["score"], to_world(table["position"], store.mpp)
    status = answer.get("status")
    counted = counts_of(store, {"threshold": 0.5} | answer)(table["position"], score)
    ring: dict[str, Any] = {"units": UNITS, "symbol": "disc", "face_color": "transparent", "border_width": 0.12, "size": RING_UM, "canvas_size_limits": RING_PX}
    suffix = "" if status == "ok" else f" ({status})"
    yield at[~counted], {"name": f"{name} below threshold{suffix}", "border_color": BELOW, "visible": False, **ring}, "points"
    yield at[counted], {"name": f"{name}{suffix}", "border_color": MITOSIS, "features": {"score": score[counted]}, "visible": status == "ok", **ring}, "points"
    if status == "ok":
        yield hotspot_layer(name, answer["hotspot"], store.mpp)


def hotspot_layer(name: str, h: dict[str, Any], mpp: tuple[float, float]) -> LayerData:
    """The outline of the densest window, or of each of its fields, with the count."""
    corners = [to_world(get_coordinates(part)[:-1], mpp) for part in hotspot_outlines(h)]
    label = f"{h['count']} in {h['tissue_mm2']:.2f} mm2"
    text = {"string": [label, *[""] * (len(corners) - 1)], "color": "black", "size": 12, "anchor": "lower_right"}
    outline = {"shape_type": "polygon", "edge_color": HOTSPOT, "edge_width": 8.0, "face_color": "transparent", "opacity": 1.0, "units": UNITS}
    return corners, {"name": f"{name} hotspot", "text": text, **outline}, "shapes"


def to_world(position: np.ndarray, mpp: tuple[float, float]) -> np.ndarray:
    """Level-0 px (M, 2) x, y as napari's µm (M, 2) y, x: its pixels have their centre, not their corner, at whole numbers."""
    return np.asarray(((position - 0.5) * np.array(mpp))[:, ::-1])
