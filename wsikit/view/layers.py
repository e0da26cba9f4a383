"""Slides and stores as napari layers, all in µm with the centre of level-0 pixel (0, 0) at 0."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from napari.utils import Colormap
from shapely import get_coordinates

from wsikit.geometry import Level, Region, Size
from wsikit.overlay.picture import colours, heat_top
from wsikit.overlay.shapes import hotspot_outlines
from wsikit.slide import Slide, open_slide
from wsikit.store import LABELS, Overlay, SlideStore
from wsikit.store.image import Placement

LayerData = tuple[Any, dict[str, Any], str]
_TILE_PX = 1024
UNITS = ("um", "um")
MITOSIS, BELOW, HOTSPOT = "#d55e00", "#56b4e9", "#e69f00"


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


def store_layers(store: SlideStore) -> list[LayerData]:
    """The slide (from its file where it still is), stored pixels, tissue, heat maps, hotspot and mitoses."""
    result = store.result
    slide = find_slide(store)
    layers = slide_layers(slide, "slide") if slide else []
    layers.append(_pixels(store, visible=slide is None))
    layers.append(_tissue(store))
    for name in store.overlays():
        layers += _heat(store.overlay(name), name, result["pipelines"].get(name, {}))
    for name, answer in result["pipelines"].items():
        if name in store.tables() and "position" in store.tables()[name]:
            layers += _detections(store, name, answer)
    return layers


def find_slide(store: SlideStore) -> Slide | None:
    """The slide that a store was made from, by its run's ``run.json``; None when it is no longer there or is another file."""
    run = store.path.parent.parent / "run.json"
    try:
        cases = json.loads(run.read_text())["job"]["slides"]
        case = next(c for c in cases if c["slide_id"] == store.slide_id)
        slide = open_slide(case["path"], mpp=case["mpp"], mpp_source=case["mpp_source"], focal_plane=case.get("focal_plane"))
    except (OSError, ValueError, KeyError, StopIteration):
        return None
    return slide if slide.size == Size(*store.attributes["slide"]["size"]) and slide.mpp == store.mpp else None


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


def _heat(heat: Overlay, name: str, result: dict[str, Any]) -> Iterable[LayerData]:
    """One layer a class or kind of flaw; only the called class is shown at first."""
    status = result.get("status")
    for channel, values in zip(heat.channels, heat.values, strict=True):
        label = f"{name}: {channel}" + (f" ({status})" if status not in ("ok", None) else "")
        options = _placed(heat.placement, name=label, colormap=fading_viridis(), contrast_limits=(0.0, heat_top(values)), blending="translucent")
        yield values, options | {"interpolation2d": "nearest", "visible": status == "ok" and channel == result.get("call")}, "image"


def fading_viridis() -> Colormap:
    """Viridis that is nearly clear at 0 and still lets the tissue through at 1."""
    steps = np.linspace(0, 1, 33)
    return Colormap(np.column_stack([colours(steps) / 255, 0.08 + 0.42 * steps]), name="fading viridis")


def _detections(store: SlideStore, name: str, answer: dict[str, Any]) -> Iterable[LayerData]:
    table = store.tables()[name]
    score, at = table["score"], to_world(table["position"], store.mpp)
    status = answer.get("status")
    counted = score >= answer.get("threshold", 0.5)
    ring: dict[str, Any] = {"units": UNITS, "symbol": "disc", "face_color": "transparent", "border_width": 0.12, "size": 20.0}
    suffix = "" if status == "ok" else f" ({status})"
    yield at[~counted], {"name": f"{name} below threshold{suffix}", "border_color": BELOW, "visible": False, **ring}, "points"
    yield at[counted], {"name": f"{name}{suffix}", "border_color": MITOSIS, "features": {"score": score[counted]}, "visible": status == "ok", **ring}, "points"
    if status == "ok":
        h = answer["hotspot"]
        corners = [to_world(get_coordinates(part)[:-1], store.mpp) for part in hotspot_outlines(h)]
        label = f"{h['count']} in {h['tissue_mm2']:.2f} mm2"
        text = {"string": [label, *[""] * (len(corners) - 1)], "color": "black", "size": 12, "anchor": "lower_right"}
        outline = {"shape_type": "polygon", "edge_color": HOTSPOT, "edge_width": 8.0, "face_color": "transparent", "opacity": 1.0, "units": UNITS}
        yield corners, {"name": f"{name} hotspot", "text": text, **outline}, "shapes"


def to_world(position: np.ndarray, mpp: tuple[float, float]) -> np.ndarray:
    """Level-0 px (M, 2) x, y as napari's µm (M, 2) y, x: its pixels have their centre, not their corner, at whole numbers."""
    return np.asarray(((position - 0.5) * np.array(mpp))[:, ::-1])


def headline(path: Path, result: dict[str, Any]) -> str:
    """The slide's answers in a few lines, for the corner of the canvas."""
    lines = [path.name]
    for name, r in result["pipelines"].items():
        if r["status"] != "ok":
            lines.append(f"{name}: {r['status']}")
        elif "call" in r:
            lines.append(f"{name}: {r['call']} (p {r['probability'][r['call']]:.2f}, doubt {r['doubt']:.2f})")
        elif "count" in r:
            lines.append(f"{name}: {r['count']}, {r['per_mm2']:.1f}/mm2 ({r['low']:.1f}-{r['high']:.1f})")
        elif "region_mm2" in r:
            lines.append(f"{name}: {r['region_mm2']:.2f} mm2, {r['share']:.0%} of the tissue")
        else:
            lines.append(f"{name}: {r['risk']:.2f} ({r['group']})")
    return "\n".join([*lines, "Research use only"])
