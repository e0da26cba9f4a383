"""Pictures of a slide's page, from the pixels that its store keeps: the hotspot with what was counted there, and the tiles that speak most for a call."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from shapely import get_coordinates

from wsikit.overlay.picture import window
from wsikit.overlay.shapes import hotspot_outlines
from wsikit.store import SlideStore

HOTSPOT_PX = 2000
TILE_PX = 176
_RING_UM = 12.0
_COARSE = 2.0  # µm/px: beyond it cells cannot be told, so that a picture of tiles would show nothing


@dataclass(frozen=True)
class Picture:
    """A picture as a data: address, what it shows in words, and a line below it."""

    source: str
    alt: str
    caption: str
    width: int


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
    counted = table["position"][table["score"] >= np.float32(result["threshold"])]
    ring = np.maximum(_RING_UM / np.array(store.mpp) * scale, 7)
    for centre in (counted - (left, top)) * scale:
        for grow, colour in ((1, (255, 255, 255)), (0, (0, 0, 0))):
            draw.ellipse((*(centre - ring - grow), *(centre + ring + grow)), outline=colour, width=2)
    mpp = store.mpp[0] / scale[0]
    caption = f"{mpp:.2g} µm/px, stain-normalised; rings are counted detections, the outline is the window"
    if mpp > _COARSE:
        caption += "; the run kept no finer pixels (wsikit score --keep-tiles keeps them)"
    return Picture(_jpeg(image), f"Hotspot with {h['count']} counted mitoses in {h['tissue_mm2']:.2f} mm² of tissue", caption, image.width)


def top_tiles(store: SlideStore, name: str, result: Mapping[str, Any]) -> list[Picture]:
    """The tiles that speak most for the called class, then those most against it; none where pixels of them were not kept.

    Raises
    ------
    StoreError
        The store is damaged.
    """
    finest = store.levels()[0][1]
    if result["status"] != "ok" or "tiles" not in result or max(finest.scale) > _COARSE:
        return []
    told, found = result["tiles"], []
    for side in ("for", "against"):
        for x, y, w, h, p in told[side]:
            rgb, _ = window(store, (x, y, x + w, y + h), 1024)
            image = Image.fromarray(rgb)
            image.thumbnail((TILE_PX, TILE_PX))
            alt = f"Tile at x {x:.0f}, y {y:.0f}: {told['class']} {p:.2f}"
            found.append(Picture(_jpeg(image), alt, f"{side}: {p:.2f} at {x:.0f}, {y:.0f}", image.width))
    return found


def _jpeg(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
