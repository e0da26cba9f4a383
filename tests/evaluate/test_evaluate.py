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

from wsikit.calibrate import calibrate
from wsikit.errors import LabelsError, UsageError
from wsikit.evaluate import evaluate_model
from wsikit.metrics import Interval
from wsikit.models import BUNDLED, check_model
from wsikit.testing.phantom import Spec, make_phantom, write_phantom
from wsikit.train import tasks
from wsikit.train.classify import Options
from wsikit.train.presets import PLAIN
from wsikit.train.recipe import changed

HOSTILE = "O\"Hara, Jr's"


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of tests need not be smooth."""
    monkeypatch.setattr("wsikit.evaluate.classifier.DRAWS", 50)


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
    told_levels = {level: set(rules) for level, rules in facts["metrics"].items()}
    assert told_levels == {"tile": {"mean probability"}, "slide": (both := {"mean probability", "share of tiles"}), "patient": both}
    assert facts["metrics"]["slide"]["mean probability"]["accuracy"].value == 0.75
    page = (tmp_path / "out/evaluation/index.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "Research use only" in page
    assert "AUROC micro" in page
    for level, rows_ in (("tiles", 20), ("slides", 4), ("patients", 3)):
        with (tmp_path / f"out/evaluation/{level}.csv").open(newline="") as f:
            found = list(csv.DictReader(f))
        assert list(found[0]) == ["Patient_ID", "Label", "Prediction", "DDLPS", "LMS", "MFS", "SS", "UPS"]
        assert len(found) == rows_ if level != "tiles" else len(found) > rows_
        assert sum(float(found[0][c]) for c in classes) == pytest.approx(1, abs=1e-5)


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
    assert [("phantoms" in reason, n) for reason, n in facts["why withheld"].items()] == [(True, 3)]
    assert "metrics" not in facts, "a phantom model's numbers on real tissue would look like numbers"
    assert np.array(facts["confusion (last column: withheld)"])[:, -1].tolist() == [0, 3, 0, 0, 0]


def test_tile_images_are_judged_as_training_saw_them(tmp_path: Path) -> None:
    """Crops of 64 px hold less tissue than a slide's smallest region, and each is one tile; a model of photographs or phantoms says nothing of them."""
    tiny = {"name": "densenet", "growth_rate": 4, "block_config": [1, 1], "num_init_features": 8, "bn_size": 2}
    values = {"architecture": tiny, "tile_px": 64, "mpp": 0.5, "batch": 8, "initial": "none", "stages": [{"epochs": 2, "learning_rate": 0.01}]}
    rows: list[tuple[Any, ...]] = []
    for n, kind in enumerate(["SS", "UPS"] * 6):
        rgb, _ = make_phantom(Spec(20 + n, kind, 256, 256))
        for k, (x, y) in enumerate([(64, 64), (128, 128)]):
            Image.fromarray(rgb[y : y + 64, x : x + 64]).save(tmp_path / f"{n}-{k}.png")
            rows.append((f"{n}-{k}.png", kind, f"P{n}", 0.5, "val" if n > 7 else "train"))
    labels = table(tmp_path / "labels.csv", "path,label,patient,mpp,split", rows)
    card = tasks.subtype("subtype", labels, tmp_path / "m", changed(PLAIN, values, "t"), Options(log=lambda _: None))
    assert card.decision.min_tiles == 1, "it learned from images of one tile"
    told = table(tmp_path / "val.csv", "path,label,patient,mpp,split", [r for r in rows if r[4] == "val"])
    facts = evaluate_model(str(tmp_path / "m"), told, tmp_path / "out")
    assert (facts["slides"], facts["patients"], facts["failed"]) == (8, 4, 0)
    assert "note" not in facts
    tiles = facts["metrics"]["tile"]["mean probability"]["balanced accuracy"].value
    assert tiles == pytest.approx(card.metrics["validation"]["balanced_accuracy"], abs=1e-4), "the card's own figure"
    learnt = calibrate(str(tmp_path / "m"), told, tmp_path / "calibrated").calibration
    assert learnt is not None
    assert (learnt.patients, learnt.slides) == (3, 6), "the stain of one cannot be measured; without slides no run has made the folder"
    (tmp_path / "cut.png").write_bytes((tmp_path / "8-0.png").read_bytes()[:300])
    told = [("cut.png", "SS", "P1", 0.5), ("8-0.png", "SS", "P8", 0.5), ("8-1.png", "UPS", "P8", 0.5), ("9-0.png", "UPS", "P9", "")]
    some = table(tmp_path / "some.csv", "path,label,patient,mpp", told)
    facts = evaluate_model(str(tmp_path / "m"), some, tmp_path / "some")
    assert (facts["slides"], facts["failed"]) == (2, 2), "one is cut short, and one has no mpp"
    assert facts["note"].startswith("1 of 1 patients have labels of several classes")


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
    tissue_mm2 = sum(slides[n][1].tissue_mm2 for n in ("0.tif", "2.tif"))
    assert facts["tissue_mm2"] == pytest.approx(tissue_mm2, rel=0.1)
    assert numbers(facts["fp_per_mm2"])[0] == pytest.approx(facts["fp"] / facts["tissue_mm2"], rel=1e-3)
    assert facts["tp"] + facts["fn"] == real + 10
    assert real * 0.9 <= facts["tp"] <= real
    assert facts["fp"] <= 2
    tp, fp, fn = facts["tp"], facts["fp"], facts["fn"]
    for name, value in (("precision", tp / (tp + fp)), ("recall", tp / (tp + fn)), ("f1", 2 * tp / (2 * tp + fp + fn))):
        assert numbers(facts[name])[0] == pytest.approx(value)
        assert numbers(facts[name])[1] <= numbers(facts[name])[2]


