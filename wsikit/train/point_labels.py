"""Mitoses and look-alikes from other tools' files: COCO (MIDOG and MIDOG++ as they are), YOLO text, QuPath's GeoJSON, CSV of points.

Each is read as points in level-0 px of one slide, field or crop. What a file calls a class is looked up in `NAMES`; a class that is not there is refused in
COCO and YOLO, where every box was meant, and left out of GeoJSON, where tissue and other shapes lie beside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from shapely import get_coordinates, get_parts
from shapely.errors import ShapelyError
from shapely.geometry import shape

from wsikit.errors import LabelsError
from wsikit.resolution import parse_number
from wsikit.slide import open_slide
from wsikit.train.detect import Points
from wsikit.train.labels import Labelled, read_table

MITOSIS, LOOKALIKE = "mitosis", "lookalike"
NAMES = {
    **dict.fromkeys(("mitosis", "mitoses", "mitotic figure", "mitotic figures", "mitotic", "atypical mitosis", "atypical mitotic figure"), MITOSIS),
    **dict.fromkeys(("lookalike", "look alike", "imposter", "hard negative", "hard negative lookalike", "below threshold"), LOOKALIKE),
    **dict.fromkeys(("not mitotic figure", "non mitotic figure", "non mitotic cell", "nonmitotic", "non mitosis"), LOOKALIKE),
}
MAX_BYTES = 512 * 1024**2
_YOLO_CLASSES = ("mitosis", "lookalike")
_YOLO_NAMES = ("classes.txt", "obj.names")
_IMAGE_FOLDERS = ("", "images")
Found = dict[str, list[tuple[float, float]]]


def class_of(name: str) -> str | None:
    """``mitosis``, ``lookalike``, or None for another class.

    Examples
    --------
    >>> class_of("Mitotic figure"), class_of("non-mitotic cell"), class_of("Tissue")
    ('mitosis', 'lookalike', None)
    """
    return NAMES.get(" ".join(name.lower().replace("-", " ").replace("_", " ").split()))


def read_points_of(path: Path, image: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mitoses and look-alikes of one slide or field from a file of its labels, float64 (M, 2) each, level-0 px.

    ``.csv`` with columns x, y, label; ``.txt`` of YOLO (class names in ``classes.txt`` or ``obj.names`` beside it, else 0 is a mitosis and 1 a look-alike);
    ``.json`` or ``.geojson`` of COCO or QuPath.

    Raises
    ------
    LabelsError
        The file cannot be read or has something that is no label.
    SlideError
        The slide cannot be opened: YOLO's shares need its size, QuPath's places its bounds.
    """
    kind = path.suffix.lower()
    if kind == ".csv":
        found = _csv(path)
    elif kind == ".txt":
        found = _yolo(path, image)
    elif kind in (".json", ".geojson"):
        whole = _load(path)
        found = _coco_of(path, whole, image) if isinstance(whole, dict) and "images" in whole else _geojson(path, whole, image)
    else:
        raise LabelsError(f"{path}: labels are .csv, YOLO's .txt, or .json and .geojson of COCO or QuPath")
    return _arrays(found)


def read_coco(path: Path) -> list[Points]:
    """All images of a COCO file, beside it or in ``images/``.

    Each image has a ``patient`` (and may have ``mpp``, ``split`` and ``tumor_type``). In the published files of MIDOG and MIDOG++ boxes are corners, each
    image is of another case, and images without boxes were not labelled, so they are left out.

    Raises
    ------
    LabelsError
        It cannot be read, an image is missing or says no patient, or its boxes can be read in two ways.
    """
    whole = _load(path)
    midog, images = _is_midog(whole), _images(path, whole)
    boxes = _boxes(path, whole)
    found, missing = [], []
    for n, image in images.items():
        if midog and not boxes.get(n):
            continue
        file = next((f for folder in _IMAGE_FOLDERS if (f := path.parent / folder / image["file_name"]).is_file()), None)
        if file is None:
            missing.append(image["file_name"])
            continue
        patient = str(image.get("patient") or (f"case {PurePosixPath(image['file_name']).stem}" if midog else ""))
        if not patient:
            raise LabelsError(
                f"{path}: image {image['file_name']} says no 'patient', and fields of one patient must not be on both sides of a split; "
                "add it there, or give a CSV with columns path, patient, labels, whose rows name this file in 'labels'"
            )
        split, mpp = str(image.get("split") or ""), image.get("mpp")
        if split not in ("", "train", "val", "test") or (mpp is not None and not (isinstance(mpp, int | float) and math.isfinite(mpp))):
            raise LabelsError(f"{path}: image {image['file_name']}: split must be train, val or test, and mpp a number")
        item = Labelled(file, MITOSIS, patient, None if mpp is None else float(mpp), split)
        objects, lookalikes = _arrays(boxes.get(n, _nothing()))
        found.append(Points(item, objects, lookalikes, str(image.get("tumor_type") or image.get("tumour") or "")))
    if missing:
        raise LabelsError(f"{path}: {len(missing)} of {len(images)} images are missing, the first {missing[0]}; put them beside it, or into images/")
    return found


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LabelsError(f"{path}: is larger than {MAX_BYTES // 1024**2} MiB; labels are not")
        return json.loads(path.read_bytes())
    except OSError as e:
        raise LabelsError(f"{path}: cannot be read ({e.strerror})") from e
    except (ValueError, RecursionError) as e:
        raise LabelsError(f"{path}: is no JSON ({str(e)[:100]})") from e


