"""Labels of other tools: the same mitoses from COCO, MIDOG, YOLO, QuPath and CSV, and refusals that name what is wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from wsikit.errors import LabelsError
from wsikit.train.point_labels import read_coco, read_points_of
from wsikit.train.tasks import read_points

MITOSES = np.array([[120.0, 80.0], [300.5, 200.25]])
LOOKALIKES = np.array([[60.0, 240.0]])
SIZE = (400, 300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("001.png", "002.png", "003.png"):
        Image.new("RGB", SIZE, (220, 180, 200)).save(tmp_path / "images" / name)
    return tmp_path


def coco(folder: Path, name: str = "coco.json", *, corners: bool = False, side: float = 50, **about: Any) -> Path:
    """Two labelled images and one without boxes."""
    images = [{"id": n, "file_name": f"00{n}.png", "width": SIZE[0], "height": SIZE[1]} | about.get("image", {}) for n in (1, 2, 3)]
    marks = []
    for image in (1, 2):
        for kind, points in ((1, MITOSES), (2, LOOKALIKES)):
            for x, y in points.tolist():
                w, h = side, side + 2
                end = [x + w / 2, y + h / 2] if corners else [w, h]
                marks.append({"id": len(marks) + 1, "image_id": image, "category_id": kind, "bbox": [x - w / 2, y - h / 2, *end]})
    whole = {"info": about.get("info", {}), "images": images, "annotations": marks}
    whole["categories"] = about.get("categories", [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}])
    path = folder / name
    path.write_text(json.dumps(whole))
    return path


def same(objects: np.ndarray, lookalikes: np.ndarray) -> None:
    assert objects == pytest.approx(MITOSES, abs=0.01)
    assert lookalikes == pytest.approx(LOOKALIKES, abs=0.01)


def test_midog_is_read_as_it_is(folder: Path) -> None:
    """Corners, a case for each image, hard negatives, tumour types; the image without boxes was not labelled."""
    path = coco(folder, corners=True, info={"description": "MIDOG++: a data set"}, image={"tumor_type": "canine soft tissue sarcoma"})
    found = read_points(path)
    assert [p.item.path.name for p in found] == ["001.png", "002.png"]
    assert len({p.item.patient for p in found}) == 2
    assert {p.tumour for p in found} == {"canine soft tissue sarcoma"}
    for p in found:
        same(p.objects, p.lookalikes)


def test_coco_with_patients_keeps_images_without_boxes(folder: Path) -> None:
    found = read_points(coco(folder, image={"patient": "P1", "mpp": 0.25, "split": "val"}))
    assert [(p.item.patient, p.item.mpp, p.item.split, len(p.objects)) for p in found] == [("P1", 0.25, "val", n) for n in (2, 2, 0)]
    same(found[0].objects, found[0].lookalikes)


def yolo(folder: Path) -> Path:
    lines = [f"0 {x / SIZE[0]:.7f} {y / SIZE[1]:.7f} 0.1 0.1" for x, y in MITOSES] + [f"1 {x / SIZE[0]:.7f} {y / SIZE[1]:.7f} 0.1 0.1" for x, y in LOOKALIKES]
    (folder / "a.txt").write_text("\n".join(lines) + "\n\n")
    return folder / "a.txt"


def qupath(folder: Path) -> Path:
    def feature(name: str, kind: str, coordinates: Any) -> dict[str, Any]:
        return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": {"classification": {"name": name}}}

    x, y = MITOSES[1]
    square = [[[x - 5, y - 5], [x + 5, y - 5], [x + 5, y + 5], [x - 5, y + 5], [x - 5, y - 5]]]
    features = [feature("Mitosis", "Point", MITOSES[0].tolist()), feature("Mitotic figure", "Polygon", square)]
    features += [feature("Non-mitotic", "Point", LOOKALIKES[0].tolist()), feature("Tissue", "Polygon", square)]
    features[2]["properties"]["classification"] = {"names": ["Look-alike"]}
    (folder / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return folder / "a.geojson"


def points(folder: Path) -> Path:
    rows = [(x, y, "mitosis") for x, y in MITOSES] + [(x, y, "hard negative") for x, y in LOOKALIKES]
    with (folder / "a.csv").open("w", newline="") as f:
        csv.writer(f).writerows([("x", "y", "label"), *rows])
    return folder / "a.csv"


@pytest.mark.parametrize("make", [yolo, qupath, points, coco])
def test_every_format_gives_the_same_points(folder: Path, make: Callable[[Path], Path]) -> None:
    same(*read_points_of(make(folder), folder / "images/001.png"))


def test_a_table_of_files_names_slides_patients_and_labels_of_any_format(folder: Path) -> None:
    files = [("001.png", "P1", yolo(folder).name), ("002.png", "P2", qupath(folder).name), ("003.png", "P3", "")]
    table = folder / "labels.csv"
    with table.open("w", newline="") as f:
        rows = [(f"images/{image}", patient, labels, 0.25, "sarcoma") for image, patient, labels in files]
        csv.writer(f).writerows([("path", "patient", "labels", "mpp", "tumour"), *rows])
    found = read_points(table)
    assert [(p.item.patient, p.item.mpp, p.tumour, len(p.objects)) for p in found] == [(f"P{n}", 0.25, "sarcoma", k) for n, k in ((1, 2), (2, 2), (3, 0))]
    table.write_text("path,patient,labels\nimages/001.png,P1,nothing.txt\n")
    with pytest.raises(LabelsError, match="line 2: no labels at"):
        read_points(table)
    table.write_text("path,patient,labels,split\nimages/001.png,P1,,train\nimages/002.png,P1,,val\n")
    with pytest.raises(LabelsError, match="more than one split"):
        read_points(table)


def test_yolos_names_file_decides_what_a_number_is(folder: Path) -> None:
    path = yolo(folder)
    (folder / "obj.names").write_text("hard negative\nmitosis\n")
    objects, lookalikes = read_points_of(path, folder / "images/001.png")
    assert (len(objects), len(lookalikes)) == (1, 2)
    (folder / "obj.names").write_text("mitosis\nlymphocyte\n")
    with pytest.raises(LabelsError, match="line 3"):
        read_points_of(path, folder / "images/001.png")


def test_boxes_that_are_corners_or_widths_are_told_by_where_they_lie(folder: Path) -> None:
    """A file that does not say it is MIDOG's."""
    for corners in (False, True):
        same(*read_points_of(coco(folder, corners=corners), folder / "images/001.png"))
    path = coco(folder)
    whole = json.loads(path.read_text())
    whole["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [20, 9, 41, 60]},
    ]
    path.write_text(json.dumps(whole))
    with pytest.raises(LabelsError, match="as corners and as widths"):
        read_points_of(path, folder / "images/001.png")
    whole["annotations"][0]["area"] = 1600
    path.write_text(json.dumps(whole))
    assert read_points_of(path, folder / "images/001.png")[0][0].tolist() == [30, 30]