def test_points_beyond_a_slide_and_slides_kept_for_training_are_no_misses(slides: dict[str, Any], tmp_path: Path) -> None:
    path, truth = slides["0.tif"]
    w, h = truth.spec.width, truth.spec.height
    labels = table(tmp_path / "points.csv", "path,patient,x,y,label", [(path, "A", w + 5, 4.0, "mitosis")])
    with pytest.raises(LabelsError, match=f"is outside of the slide of {w} × {h} px"):
        evaluate_model("phantom-mitosis", labels, tmp_path / "out")
    rows = [(path, "A", w + 5, 4.0, "mitosis", "train"), (slides["2.tif"][0], "B", 4.0, 4.0, "mitosis", "test")]
    facts = evaluate_model("phantom-mitosis", table(tmp_path / "split.csv", "path,patient,x,y,label,split", rows), tmp_path / "out")
    assert (facts["slides"], facts["tp"], facts["fn"]) == (1, 0, 1)


def test_a_model_is_not_judged_on_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"not a slide")
    labels = table(tmp_path / "labels.csv", "path,label,patient", [("broken.tif", "SS", "P1")])
    with pytest.raises(LabelsError, match="no slide could be scored"):
        evaluate_model("phantom-sts-subtype", labels, tmp_path / "out")
    with pytest.raises(UsageError, match="survival"):
        evaluate_model("phantom-survival", labels, tmp_path / "out2")


def test_a_calibration_goes_into_a_new_model_and_is_used(slides: dict[str, Any], tmp_path: Path) -> None:
    """Four patients are too few for sets, which it says; what is unlike their tissue is known, and another tissue's call withheld."""
    rows = [(path, truth.spec.subtype, name) for name, (path, truth) in slides.items()]
    labels = table(tmp_path / "labels.csv", "path,label,patient", rows)
    folder = model(tmp_path, "phantom-sts-subtype", min_tiles=1)
    card = calibrate(str(folder), labels, tmp_path / "calibrated")
    assert card.calibration is not None
    assert (card.calibration.patients, card.calibration.slides, card.calibration.conformal) == (4, 4, None)
    assert any("4 patients, 9 are needed" in note for note in card.calibration.notes)
    assert check_model(tmp_path / "calibrated") == card
    facts = evaluate_model(str(tmp_path / "calibrated"), labels, tmp_path / "out")
    assert (facts["withheld"], facts["sets (patients)"]) == (0, {})
    assert "4 patients (the patients of labels.csv)" in (tmp_path / "out/evaluation/index.html").read_text()
    with pytest.raises(UsageError, match="holds a model already"):
        calibrate(str(folder), labels, tmp_path / "calibrated")
    with pytest.raises(UsageError, match="only classifiers"):
        calibrate("phantom-mitosis", labels, tmp_path / "other")
