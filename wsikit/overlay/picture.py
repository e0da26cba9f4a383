"""A slide beside its heat maps, as one picture for people."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from shapely import get_coordinates

from wsikit.overlay.heat import ATTENTION, TITLE, explained
from wsikit.overlay.shapes import hotspot_outlines
from wsikit.store import Overlay, SlideStore
from wsikit.store.durable import write_atomic
from wsikit.store.image import Placement

SIDE_PX = 640
_LEAST_PX = 15  # of letters
_FOOT = "Research use only. Not for diagnosis. Colours: dark 0, yellow the highest (1, or the densest field)."
_VIRIDIS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], np.float64)
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


def write_overview(store: SlideStore, path: Path) -> None:
    """Slide, then its quality and each pipeline's heat map over it, with the answer written above.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    rgb, place = overview(store)
    panels = [("slide", f"tissue {store.attributes['survey']['tissue_mm2']:.2f} mm2", _framed(rgb, store, place))]
    results = store.result["pipelines"]
    for name in sorted(store.overlays(), key=lambda n: (explained(n) or n) in results):
        heat = store.overlay(name)
        if of := explained(name):
            panels += _explanation(store, results.get(of, {}), heat, rgb, place)
            continue
        if name not in results:
            panels.append((f"{name}: flaws in red", _flaws(store.result[name]), _framed(blend_clear(rgb, place, worst(heat)), store, place)))
            continue
        result = results[name]
        if "risk" in result:
            panels.append((f"{name}: raises (red), lowers (blue)", _answer(result), _framed(blend_clear(rgb, place, heat), store, place)))
            continue
        channel = main_channel(heat, result)
        over = blend(rgb, place, heat, channel) if result.get("status") == "ok" else hatch(rgb, place, heat)
        panels.append((f"{name}: {heat.channels[channel]}" if result.get("status") == "ok" else name, _answer(result), _framed(over, store, place, result)))
        if ATTENTION in heat.channels and result.get("status") == "ok":
            looked = blend(rgb, place, heat, heat.channels.index(ATTENTION))
            panels.append((f"{name}: {ATTENTION}", "how much each tile counts in the call", _framed(looked, store, place)))
    buffer = BytesIO()
    _sheet(panels).save(buffer, "PNG", optimize=False)
    write_atomic(path, buffer.getvalue())


def _explanation(store: SlideStore, result: dict[str, Any], heat: Overlay, rgb: np.ndarray, place: Placement) -> list[tuple[str, str, Image.Image]]:
    """The panel of a map that explains a call; none where the call is withheld, which there is then nothing to explain of."""
    if result.get("status") != "ok" or "explanation" not in result:
        return []
    name = result["explanation"]["class"]
    shown = one_class(heat, name)
    return [(f"{TITLE}: {name}", "what the model takes for it, in red", _framed(blend_clear(rgb, place, shown), store, place))]


def one_class(heat: Overlay, name: str) -> Overlay:
    """The channel of that name."""
    k = heat.channels.index(name)
    return Overlay(heat.values[k : k + 1], (name,), heat.placement)


