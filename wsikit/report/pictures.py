"""Pictures of a slide's page: the hotspot with what was counted there, the tiles that speak most for a call, and the curve of a risk."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from shapely import get_coordinates

from wsikit.aggregate.searched import counts_of
from wsikit.overlay.grad_cam import over
from wsikit.overlay.picture import one_class, window
from wsikit.overlay.shapes import hotspot_outlines
from wsikit.store import Overlay, SlideStore

HOTSPOT_PX = 2000
TILE_PX = 176
_RING_UM = 12.0
_COARSE = 2.0  # µm/px: beyond it cells cannot be told, so that a picture of tiles would show nothing


@dataclass(frozen=True)
class Picture:
    """A picture as a data: address, what it shows in words, and a line below it; and the same with what speaks for a class in red."""

    source: str
    alt: str
    caption: str
    width: int
    explained: str = ""


def hotspot_picture(store: SlideStore, name: str, result: Mapping[str, Any]) -> Picture | None:
    """The densest window with its outline and rings around counted detections; None where there is none.

    Raises
    ------
    StoreError
        The store is damaged.
    """
    h = result.get("hotspot")
    if result["status"] != "ok" or not h:
        return None
    pad = 0.05 * max(h["w"], h["h"])
    rgb, (left, right, bottom, top) = window(store, (h["x"] - pad, h["y"] - pad, h["x"] + h["w"] + pad, h["y"] + h["h"] + pad), 4 * HOTSPOT_PX)
    image = Image.fromarray(rgb)
    image.thumbnail((HOTSPOT_PX, HOTSPOT_PX))
    scale = np.array([image.width / (right - left), image.height / (bottom - top)])
    draw = ImageDraw.Draw(image)
    for part in hotspot_outlines(h):
        draw.line([(x, y) for x, y in ((get_coordinates(part) - (left, top)) * scale).tolist()], fill=(230, 159, 0), width=3, joint="curve")
    table = store.tables()[name]
    counted = table["position"][counts_of(store, result)(table["position"], table["score"])]
    ring = np.maximum(_RING_UM / np.array(store.mpp) * scale, 7)
    for centre in (counted - (left, top)) * scale:
        for grow, colour in ((1, (255, 255, 255)), (0, (0, 0, 0))):
            draw.ellipse((*(centre - ring - grow), *(centre + ring + grow)), outline=colour, width=2)
    mpp = store.mpp[0] / scale[0]
    caption = f"{mpp:.2g} µm/px, stain-normalised; rings are counted detections, the outline is the window"
    if mpp > _COARSE:
        caption += "; the run kept no finer pixels (wsikit score --keep-tiles keeps them)"
    return Picture(_jpeg(image), f"Hotspot with {h['count']} counted mitoses in {h['tissue_mm2']:.2f} mm² of tissue", caption, image.width)


def top_tiles(store: SlideStore, result: Mapping[str, Any]) -> list[Picture]:
    """The tiles that speak most for the called class, then those most against it; none where pixels of them were not kept.

    Raises
    ------
    StoreError
        The store is damaged.
    """
    finest = store.levels()[0][1]
    if result["status"] != "ok" or "tiles" not in result or max(finest.scale) > _COARSE:
        return []
    told, found, why = result["tiles"], [], _explanation(store, result)
    for side in ("for", "against"):
        for x, y, w, h, p in told[side]:
            rgb, extent = window(store, (x, y, x + w, y + h), 1024)
            image = Image.fromarray(rgb)
            image.thumbnail((TILE_PX, TILE_PX))
            shown = None if why is None else Image.fromarray(over(store, rgb, extent, why)).resize(image.size)
            alt = f"Tile at x {x:.0f}, y {y:.0f}: {told['class']} {p:.2f}"
            found.append(Picture(_jpeg(image), alt, f"{side}: {p:.2f} at {x:.0f}, {y:.0f}", image.width, "" if shown is None else _jpeg(shown)))
    return found


def risk_curve(r: Mapping[str, Any]) -> bytes:
    """Survival at a model's horizons, with its 95 % interval where it has one, as a PNG."""
    from matplotlib.figure import Figure

    months = [float(t.split()[0]) for t in r["survival"]]
    values, between = list(r["survival"].values()), list(r.get("survival_interval", {}).values())
    figure = Figure(figsize=(3.2, 1.9), dpi=100, layout="constrained")
    ax = figure.add_subplot()
    ax.plot([0, *months], [1, *values], "o-", color="#0072b2")
    if between:
        ax.fill_between([0, *months], [1, *(low for low, _ in between)], [1, *(high for _, high in between)], color="#0072b2", alpha=0.2, lw=0)
    ax.set(ylim=(0, 1.02), xlim=(0, None), xlabel="months", ylabel="without event")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def curve_picture(name: str, r: Mapping[str, Any]) -> Picture | None:
    """The same for a page; None where there is no survival to show."""
    if r["status"] != "ok" or not r.get("survival"):
        return None
    told = ", ".join(f"{p:.2f} at {t}" for t, p in r["survival"].items())
    band = "; the band is the 95 % interval of the model's coefficients" if r.get("survival_interval") else ""
    source = "data:image/png;base64," + base64.b64encode(risk_curve(r)).decode()
    return Picture(source, f"Without {r['endpoint']} ({name}): {told}", f"Without {r['endpoint']}, at the model's horizons{band}", 320)


def _explanation(store: SlideStore, result: Mapping[str, Any]) -> Overlay | None:
    """The map of the class that the result says it is shown of; None where there is none."""
    said = result.get("explanation")
    return None if said is None else one_class(store.overlay(said["overlay"]), said["class"])


def _jpeg(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
