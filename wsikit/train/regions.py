"""Labels of regions: QuPath's polygons as GeoJSON, or masks as pictures, and what they say of each pixel of a tile."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import shapely
from PIL import Image, ImageDraw
from shapely.geometry import shape as to_shape
from shapely.geometry.base import BaseGeometry

from wsikit.errors import LabelsError, WsikitError
from wsikit.grid import Raster, TileGrid
from wsikit.models._card import Card
from wsikit.slide import Slide, open_slide
from wsikit.train.labels import Labelled, check_patients, read_mpp, read_table
from wsikit.train.tiles import Look, evenly

OTHER, REGION, IGNORED = 0, 1, 255
NAMES = ("tumour", "tumor")
AREAS = ("annotated", "annotated area", "region*", "region")  # QuPath's own class for "look only here" is Region*


@dataclass(frozen=True)
class Marked:
    """A slide with the file that says where its tumour is."""

    item: Labelled
    regions: Path


def read_marked(path: Path) -> list[Marked]:
    """Slides with regions from a CSV: path, patient, regions (a GeoJSON, or a PNG as large as the slide or smaller), and mpp, site, split.

    Raises
    ------
    LabelsError
        A column or value is missing or wrong, or a patient is in two splits.
    """
    found = []
    for row in read_table(path, ["path", "patient", "regions"]):
        number, slide, regions = row.line, path.parent / row["path"], path.parent / row["regions"]
        if not row["path"] or not slide.exists():
            raise LabelsError(f"{path}: line {number}: no slide at {slide}")
        if not row["regions"] or not regions.is_file():
            raise LabelsError(f"{path}: line {number}: no regions at {regions}; a slide without tumour has an empty FeatureCollection")
        if not row["patient"]:
            raise LabelsError(f"{path}: line {number}: patient must not be empty")
        if row.get("split", "") not in ("", "train", "val", "test"):
            raise LabelsError(f"{path}: line {number}: split '{row['split']}' must be train, val or test")
        more = {k: row.get(k, "") for k in ("split", "site", "fold")}
        found.append(Marked(Labelled(slide, "tumour", row["patient"], read_mpp(row, f"{path}: line {number}"), **more), regions))
    check_patients([m.item for m in found], path)
    return found


def marks(path: Path, slide: Slide, raster: Raster) -> np.ndarray:
    """What a file says of each pixel of a raster: uint8 (H, W), 1 tumour, 0 other, 255 not said.

    In GeoJSON, polygons of class Tumor or Tumour are tumour; where there are polygons of class Region* (or Annotated), nothing is said outside of
    them. In a PNG, 0 is other, 255 with other values present is not said, and all else is tumour.

    Raises
    ------
    LabelsError
        The file cannot be read, or has no polygons that lie on the slide.
    """
    if path.suffix.lower() == ".png":
        return _from_picture(path, raster)
    tumour, areas = _polygons(path, slide)
    size = (raster.size.w, raster.size.h)
    said = Image.new("L", size, IGNORED if areas else OTHER)
    draw = ImageDraw.Draw(said)
    for polygons, value in ((areas, OTHER), (tumour, REGION)):
        for polygon in polygons:
            _fill(draw, said, polygon, raster.downsample, value)
    out = np.array(said)
    if areas:
        inside = Image.new("L", size, 0)
        for polygon in areas:
            _fill(ImageDraw.Draw(inside), inside, polygon, raster.downsample, 1)
        out[np.array(inside) == 0] = IGNORED
    return out


def _polygons(path: Path, slide: Slide) -> tuple[list[Any], list[Any]]:
    """Polygons of tumour, and of the areas that were looked at, in level-0 px; QuPath counts from the corner of the slide's bounds."""
    try:
        value = json.loads(path.read_bytes())
        features = value["features"] if isinstance(value, dict) else value
        named = [(_class_of(f), shapely.make_valid(to_shape(f["geometry"]))) for f in features]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as e:
        raise LabelsError(f"{path}: cannot be read as GeoJSON ({type(e).__name__}: {' '.join(str(e).split())[:80]}); export it from QuPath again") from e
    found: tuple[list[Any], list[Any]] = ([], [])
    b, (w, h) = slide.bounds, slide.size
    for name, geometry in named:
        kind = 0 if name in NAMES else 1 if name in AREAS else None
        if kind is None:
            continue
        moved = shapely.transform(geometry, lambda xy: xy + np.array([b.x, b.y]))
        x0, y0, x1, y1 = moved.bounds
        if x1 < 0 or y1 < 0 or x0 > w or y0 > h or not all(map(math.isfinite, moved.bounds)):
            raise LabelsError(f"{path}: a polygon of {name} lies at x {x0:.0f}, y {y0:.0f}, beyond the slide's {w} × {h} px; is it of another slide?")
        found[kind].extend(p for p in shapely.get_parts(moved) if p.geom_type == "Polygon")
    if named and not (found[0] or found[1]):
        raise LabelsError(f"{path}: has no polygon of class Tumor or Tumour; there are: {', '.join(sorted({n or '(no class)' for n, _ in named}))}")
    return found


