"""Tissue that a model knows is told from tissue of another kind by its own network's maps, in the run's answers and in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wsikit as wk
from wsikit.errors import CardError, ModelError, WeightsMismatchError
from wsikit.models import check_model, family, load_model, read_card
from wsikit.models._card import Card, Weights, write_model
from wsikit.testing.phantom import Spec, write_phantom
from wsikit.train.calibrate import KnownTiles, calibrate_model
from wsikit.train.known import known_tissue
from wsikit.train.labels import Labelled

FIELDS: dict[str, Any] = {
    "name": "tiny", "pipeline": "sts-subtype", "task": "classify", "classes": ["SS", "UPS"], "mpp": 1.0, "tile_px": 64, "batch": 8, "licence": "none",
    "architecture": {"name": "densenet", "growth_rate": 4, "block_config": [1, 1], "num_init_features": 8, "bn_size": 2},
    "trained_on": {"domain": "phantom", "description": "a test"}, "decision": {"min_probability": 0.0, "min_tiles": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def knowing(sheets: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was not even trained, and knows tissue of one kind, of three patients."""
    folder = tmp_path_factory.mktemp("knowing") / "m"
    torch.manual_seed(0)
    net = family("sts-subtype").build(Card(**FIELDS, weights=Weights(sha256="0" * 64)))
    write_model(folder, FIELDS, net.state_dict())
    learn(folder, sheets)
    return folder


def learn(folder: Path, sheets: list[Any]) -> KnownTiles:
    tissue = known_tissue(folder, [Labelled(s.path, "UPS", s.patient) for s in sheets if s.truth.spec.subtype == "UPS"])
    assert tissue is not None
    rows = KnownTiles(np.full((len(tissue.label), 2), 0.5, np.float32), np.empty((len(tissue.label), 0)), tissue.label, tissue.patient, 3)
    calibrate_model(folder, rows, "three phantoms", tissue=tissue)
    return tissue


def test_tissue_of_another_kind_is_flagged_and_that_of_a_new_patient_is_not(knowing: Path, tmp_path: Path) -> None:
    """At most 5 % of a new patient's tiles are beyond the threshold; of small cells in nests about 80 %, though the network was not trained at all."""
    for name, seed in (("UPS", 90), ("ARMS", 95)):
        write_phantom(tmp_path / f"{name}.tif", Spec(seed, name, 1024, 768))
    run = wk.score(sorted(tmp_path.glob("*.tif")), tmp_path / "run", ["sts-subtype"], models={"sts-subtype": knowing})
    known, other = (run.results[name]["pipelines"]["sts-subtype"] for name in ("UPS", "ARMS"))
    assert known["outlying"] <= 0.05
    assert "out of distribution" not in known["reason"]
    assert other["outlying"] > 0.7
    assert (other["status"], other["call"]) == ("abstained", "")
    assert "% of the tiles look like nothing that the model was calibrated on (more than 50 %)" in other["reason"]
    marks = run.store("ARMS").tables()["sts-subtype"]["outlying"]
    assert marks.dtype == np.uint8
    assert other["outlying"] == pytest.approx(marks.mean(), abs=1e-6)


def test_the_threshold_keeps_95_percent_of_patients_tiles_and_learning_again_gives_the_same_bytes(knowing: Path, sheets: list[Any], tmp_path: Path) -> None:
    again = Path(shutil.copytree(knowing, tmp_path / "again"))
    tissue = learn(again, sheets)
    assert [(again / f).read_bytes() for f in ("card.json", "doubt.safetensors")] == [(knowing / f).read_bytes() for f in ("card.json", "doubt.safetensors")]
    card = check_model(again)
    assert card.calibration is not None
    assert card.calibration.outliers is not None
    assert card.calibration.outliers.layers == tissue.layers == ["features.relu0", "features.transition1.conv"]
    assert card.calibration.outliers.energy is None, "one threshold, which 95 % keep; two would keep fewer"
    model: Any = load_model(again)
    assert 0.93 < 1 - model.known.outlying(tissue.feature).mean() <= 1, "patients whose own tiles are in the mean are nearer than new ones"


def test_rules_that_are_not_the_cards_are_refused(knowing: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(knowing, tmp_path / "m"))
    said = json.loads((folder / "card.json").read_text())
    rules = said["calibration"]["outliers"]
    ways = (["features.gone"], CardError, "about a layer that its network has not"), (rules["layers"][:1], ModelError, "are for 14 features")
    for layers, error, message in ways:
        (folder / "card.json").write_text(json.dumps(said | {"calibration": said["calibration"] | {"outliers": rules | {"layers": layers}}}))
        with pytest.raises(error, match=message):
            load_model(folder).predict(np.zeros((1, 64, 64, 3), np.uint8))
    (folder / "card.json").write_text(json.dumps(said))
    data = bytearray((folder / "doubt.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "doubt.safetensors").write_bytes(data)
    with pytest.raises(WeightsMismatchError, match=r"doubt\.safetensors: sha256"):
        load_model(folder)


def test_an_onnx_file_of_it_says_that_it_has_no_such_rules(knowing: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from wsikit.models.exchange.onnx import export_onnx

    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    model: Any = load_model(export_onnx(knowing, tmp_path / "m.onnx"))
    theirs, ours = model.predict(images), load_model(knowing).predict(images)
    assert np.allclose(theirs["probability"], ours["probability"], atol=1e-4)
    assert theirs["feature"].shape == ours["feature"].shape
    assert (model.card.calibration.outliers, "outlying" in theirs, "outlying" in ours) == (None, False, True)
    assert model.card.calibration.notes[-1].startswith("no rules for what looks like nothing known: an ONNX file does not hold them")
    assert read_card(knowing).calibration is not None