def overview(store: SlideStore, side_px: int = SIDE_PX) -> tuple[np.ndarray, Placement]:
    """The stored level that fits a side best, enlarged by whole pixels when smaller: uint8 (H, W, 3), and its place."""
    array, place = next(((a, p) for a, p in store.levels() if max(a.shape[1:]) <= 2 * side_px), store.levels()[-1])
    rgb = np.moveaxis(np.asarray(array[...]), 0, -1)
    zoom = max(1, side_px // max(rgb.shape[:2]))
    if zoom > 1:
        rgb = rgb.repeat(zoom, 0).repeat(zoom, 1)
        shift = tuple(t - s * (zoom - 1) / zoom / 2 for t, s in zip(place.translation, place.scale, strict=True))
        place = Placement((place.scale[0] / zoom, place.scale[1] / zoom), (shift[0], shift[1]))
    return rgb, place


def extent_px(place: Placement, shape: tuple[int, ...], mpp: tuple[float, float]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top edges of an image (H, W) in level-0 px."""
    step = [s / m for s, m in zip(place.scale, mpp, strict=True)]
    start = [t / m + 0.5 - s / 2 for t, m, s in zip(place.translation, mpp, step, strict=True)]
    return (start[0], start[0] + shape[1] * step[0], start[1] + shape[0] * step[1], start[1])


def window(store: SlideStore, box: tuple[float, float, float, float], max_px: int) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """A part of the slide (left, top, right, bottom in level-0 px) from the finest level that shows it in ``max_px``: uint8 (H, W, 3), its `extent_px`."""
    for array, place in store.levels():
        left, _, _, top = extent_px(place, array.shape[1:], store.mpp)
        step = [s / m for s, m in zip(place.scale, store.mpp, strict=True)]
        x0, x1 = ((v - left) / step[0] for v in (box[0], box[2]))
        y0, y1 = ((v - top) / step[1] for v in (box[1], box[3]))
        if max(x1 - x0, y1 - y0) <= max_px:
            break
    c0, r0 = max(0, int(x0)), max(0, int(y0))
    c1, r1 = min(array.shape[2], int(np.ceil(x1))), min(array.shape[1], int(np.ceil(y1)))
    rgb = np.moveaxis(np.asarray(array[:, r0:r1, c0:c1]), 0, -1)
    return rgb, (left + c0 * step[0], left + c1 * step[0], top + r1 * step[1], top + r0 * step[1])


def blend(rgb: np.ndarray, place: Placement, heat: Overlay, channel: int, opacity: float = 0.55) -> np.ndarray:
    """A channel of a heat map over a picture, each placed by its µm: uint8 (H, W, 3)."""
    sampled, shown = _sample(heat.values[channel], heat.placement, rgb, place)
    colour = colours(np.where(shown, sampled, 0) / heat_top(heat.values[channel]))
    return np.where(shown[..., None], rgb * (1 - opacity) + colour * opacity, rgb).round().astype(np.uint8)


def blend_clear(rgb: np.ndarray, place: Placement, heat: Overlay) -> np.ndarray:
    """A map of one or two channels over a picture, the first in red and the second in blue, clear where they are 0: uint8 (H, W, 3)."""
    out = rgb.astype(np.float64)
    for values, colour in zip(heat.values, ([213.0, 94, 0], [0.0, 114, 178]), strict=False):
        sampled, shown = _sample(values, heat.placement, rgb, place)
        opacity = (0.75 * np.where(shown, sampled, 0).clip(0, 1))[..., None]
        out = out * (1 - opacity) + np.array(colour) * opacity
    return out.round().astype(np.uint8)


def worst(heat: Overlay) -> Overlay:
    """All flaws of a quality map in one channel, the largest of each tile: without its first channel, tissue."""
    return Overlay(np.fmax.reduce(heat.values[1:])[None], ("flaws",), heat.placement)


def _flaws(quality: dict[str, Any]) -> str:
    ink = sum(v for k, v in quality.items() if k.startswith("pen_"))
    blurred = "not measured" if quality["blurred"] is None else f"{quality['blurred']:.1%}"
    return f"ink {ink:.1%}, folds {quality['fold']:.1%}, blurred {blurred}"


def hatch(rgb: np.ndarray, place: Placement, heat: Overlay) -> np.ndarray:
    """Grey stripes where something was scored but no answer is given: uint8 (H, W, 3)."""
    _, shown = _sample(heat.values[0], heat.placement, rgb, place)
    stripes = (np.add.outer(np.arange(rgb.shape[0]), np.arange(rgb.shape[1])) // 5 % 4 == 0) & shown
    return np.where(stripes[..., None], (rgb * 0.5 + 60).astype(np.uint8), rgb)


def heat_top(values: np.ndarray) -> float:
    """The value that the last colour stands for: 1, or more for densities."""
    return max(1.0, float(np.nanmax(values, initial=0.0, where=~np.isnan(values))))


def _sample(values: np.ndarray, at: Placement, rgb: np.ndarray, place: Placement) -> tuple[np.ndarray, np.ndarray]:
    """The heat map's value under each pixel of a picture, and where there is one: (H, W) both."""
    y, x = (
        np.floor((place.translation[axis] + np.arange(n) * place.scale[axis] - at.translation[axis]) / at.scale[axis] + 0.5).astype(int)
        for axis, n in ((1, rgb.shape[0]), (0, rgb.shape[1]))
    )
    inside = ((y >= 0) & (y < values.shape[0]))[:, None] & ((x >= 0) & (x < values.shape[1]))[None]
    sampled = values[np.ix_(y.clip(0, values.shape[0] - 1), x.clip(0, values.shape[1] - 1))]
    return sampled, inside & ~np.isnan(sampled)


def colours(values: np.ndarray) -> np.ndarray:
    """Viridis, which colour-blind eyes can order: float64 (..., 3), 0-255, of values 0-1."""
    at = np.clip(values, 0, 1) * (len(_VIRIDIS) - 1)
    low = np.minimum(at.astype(int), len(_VIRIDIS) - 2)
    share = (at - low)[..., None]
    return np.asarray(_VIRIDIS[low] * (1 - share) + _VIRIDIS[low + 1] * share)


def main_channel(heat: Overlay, result: dict[str, Any]) -> int:
    """Which channel shows a pipeline's answer? The called class, else the one that is highest on average."""
    if result.get("call") in heat.channels:
        return heat.channels.index(result["call"])
    means = [float(np.nanmean(v)) if (~np.isnan(v)).any() else -1.0 for v in heat.values]
    return int(np.argmax(means))


def _answer(result: dict[str, Any]) -> str:
    if result.get("status") != "ok":
        return f"{result.get('status', 'not scored')}: no answer"
    if "risk" in result:
        return f"log risk {result['risk']:+.2f}, {result['group']} group"
    if "call" in result:
        return f"{result['call']}  p {result['probability'][result['call']]:.2f}, doubt {result['doubt']:.2f}"
    if "region_mm2" in result:
        return f"{result['region']} {result['region_mm2']:.2f} mm2, {result['share']:.0%} of the tissue"
    scores = "".join(f"; {name} {g.get('score', g['status'])}" for name, g in result.get("grading", {}).items())
    return f"{result['count']} mitoses, {result['per_mm2']:.1f}/mm2 ({result['low']:.1f}-{result['high']:.1f}){scores}"


def _framed(rgb: np.ndarray, store: SlideStore, place: Placement, result: dict[str, Any] | None = None) -> Image.Image:
    """A panel, with the hotspot's outline where there is one."""
    image = Image.fromarray(rgb)
    hotspot = (result or {}).get("hotspot")
    if hotspot:
        for part in hotspot_outlines(hotspot):
            um = (get_coordinates(part) - 0.5) * np.array(store.mpp)
            at = (um - np.array(place.translation)) / np.array(place.scale) + 0.5
            ImageDraw.Draw(image).line([(x, y) for x, y in at.tolist()], fill=(230, 159, 0), width=max(3, max(image.size) // 250), joint="curve")
    return image


def _sheet(panels: list[tuple[str, str, Image.Image]]) -> Image.Image:
    width = max(max(p.width for *_, p in panels), 260)
    height = max(p.height for *_, p in panels)
    whole = len(panels) * (width + 8) - 8
    letters, foot = _letters([t for name, answer, _ in panels for t in (name, answer)], width, height), _letters([_FOOT], whole, height)
    line = round(1.33 * letters.size)
    strip = 2 * line + 6
    sheet = Image.new("RGB", (whole, height + strip + round(1.5 * foot.size)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (name, answer, image) in enumerate(panels):
        x = i * (width + 8)
        draw.text((x + 4, 3), name, _INK, letters)
        draw.text((x + 4, 3 + line), answer, _INK, letters)
        sheet.paste(image, (x, strip))
    draw.text((4, height + strip + 2), _FOOT, _INK, foot)
    return sheet


def _letters(texts: list[str], width: int, height: int) -> Any:
    """Letters that grow with the panels, so that they can be read however small the picture is shown, as long as the longest text fits."""
    longest = max(ImageFont.load_default(100).getlength(t) for t in texts)
    return ImageFont.load_default(max(_LEAST_PX, min(height // 16, int(100 * (width - 8) / max(longest, 1.0)))))
