"""Pictures of slides and what was found on them, with axes in level-0 px."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from shapely import get_coordinates

from wsikit.aggregate.searched import counts_of
from wsikit.errors import StoreError, UsageError
from wsikit.geometry import Region
from wsikit.grid import TileGrid
from wsikit.overlay.heat import explained
from wsikit.overlay.picture import extent_px, heat_top, main_channel, overview, window
from wsikit.overlay.shapes import hotspot_outlines
from wsikit.plot.axes import axes_or_new, note, scale_bar
from wsikit.slide import Slide
from wsikit.store import SlideStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_PX = 2048  # of a hotspot's picture: more than a page shows


def thumbnail(source: Slide | SlideStore, ax: Axes | None = None, *, tiles: TileGrid | Mapping[str, np.ndarray] | None = None, side_px: int = 1024) -> Axes:
    """How does the slide look, and where are its tiles?

    Parameters
    ----------
    source : a slide (its own colours) or a store (its stain-normalised ones)
    tiles : a table of a store, or any mapping with ``origin`` (N, 2) and ``size`` (N, 2) in level-0 px; or a grid, all tiles of which are drawn
    side_px : the longer side of the picture, about

    Raises
    ------
    SlideError
        The slide cannot be read, or has no mpp for its scale bar.
    DamagedStoreError
        The store's pixels or columns differ from what was written.

    Examples
    --------
    >>> store = wk.open_store("out/slides/a.zarr")                               # doctest: +SKIP
    >>> ax = thumbnail(store, tiles=store.tables()["sts-subtype"])               # doctest: +SKIP
    """
    from matplotlib.collections import PolyCollection

    ax = axes_or_new(ax)
    if isinstance(source, Slide):
        rgb, mpp = source.thumbnail(side_px), source.require_mpp()
        extent = (0.0, float(source.size.w), float(source.size.h), 0.0)
    else:
        rgb, place = overview(source, side_px)
        mpp, extent = source.mpp, extent_px(place, rgb.shape[:2], source.mpp)
    _show(ax, rgb, extent, mpp)
    if tiles is not None:
        origin, size = _boxes(tiles)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
        ax.add_collection(PolyCollection(origin[:, None] + corners * size[:, None], facecolors="none", edgecolors="black", linewidths=0.5, alpha=0.7))
    return ax


def heat_map(store: SlideStore, pipeline: str, ax: Axes | None = None, *, channel: str | None = None, opacity: float = 0.55) -> Axes:
    """Where on the slide is a class, or are mitoses dense? With its colour bar; a pipeline that gave no answer is hatched instead.

    Parameters
    ----------
    channel : a class of the overlay. [default: the called one]
    opacity : of the colours over the slide, 0 to 1

    Raises
    ------
    StoreError
        The store has no such overlay, or was not finished.
    UsageError
        The overlay has no such channel.

    Examples
    --------
    >>> ax = heat_map(wk.open_store("out/slides/a.zarr"), "sts-subtype", channel="LMS")      # doctest: +SKIP
    """
    heat = store.overlay(pipeline)
    if channel is not None and channel not in heat.channels:
        raise UsageError(f"{store.path}: overlay '{pipeline}' has no channel '{channel}'; there are: {', '.join(heat.channels)}")
    result = store.result["pipelines"].get(explained(pipeline) or pipeline, {"status": "ok"})
    which = heat.channels.index(channel) if channel else main_channel(heat, result)
    ax = thumbnail(store, ax)
    values = heat.values[which]
    extent = extent_px(heat.placement, values.shape, store.mpp)
    limits = ax.get_xlim(), ax.get_ylim()
    if result["status"] == "ok":
        image = ax.imshow(values, extent=extent, vmin=0, vmax=heat_top(values), cmap="viridis", alpha=opacity, interpolation="nearest")
        ax.figure.colorbar(image, ax=ax, shrink=0.7, label=heat.channels[which])
        ax.set_title(f"{store.slide_id}: {pipeline}", fontsize=10)
    else:
        _hatch(ax, values, extent)
        ax.set_title(f"{store.slide_id}: {pipeline} {result['status']}, no answer", fontsize=10)
    ax.set(xlim=limits[0], ylim=limits[1], aspect=store.mpp[1] / store.mpp[0])
    return ax


def hotspot(store: SlideStore, pipeline: str = "mitosis", ax: Axes | None = None, *, slide: Slide | None = None, margin: float = 0.1) -> Axes:
    """How does the densest window look, and what was counted there?

    Counted detections are circles coloured by score; others, below the threshold or outside the region that is counted in, are dotted.

    Parameters
    ----------
    slide : where to take pixels from. [default: the finest that the store keeps]
    margin : of slide shown around the window, as a share of its side

    Raises
    ------
    StoreError
        The pipeline found no hotspot on this slide; the message says why.
    SlideError
        The slide cannot be read.

    Examples
    --------
    >>> ax = hotspot(wk.open_store("out/slides/a.zarr"), slide=wk.open_slide("a.svs"))     # doctest: +SKIP
    """
    from matplotlib.patches import Polygon

    result = store.result["pipelines"].get(pipeline, {"status": "not scored", "reason": f"there are: {', '.join(store.result['pipelines'])}"})
    spot = result.get("hotspot")
    if result["status"] != "ok" or not spot:
        raise StoreError(f"{store.path}: no hotspot of '{pipeline}' ({result['status']}: {result['reason'] or 'the slide has no tissue'})")
    ax = axes_or_new(ax)
    pad = margin * max(spot["w"], spot["h"])
    box = (spot["x"] - pad, spot["y"] - pad, spot["x"] + spot["w"] + pad, spot["y"] + spot["h"] + pad)
    rgb, extent = _from_slide(slide, box) if slide else window(store, box, _MAX_PX)
    _show(ax, rgb, extent, store.mpp)
    for part in hotspot_outlines(spot):
        ax.add_patch(Polygon(get_coordinates(part), fill=False, ec="#E69F00", lw=2))
    table = store.tables()[pipeline]
    _mark(ax, table, counts_of(store, result)(table["position"], table["score"]), float(result["threshold"]), extent)
    text = f"{spot['count']} in {spot['tissue_mm2']:.2f} mm² of tissue, {spot['per_mm2']:.1f}/mm² (95 % {spot['low']:.1f}–{spot['high']:.1f})"
    ax.set_title(f"{store.slide_id}: {text}", fontsize=10)
    return ax


def _show(ax: Axes, rgb: np.ndarray, extent: tuple[float, float, float, float], mpp: tuple[float, float]) -> None:
    ax.imshow(rgb, extent=extent, interpolation="antialiased")
    ax.set(xlim=extent[:2], ylim=extent[2:], aspect=mpp[1] / mpp[0], xticks=[], yticks=[])
    scale_bar(ax, mpp[0], extent[1] - extent[0])
    note(ax, above=False)


def _boxes(tiles: TileGrid | Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(tiles, TileGrid):
        origin = tiles.origins(tiles.all_cells())
        return origin, np.tile(np.array(tiles.tile_size), (len(origin), 1))
    return np.asarray(tiles["origin"]), np.asarray(tiles["size"])


def _hatch(ax: Axes, values: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    shown = np.repeat(np.repeat(~np.isnan(values), 2, 0), 2, 1).astype(float)
    ax.contourf(shown, levels=[0.5, 1.5], colors="none", hatches=["////"], extent=extent, origin="upper")


def _from_slide(slide: Slide, wanted: tuple[float, ...]) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    x0, y0 = (int(np.floor(v)) for v in wanted[:2])
    box = Region(x0, y0, int(np.ceil(wanted[2])) - x0, int(np.ceil(wanted[3])) - y0).clip(slide.size)
    mpp = max(slide.require_mpp())
    rgb = slide.read(box, mpp=mpp * max(1.0, max(box.w, box.h) / _MAX_PX))
    return rgb, (box.x, box.x1, box.y1, box.y)


def _mark(ax: Axes, table: Mapping[str, Any], counts: np.ndarray, threshold: float, extent: tuple[float, float, float, float]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    position, score = table["position"], table["score"]
    inside = (position >= (extent[0], extent[3])).all(1) & (position < (extent[1], extent[2])).all(1)
    counted = inside & counts
    low = inside & ~counted
    ax.scatter(position[low, 0], position[low, 1], s=60, facecolors="none", edgecolors="black", linestyles="dotted", linewidths=1)
    colour = ScalarMappable(Normalize(threshold, 1), "cividis")
    ax.scatter(position[counted, 0], position[counted, 1], s=90, facecolors="none", edgecolors="black", linewidths=3.6)
    ax.scatter(position[counted, 0], position[counted, 1], s=90, facecolors="none", edgecolors=colour.to_rgba(score[counted]), linewidths=1.8)
    ax.figure.colorbar(colour, ax=ax, shrink=0.7, label="score of a counted detection")