WRONG: dict[str, dict[str, Any]] = {
    "says no 'patient'": {},
    "category 'lymphocyte' is neither": {"categories": [{"id": 1, "name": "mitosis"}, {"id": 2, "name": "lymphocyte"}], "image": {"patient": "P"}},
    "leads out of its folder": {"image": {"file_name": "../001.png", "patient": "P"}},
    "split must be train, val or test": {"image": {"patient": "P", "split": "tests"}},
    "1 of 1 images are missing": {"image": {"patient": "P", "file_name": "9.png", "id": 1}},
}


@pytest.mark.parametrize("words", WRONG)
def test_coco_that_cannot_be_trusted_is_refused(folder: Path, words: str) -> None:
    path = coco(folder, **WRONG[words])
    if words.startswith("1 of 1"):
        whole = json.loads(path.read_text())
        path.write_text(json.dumps(whole | {"annotations": []}))
    with pytest.raises(LabelsError, match=words):
        read_coco(path)


KEYS = ["images", "annotations", "categories", "id", "file_name", "bbox", "features", "geometry", "properties", "classification", "name", "info"]
LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=4)
ANY = st.recursive(LEAVES, lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from(KEYS), c, max_size=4), max_leaves=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY)
def test_any_other_json_is_refused_with_a_reason(folder: Path, value: Any) -> None:
    image = folder / "images/001.png"
    (folder / "x.json").write_text(json.dumps(value))
    try:
        objects, lookalikes = read_points_of(folder / "x.json", image)
        assert objects.shape[1:] == lookalikes.shape[1:] == (2,)
    except LabelsError as e:
        assert str(e)


def test_the_published_file_of_midog_is_understood(data: Path) -> None:
    """MIDOG++ without its images: 50 of them have no boxes since nobody labelled them; the others hold every figure, centred on its corners."""
    from wsikit.train.point_labels import _boxes, _images, _load

    path = data / "labelled/midog_annotations/MIDOG++.json"
    whole = _load(path)
    boxes, images = _boxes(path, whole), _images(path, whole)
    unlabelled = [int(images[n]["file_name"][:3]) for n in images if n not in boxes]
    assert unlabelled == list(range(151, 201))
    assert sum(len(b["mitosis"]) for b in boxes.values()) == sum(a["category_id"] == 1 for a in whole["annotations"]) > 10_000
    assert boxes[1]["lookalike"][0] == (4361, 371), "the centre of corners 4336, 346, 4386, 396"
