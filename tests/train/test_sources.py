"""Tile images and kept stores give the tiles that the slide itself gives; folds and sites hold out whole patients."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsikit.errors import LabelsError, MissingResolutionError
from wsikit.models import Card
from wsikit.run import Run
from wsikit.slide import open_slide
from wsikit.train.classify import Options, train_classifier
from wsikit.train.labels import Labelled, outer_folds
from wsikit.train.presets import PRESETS
from wsikit.train.recipe import changed
from wsikit.train.tiles import Look, Source


@pytest.fixture
def card(classifier_fields: dict[str, Any]) -> Card:
    return Card(**classifier_fields, weights={"sha256": "0" * 64})


@pytest.fixture
def pictures(sheets: list[Any], tmp_path: Path) -> list[Source]:
    """Four squares of 128 px of each of two slides, as PNG."""
    found = []
    for n, s in enumerate(sheets[:2]):
        with open_slide(s.path) as slide:
            for k in range(4):
                path = tmp_path / f"{n}-{k}.png"
                Image.fromarray(slide.read((256 + 128 * k, 256, 128, 128))).save(path)
                found.append(Source(path, 0.5, s.patient))
    return found


def test_a_tile_image_gives_all_its_whole_tiles_in_its_patients_colours(pictures: list[Source], sheets: list[Any], card: Card, draw_tiles: Any) -> None:
    bare = card.model_copy(update={"mpp": 0.5, "stain": "none"})
    images, owner = draw_tiles(pictures, bare, 1)
    assert owner.tolist() == [i for i in range(8) for _ in range(4)], "2 × 2 tiles of 64 px in 128 px, however many a slide gives"
    with open_slide(sheets[0].path) as slide:
        assert np.array_equal(images[3], slide.read((320, 320, 64, 64)))
    stained, _ = draw_tiles(pictures, card.model_copy(update={"mpp": 0.5}), 1)
    look = Look.at(sheets[0].path, card.model_copy(update={"mpp": 0.5}))
    assert np.abs(stained[3].astype(int) - look.read(320, 320, 64)).mean() < 12, "about the slide's own stain fit, from its tiles alone"
    coarse, _ = draw_tiles(pictures, card, 1)
    assert len(coarse) == 8, "64 px at 1 µm/px are the whole picture"


def test_a_tile_image_without_mpp_or_too_small_is_refused(pictures: list[Source], card: Card, draw_tiles: Any) -> None:
    with pytest.raises(MissingResolutionError):
        draw_tiles([Source(pictures[0].path)], card, 1)
    with pytest.raises(LabelsError, match="has 64 × 64 px at 1 µm/px, a tile has 128"):
        draw_tiles(pictures[:1], card.model_copy(update={"tile_px": 128}), 1)


def test_a_kept_store_gives_the_slides_tiles(scored: Run, phantom: Any, card: Card, draw_tiles: Any) -> None:
    store = scored.folder / "slides/lms.zarr"
    fine = card.model_copy(update={"mpp": 0.5})
    kept, slide = (draw_tiles([Source(path)], fine, 5)[0] for path in (store, phantom.path))
    assert np.array_equal(kept, slide)
    with pytest.raises(LabelsError, match="kept with stain 'macenko', the model is to see 'reinhard'"):
        draw_tiles([Source(store)], fine.model_copy(update={"stain": "reinhard"}), 1)


def labelled(spec: str) -> list[Labelled]:
    """Slides from words such as ``P1:LMS:Mainz:2``: patient, class, site, fold."""
    parts = [word.split(":") for word in spec.split()]
    return [Labelled(Path(f"{n}.svs"), p[1], p[0], site=p[2] if len(p) > 2 else "", fold=p[3] if len(p) > 3 else "") for n, p in enumerate(parts)]


def test_folds_hold_out_whole_patients_of_every_class_once() -> None:
    items = labelled(" ".join(f"P{n}:{c}" for n, c in enumerate("ABABABABAB") for _ in range(1 + n % 3)))
    folds = outer_folds(items, 5)
    held = [{i.patient for i in part} for _, part in folds]
    assert sorted(p for part in held for p in part) == sorted({i.patient for i in items})
    assert all({i.label for i in part} == {"A", "B"} for _, part in folds)
    with pytest.raises(LabelsError, match="6 folds need as many patients of each class; the rarest has 5"):
        outer_folds(items, 6)


def test_named_folds_and_sites_come_first() -> None:
    items = labelled("P1:A:x:1 P2:A:y:2 P3:B:x:2 P4:B:y:1")
    assert [(n, [i.patient for i in part]) for n, part in outer_folds(items, 9)] == [("1", ["P1", "P4"]), ("2", ["P2", "P3"])]
    assert [(n, [i.patient for i in part]) for n, part in outer_folds(items, 0, by_site=True)] == [("x", ["P1", "P3"]), ("y", ["P2", "P4"])]
    for spec, says in {"P1:A:x P1:A:y": "patient P1 was seen at more than one site", "P1:A:x P2:A": "must name at least two"}.items():
        with pytest.raises(LabelsError, match=says):
            outer_folds(labelled(spec), 0, by_site=True)
    with pytest.raises(LabelsError, match="column 'fold' must name"):
        outer_folds(labelled("P1:A:x:1 P2:A:x"), 2)


def test_cross_validation_predicts_each_patient_once_by_models_that_never_saw_it(sheets: list[Any], classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    items = [Labelled(s.path, s.truth.spec.subtype, s.patient) for s in sheets]
    recipe = changed(PRESETS["plain"], {"architecture": classifier_fields["architecture"], "batch": 8, "initial": "none", "validation_share": 0.4}, "t")
    lines: list[str] = []
    card = train_classifier(items, tmp_path / "m", classifier_fields, recipe.shortened(1), Options(4, folds=3, log=lines.append))
    found = card.metrics["cross_validation"]
    assert (found["by"], found["patients"], len(found["folds"])) == ("patient", 6, 3)
    assert [line for line in lines if line.startswith("fold")] == [f"fold {k}: 2 patients held out" for k in (1, 2, 3)]
    with (tmp_path / "m/training/cross_validation.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert sorted(r["Patient_ID"] for r in rows) == [f"P{n}" for n in range(6)]
    assert list(rows[0]) == ["Patient_ID", "Label", "Prediction", "SS", "UPS"]
    for r in rows:
        assert float(r["SS"]) + float(r["UPS"]) == pytest.approx(1, abs=1e-5)
        assert r["Prediction"] == max(("SS", "UPS"), key=lambda c: float(r[c]))