def _is_midog(whole: Any) -> bool:
    info = whole.get("info") if isinstance(whole, dict) else None
    return isinstance(info, dict) and "MIDOG" in str(info.get("description", ""))


def _images(path: Path, whole: Any) -> dict[Any, dict[str, Any]]:
    try:
        found = {image["id"]: image for image in whole["images"]}
        named = [PurePosixPath(image["file_name"]) for image in found.values()]
        marks, kinds = whole["annotations"], {c["id"]: str(c["name"]) for c in whole["categories"]}
    except (TypeError, KeyError, AttributeError) as e:
        raise LabelsError(f"{path}: is no COCO file: 'images' with id and file_name, 'annotations' and 'categories' are needed ({e})") from e
    if any(name.is_absolute() or ".." in name.parts or "\\" in str(name) for name in named):
        raise LabelsError(f"{path}: an image's file_name leads out of its folder; name files beside it")
    if odd := [a for a in marks if not isinstance(a, dict) or a.get("image_id") not in found]:
        raise LabelsError(f"{path}: {len(odd)} annotations are of no image of the file")
    if strange := sorted({kinds.get(a.get("category_id"), "?") for a in marks if class_of(kinds.get(a.get("category_id"), "?")) is None}):
        raise LabelsError(f"{path}: category '{strange[0]}' is neither a mitosis nor a look-alike; known are {', '.join(NAMES)}")
    return found


def _boxes(path: Path, whole: Any) -> dict[Any, Found]:
    """Centres of boxes by image."""
    kinds = {c["id"]: class_of(str(c["name"])) for c in whole["categories"]}
    try:
        box = np.array([a["bbox"] for a in whole["annotations"]], np.float64).reshape(-1, 4)
    except (KeyError, TypeError, ValueError) as e:
        raise LabelsError(f"{path}: an annotation has no 'bbox' of four numbers") from e
    if not np.isfinite(box).all():
        raise LabelsError(f"{path}: a box has a number that is none")
    corners = _is_midog(whole) or _are_corners(path, whole, box)
    centre = (box[:, :2] + box[:, 2:]) / 2 if corners else box[:, :2] + box[:, 2:] / 2
    found: dict[Any, Found] = {}
    for a, (x, y) in zip(whole["annotations"], centre.tolist(), strict=True):
        found.setdefault(a["image_id"], _nothing())[str(kinds[a["category_id"]])].append((x, y))
    return found


def _are_corners(path: Path, whole: Any, box: np.ndarray) -> bool:
    """Are boxes left, top, right, bottom, instead of COCO's left, top, width, height? By which of the two lies in the images."""
    size = {i["id"]: (i.get("width", math.inf), i.get("height", math.inf)) for i in whole["images"]}
    limit = np.array([size[a["image_id"]] for a in whole["annotations"]], np.float64).reshape(-1, 2)
    area = np.array([float(a.get("area") or 0) for a in whole["annotations"]])  # of the object, so no more than its box has
    readings = {"coco": box[:, 2:], "corners": box[:, 2:] - box[:, :2]}
    end = {"coco": box[:, :2] + box[:, 2:], "corners": box[:, 2:]}
    fits = {k: bool((wh > 0).all() and (end[k] <= limit + 1).all() and (wh.prod(1) >= area - 1).all()) for k, wh in readings.items()}
    as_coco, as_corners = fits["coco"], fits["corners"]
    if as_coco and as_corners and len(box):
        constant = {k: len(wh) > 1 and float(np.ptp(wh, axis=0).max()) < 1e-6 for k, wh in readings.items()}
        if constant["coco"] == constant["corners"]:
            raise LabelsError(f"{path}: its boxes can be read as corners and as widths; say each one's 'area' beside 'bbox', as COCO does")
        return constant["corners"]
    if not as_coco and not as_corners:
        raise LabelsError(f"{path}: boxes lie outside of their images, read as [left, top, width, height] and as corners")
    return as_corners and not as_coco