def _class_of(feature: dict[str, Any]) -> str:
    told = feature.get("properties", {}).get("classification", {})
    name = told.get("name") or " ".join(told.get("names", []))
    return str(name).strip().lower()


def _fill(draw: ImageDraw.ImageDraw, picture: Image.Image, polygon: BaseGeometry, downsample: tuple[float, float], value: int) -> None:
    """A polygon onto a raster; its holes keep what was there."""
    hole = Image.new("L", picture.size, 0)
    scale = np.array(downsample)

    def points(ring: Any) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (shapely.get_coordinates(ring) / scale - 0.5).tolist()]

    rings: Sequence[Any] = getattr(polygon, "interiors", ())
    if not rings:
        draw.polygon(points(polygon.exterior), fill=value)
        return
    ImageDraw.Draw(hole).polygon(points(polygon.exterior), fill=1)
    for ring in rings:
        ImageDraw.Draw(hole).polygon(points(ring), fill=0)
    picture.paste(value, mask=hole.point(lambda v: 255 * v))


def _from_picture(path: Path, raster: Raster) -> np.ndarray:
    try:
        picture = imagecodecs.png_decode(path.read_bytes())
    except Exception as e:  # imagecodecs has an exception class per codec
        raise LabelsError(f"{path}: cannot be read as PNG; save the mask as an 8-bit grey PNG") from e
    if picture.ndim == 3:
        picture = picture[..., :3].max(-1)
    h, w = picture.shape
    if abs(w / h / (raster.size.w / raster.size.h) - 1) > 0.02 and min(w, h) > 50:
        raise LabelsError(f"{path}: {w} × {h} px is not of the shape of its slide; the mask must cover the whole slide")
    y = np.minimum(((np.arange(raster.size.h) + 0.5) * h / raster.size.h).astype(int), h - 1)
    x = np.minimum(((np.arange(raster.size.w) + 0.5) * w / raster.size.w).astype(int), w - 1)
    values = set(np.unique(picture).tolist())
    out = np.where(picture == 0, OTHER, REGION).astype(np.uint8)
    if IGNORED in values and len(values - {0, IGNORED}):
        out[picture == IGNORED] = IGNORED
    return out[np.ix_(y, x)]


def draw_marked(slides: Sequence[Marked], card: Card, per_slide: int) -> Iterator[tuple[int, np.ndarray]]:
    """Tiles of tissue with what is said of their pixels as a fourth channel: the slide's number and uint8 (tile, tile, 4).

    Raises
    ------
    SlideError, LabelsError
        A slide or its regions cannot be used.
    """
    for i, marked in enumerate(slides):
        look = Look.at(marked.item.path, card, marked.item.mpp)
        said = marks(marked.regions, look.slide, look.raster)
        side = card.tile_px
        padded = np.pad(said, side, constant_values=IGNORED)
        for x, y in TileGrid(look.raster, side, card.overlap_px).corners_px(evenly(look.cells(card), per_slide)).tolist():
            part = padded[y + side : y + 2 * side, x + side : x + 2 * side]
            yield i, np.concatenate([look.read(x, y, side), part[..., None]], -1)
        look.slide.close()


def truth_on(marked: Marked, raster: Raster) -> np.ndarray:
    """What is said of a slide on a raster of its store; see `marks`.

    Raises
    ------
    LabelsError
        The regions cannot be used.
    """
    try:
        with open_slide(marked.item.path, mpp=marked.item.mpp, mpp_source="csv") as slide:
            return marks(marked.regions, slide, raster)
    except LabelsError:
        raise
    except WsikitError as e:
        raise LabelsError(f"{marked.item.path}: {e}") from e
