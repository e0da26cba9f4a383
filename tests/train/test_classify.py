"""A tiny classifier: it learns, it repeats, its folder loads, and what cannot be learnt is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsikit.errors import LabelsError
from wsikit.models import check_model, load_model
from wsikit.testing.phantom import write_pyramid
from wsikit.train.classify import Options, train_classifier
from wsikit.train.labels import Labelled
from wsikit.train.presets import PLAIN
from wsikit.train.recipe import Recipe, changed
from wsikit.train.tasks import subtype
from wsikit.train.tiles import Source


@pytest.fixture
def items(sheets: list[Any]) -> list[Labelled]:
    return [Labelled(s.path, s.truth.spec.subtype, s.patient, split="val" if n > 3 else "train") for n, s in enumerate(sheets)]


def quiet(_: str) -> None:
    """No log."""


def recipe(epochs: int, learning_rate: float = 2e-3) -> Recipe:
    return changed(PLAIN, {"batch": 8, "initial": "none", "stages": [{"epochs": epochs, "learning_rate": learning_rate}]}, "a test")


def test_a_few_steps_learn_two_tissues_and_the_folder_loads(items: list[Labelled], classifier_fields: dict[str, Any], draw_tiles: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    card = train_classifier(items, tmp_path / "m", classifier_fields, recipe(6, 0.02), Options(24, log=lines.append))
    assert lines[0] == "4 slides to train on, 2 to validate on, no patient in both"
    assert check_model(tmp_path / "m") == card
    validation = card.metrics["validation"]
    assert (validation["unit"], validation["patients"]) == ("tiles", 2)
    assert np.sum(validation["confusion"]) == validation["n"]
    model = load_model(tmp_path / "m")
    images, owner = draw_tiles([Source(i.path) for i in items[4:]], card, 24)
    called = model.predict(images)["probability"].argmax(1)
    truth = np.array([card.classes.index(i.label) for i in items[4:]])[owner]
    recalls = [float((called[truth == k] == k).mean()) for k in (0, 1)]
    assert np.mean(recalls) == pytest.approx(validation["balanced_accuracy"], abs=1e-4), "the card's figure is the loaded model's"
    assert np.mean(recalls) > 0.75


def test_one_seed_gives_one_model(items: list[Labelled], classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_classifier(items, tmp_path / name, classifier_fields, recipe(1), Options(5, seed, log=quiet))
        files.append([(tmp_path / name / f).read_bytes() for f in ("model.safetensors", "card.json")])
    assert files[0] == files[1]
    assert files[0][0] != files[2][0]


def test_a_class_without_tiles_is_refused_before_training(items: list[Labelled], classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="class LMS"):
        train_classifier(items, tmp_path / "m", classifier_fields | {"classes": ["LMS", "SS", "UPS"]}, recipe(1), Options(2, log=quiet))
    assert not (tmp_path / "m").exists()


def test_slides_of_glass_cannot_validate(items: list[Labelled], classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    write_pyramid(tmp_path / "glass.tif", np.full((512, 512, 3), 243, np.uint8), 0.5)
    labels = [*items[:4], Labelled(tmp_path / "glass.tif", "SS", "P9", split="val")]
    with pytest.raises(LabelsError, match="validate on"):
        train_classifier(labels, tmp_path / "m", classifier_fields, recipe(1), Options(2, log=quiet))


def test_the_task_reads_labels_and_says_what_the_model_has_seen(sheets: list[Any], classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    rows = [f"{s.path},{s.truth.spec.subtype},{s.patient}" for s in sheets]
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(["path,label,patient", *rows]) + "\n")
    tiny = recipe(1).model_copy(update={k: classifier_fields[k] for k in ("architecture", "tile_px", "batch", "mpp")})
    card = subtype("subtype", labels, tmp_path / "My Model!", tiny, Options(3, log=quiet))
    assert (card.name, card.pipeline, card.classes, card.mpp) == ("my-model", "sts-subtype", ["SS", "UPS"], 1.0)
    assert (card.trained_on.domain, card.trained_on.slides, card.trained_on.patients) == ("histology", 6, 6)
    assert json.loads((tmp_path / "My Model!" / "card.json").read_text())["weights"]["sha256"] == card.weights.sha256
    with pytest.raises(LabelsError, match="is none of DDLPS, LMS, MFS, SS, UPS"):
        labels.write_text(labels.read_text().replace("UPS,P0", "other,P0"))
        subtype("sts-subtype", labels, tmp_path / "n")
