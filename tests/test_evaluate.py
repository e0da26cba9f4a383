"""Evaluation of a model on labelled slides: each figure follows from the slides' own results."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsikit.errors import LabelsError, UsageError
from wsikit.evaluate import evaluate_model
from wsikit.metrics import Interval
from wsikit.models import BUNDLED
from wsikit.testing.phantom import Spec, make_phantom, write_phantom

HOSTILE = "O\"Hara, Jr's"


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four small phantoms, in a folder whose name needs quoting."""
    folder = tmp_path_factory.mktemp("slides") / 'a, "b"'
    folder.mkdir()
    found = {}
    for n, subtype in enumerate(["LMS", "SS", "LMS", "UPS"]):
        path = folder / f"{n}.tif"
        found[path.name] = (path, write_phantom(path, Spec(90 + n, subtype, 1280, 1024, mitoses_per_mm2=60)))
    return found


def model(tmp_path: Path, name: str, **decision: Any) -> Path:
    """A bundled model that calls slides of a few tiles."""
    folder = Path(shutil.copytree(BUNDLED / name, tmp_path / name))
    card = json.loads((folder / "card.json").read_text())
    card["decision"] |= decision
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def table(path: Path, header: str, rows: list[tuple[Any, ...]]) -> Path:
    with path.open("w", newline="") as f:
        csv.writer(f).writerows([header.split(","), *rows])
    return path


def numbers(found: Interval) -> tuple[float, float, float]:
    """An interval's value and its ends."""
    return found.value, found.low, found.high


def test_a_classifier_is_judged_by_its_calls_per_slide(slides: dict[str, Any], tmp_path: Path) -> None:
    """Three labels are right and one is wrong on purpose; one file is no slide."""
    (tmp_path / "broken.tif").write_bytes(b"not a slide")
    told = {"0.tif": "LMS", "1.tif": "SS", "2.tif": "LMS", "3.tif": "SS"}
    rows = [(slides[n][0], label, HOSTILE if n in ("0.tif", "2.tif") else n) for n, label in told.items()]
    labels = table(tmp_path / "labels.csv", "path,label,patient", [*rows, (tmp_path / "broken.tif", "SS", "P9")])
    folder = model(tmp_path, "phantom-sts-subtype", min_tiles=1)
    facts = evaluate_model(str(folder), labels, tmp_path / "out")
    assert (facts["slides"], facts["patients"], facts["failed"], facts["withheld"]) == (4, 3, 1, 0)
    table_ = np.array(facts["confusion (last column: withheld)"])
    classes = facts["classes"]
    expected = np.zeros((5, 6), int)
    for n, label in told.items():
        expected[classes.index(label), classes.index(slides[n][1].spec.subtype)] += 1
    assert (table_ == expected).all()
    value, low, high = numbers(facts["accuracy (withheld counts as wrong)"])
    assert value == 0.75
    assert 0 <= low <= value <= high <= 1
    assert numbers(facts["balanced accuracy"])[0] == pytest.approx((1 + 1 / 2) / 2)
    with (tmp_path / "out/patients.csv").open(newline="") as f:
        assert HOSTILE in [r["patient"] for r in csv.DictReader(f)]


def test_withheld_calls_are_counted_and_are_not_right(slides: dict[str, Any], tmp_path: Path) -> None:
    """Tile images that are no phantoms: the phantom model has nothing to say of them."""
    rows = []
    for n in range(3):
        rgb, _ = make_phantom(Spec(90 + n, "LMS", 512, 512))
        Image.fromarray(rgb).save(tmp_path / f"tile{n}.png")
        rows.append((f"tile{n}.png", "LMS", f"P{n}", 0.5))
    folder = model(tmp_path, "phantom-sts-subtype", min_tiles=1)
    facts = evaluate_model(str(folder), table(tmp_path / "labels.csv", "path,label,patient,mpp", rows), tmp_path / "out")
    assert (facts["slides"], facts["withheld"]) == (3, 3)
    assert numbers(facts["accuracy (withheld counts as wrong)"]) == (0, 0, 0)
    assert np.array(facts["confusion (last column: withheld)"])[:, -1].tolist() == [0, 3, 0, 0, 0]


def test_a_detector_is_judged_by_its_points_pooled_over_slides(slides: dict[str, Any], tmp_path: Path) -> None:
    """Every mitosis of two phantoms, and ten points on one of them where there is none."""
    rows: list[tuple[Any, ...]] = []
    for name in ("0.tif", "2.tif"):
        path, truth = slides[name]
        rows += [(path, name, *p, "mitosis") for p in truth.mitoses]
        rows += [(path, name, *p, "lookalike") for p in truth.lookalikes]
    path, truth = slides["0.tif"]
    invented = [(path, "0.tif", x, 4.0, "mitosis") for x in np.linspace(10, 900, 10)]
    labels = table(tmp_path / "points.csv", "path,patient,x,y,label", [*rows, *invented])
    facts = evaluate_model("phantom-mitosis", labels, tmp_path / "out")
    real = sum(len(slides[n][1].mitoses) for n in ("0.tif", "2.tif"))
    assert real >= 20
    assert (facts["slides"], facts["patients"], facts["failed"], facts["radius_um"]) == (2, 2, 0, 7.5)
    assert facts["tp"] + facts["fn"] == real + 10
    assert real * 0.9 <= facts["tp"] <= real
    assert facts["fp"] <= 2
    tp, fp, fn = facts["tp"], facts["fp"], facts["fn"]
    for name, value in (("precision", tp / (tp + fp)), ("recall", tp / (tp + fn)), ("f1", 2 * tp / (2 * tp + fp + fn))):
        assert numbers(facts[name])[0] == pytest.approx(value)
        assert numbers(facts[name])[1] <= numbers(facts[name])[2]


def test_a_model_is_not_judged_on_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"not a slide")
    labels = table(tmp_path / "labels.csv", "path,label,patient", [("broken.tif", "SS", "P1")])
    with pytest.raises(LabelsError, match="no slide could be scored"):
        evaluate_model("phantom-sts-subtype", labels, tmp_path / "out")
    with pytest.raises(UsageError, match="survival"):
        evaluate_model("phantom-survival", labels, tmp_path / "out2")