def _coco_of(path: Path, whole: Any, image: Path) -> Found:
    same = [n for n, i in _images(path, whole).items() if PurePosixPath(i["file_name"]).name == image.name]
    if len(same) != 1:
        raise LabelsError(f"{path}: has {len(same)} images called {image.name}, one is needed")
    return _boxes(path, whole).get(same[0], _nothing())


def _csv(path: Path) -> Found:
    found = _nothing()
    if len(path.read_bytes().strip().splitlines()) == 1:
        return found  # a header alone: looked at, and nothing there
    for row in read_table(path, ["x", "y", "label"]):
        kind, x, y = class_of(row["label"]), parse_number(row["x"]), parse_number(row["y"])
        if kind is None or x is None or y is None or not (math.isfinite(x) and math.isfinite(y)):
            raise LabelsError(f"{path}: line {row.line}: needs numbers x, y and a label that is a mitosis or a look-alike")
        found[kind].append((x, y))
    return found


def _yolo(path: Path, image: Path) -> Found:
    slide = open_slide(image)
    w, h = slide.size
    slide.close()
    beside = next((f for name in _YOLO_NAMES if (f := path.parent / name).is_file()), None)
    names: Iterable[str] = _YOLO_CLASSES if beside is None else [n.strip() for n in _text(beside).splitlines() if n.strip()]
    kinds = {str(i): class_of(name) for i, name in enumerate(names)}
    found = _nothing()
    for number, line in enumerate(_text(path).splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        shares = [parse_number(p) for p in parts[1:5]]
        kind = kinds.get(parts[0])
        if kind is None or len(shares) < 4 or any(s is None or not 0 <= s <= 1 for s in shares):
            raise LabelsError(f"{path}: line {number}: is not 'class x y width height' with shares from 0 to 1, of a class that is a mitosis or a look-alike")
        found[kind].append((float(shares[0] or 0) * w, float(shares[1] or 0) * h))
    return found


def _geojson(path: Path, whole: Any, image: Path) -> Found:
    slide = open_slide(image)
    origin = [slide.bounds.x, slide.bounds.y]
    slide.close()
    stated = whole.get("wsikit", {}).get("origin") if isinstance(whole, dict) and isinstance(whole.get("wsikit"), dict) else None
    if stated not in (None, origin):
        raise LabelsError(f"{path}: counts from {stated}, {image.name} from {origin}: it is of another slide")
    features = whole.get("features") if isinstance(whole, dict) else whole
    if not isinstance(features, list):
        raise LabelsError(f"{path}: is neither COCO nor GeoJSON: it has no 'images' and no 'features'")
    found = _nothing()
    for number, feature in enumerate(features, 1):
        try:
            said = (feature.get("properties") or {}).get("classification") or {}
            kind = class_of(str(said.get("name") or ": ".join(map(str, said.get("names") or ()))))
            if kind is not None:
                geometry = shape(feature["geometry"])
                parts = get_parts(geometry) if geometry.geom_type == "MultiPoint" else [geometry.centroid]
                found[kind] += [(x + origin[0], y + origin[1]) for x, y in get_coordinates(parts).tolist()]
        except (AttributeError, KeyError, TypeError, ValueError, IndexError, ShapelyError) as e:
            raise LabelsError(f"{path}: feature {number} is none of GeoJSON ({' '.join(str(e).split())[:100]})") from e
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise LabelsError(f"{path}: cannot be read as text ({getattr(e, 'strerror', None) or e})") from e


def _nothing() -> Found:
    return {MITOSIS: [], LOOKALIKE: []}


def _arrays(found: Found) -> tuple[np.ndarray, np.ndarray]:
    both = tuple(np.array(found[k], np.float64).reshape(-1, 2) for k in (MITOSIS, LOOKALIKE))
    if not all(np.isfinite(points).all() for points in both):
        raise LabelsError("a point has a number that is none")
    return both[0], both[1]
