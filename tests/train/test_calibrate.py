"""Doubt that is learnt: temperature, sets with the coverage they state, tiles that are like nothing known, and what too few patients cannot tell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from wsikit.aggregate.calls import call_patient, call_slide
from wsikit.aggregate.doubt import poor_quality, prediction_set, tempered
from wsikit.aggregate.outlier import mark_tiles, outlying_tiles, squared_distance
from wsikit.errors import LabelsError, UsageError, WeightsMismatchError
from wsikit.models import BUNDLED, Card, check_model, read_card
from wsikit.train.calibrate import KnownTiles, calibrate_model, fit_conformal, learn

K = 3
CARD = {"name": "m", "pipeline": "sts-subtype", "task": "classify", "classes": ["A", "B", "C"], "licence": "none", "weights": {"sha256": "0" * 64}}
CARD |= {"trained_on": {"domain": "histology", "description": ""}, "decision": {"min_probability": 0.0, "min_tiles": 1}}


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def patients(rng: np.random.Generator, n: int, tiles: int = 12, sure: float = 1.0) -> KnownTiles:
    """Patients whose probabilities are true when ``sure`` is 1: the class is drawn from what the patient's logits say. Larger is surer than it should be."""
    z = rng.normal(0, 1.5, (n, K))
    label = np.array([rng.choice(K, p=p) for p in softmax(z)])
    owner = np.repeat(np.arange(n), tiles)
    probability = softmax(sure * z[owner]).astype(np.float32)
    return KnownTiles(probability, rng.normal(size=(n * tiles, 6)), label[owner], np.array([f"P{i}" for i in owner]), n)


def test_the_temperature_undoes_what_was_too_sure() -> None:
    rng = np.random.default_rng(0)
    for sure in (1.0, 3.0):
        found, _ = learn(patients(rng, 1500, 2, sure), "ABC", "simulated")
        assert found.temperature == pytest.approx(sure, rel=0.1)
        assert found.metrics["accuracy_after"] == found.metrics["accuracy_before"], "all tiles of a patient are alike here, so calls stay"
    assert found.metrics["ece_after"] < 0.04 < 0.1 < found.metrics["ece_before"]
    assert found.metrics["nll_after"] < found.metrics["nll_before"]


def test_a_few_patients_called_rightly_do_not_make_it_nearly_certain() -> None:
    """Without the prior the temperature would go to its lower end."""
    rng = np.random.default_rng(11)
    owner = np.repeat(np.arange(15), 8)
    probability = softmax(rng.normal(0, 0.3, (120, K)) + 1.2 * np.eye(K)[owner % K]).astype(np.float32)
    found, _ = learn(KnownTiles(probability, rng.normal(size=(120, 4)), owner % K, owner.astype(str), 15), "ABC", "simulated")
    assert found.metrics["accuracy_before"] == 1
    assert 0.3 < found.temperature < 0.9


def test_tempering_is_dividing_logits() -> None:
    z = np.random.default_rng(1).normal(0, 2, (20, K))
    assert tempered(softmax(z), 2.5) == pytest.approx(softmax(z / 2.5), abs=1e-12)
    extreme = tempered(np.array([[1.0, 0.0, 0.0]], np.float32), 4.0)
    assert np.isfinite(extreme).all()
    assert extreme.sum() == pytest.approx(1)


@pytest.mark.parametrize("coverage", [0.9, 0.8])
def test_sets_cover_as_often_as_stated(coverage: float) -> None:
    """Over many calibrations, new patients' sets hold the true class at least as often as stated, and not much more often."""
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(60):
        found, _ = learn(patients(rng, 60, 2, 2.0), "ABC", "simulated", coverage)
        card = Card(**CARD | {"calibration": found.model_dump()})
        new = patients(rng, 60, 2, 2.0)
        for g in new.by_patient():
            result = call_slide(card, new.probability[g])
            covered.append("ABC"[new.label[g[0]]] in result["set"])
            assert (result["status"] == "ok") == (len(result["set"]) == 1)
    assert coverage - 0.02 <= np.mean(covered) <= coverage + 0.03


def test_the_cutoff_is_the_order_statistic_of_split_conformal() -> None:
    p = np.random.default_rng(3).uniform(0.2, 1, 30)
    found = fit_conformal(np.stack([p, 1 - p], 1), np.zeros(30, int), 0.9)
    assert found is not None
    assert found.cutoff == sorted(1 - p)[27], "⌈31 · 0.9⌉ = 28th smallest"
    assert fit_conformal(np.stack([p, 1 - p], 1)[:8], np.zeros(8, int), 0.9) is None, "with 8 patients only the set of all classes would cover 90 %"
    assert fit_conformal(np.stack([p, 1 - p], 1)[:9], np.zeros(9, int), 0.9) is not None


def test_too_few_patients_leave_out_what_they_cannot_tell_and_it_says_so() -> None:
    found, tensors = learn(patients(np.random.default_rng(4), 5), "ABC", "simulated")
    assert (found.temperature, found.conformal, found.patients) == (1.0, None, 5)
    assert any("5 patients, 10 are needed" in n for n in found.notes)
    assert any("5 patients, 9 are needed for 90 % coverage" in n for n in found.notes)
    assert found.outliers is not None
    assert tensors["precision"].shape == (6, 6)
    alone, none = learn(patients(np.random.default_rng(4), 1), "ABC", "simulated")
    assert (alone.outliers, none) == (None, {})


def test_tiles_unlike_any_known_are_marked_and_withhold_the_call(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    n, d = 20, 32
    centre = np.zeros(d)
    centre[:4] = 5

    def tissue(count: int) -> np.ndarray:
        return centre + rng.normal(size=(count, d)) * np.linspace(0.1, 2, d)

    known = patients(rng, n, 20)
    known = KnownTiles(known.probability, tissue(n * 20), known.label, known.patient, n)
    found, tensors = learn(known, "ABC", "simulated")
    assert found.outliers is not None
    new = outlying_tiles(found.outliers, tensors, tissue(2000).astype(np.float16))
    assert 0.01 < new.mean() < 0.12, "about 5 % of new tiles of the same kind"
    other = outlying_tiles(found.outliers, tensors, (tissue(500) - 2 * centre).astype(np.float16))
    assert outlying_tiles(found.outliers, tensors, np.full((2, len(centre)), np.nan, np.float16)).all()
    assert other.mean() > 0.99
    card = Card(**CARD | {"calibration": found.model_dump() | {"conformal": None, "temperature": 1.0}})
    p = np.tile(np.array([[0.98, 0.01, 0.01]], np.float32), (500, 1))
    strange, usual = call_slide(card, p, other), call_slide(card, p, new[:500])
    assert strange["status"] == "abstained"
    assert strange["reason"].startswith("out of distribution: 100 % of the tiles look like nothing that the model was calibrated on")
    assert (strange["call"], usual["status"], usual["call"]) == ("", "ok", "A")
    assert usual["outlying"] < 0.12
    patient = call_patient(card, [strange, usual])
    assert patient["outlying"] == pytest.approx((strange["outlying"] + usual["outlying"]) / 2, abs=1e-5)
    assert patient["status"] == "abstained"


def test_the_thresholds_are_of_patients_whose_own_tiles_are_left_out() -> None:
    """With each patient a world of its own, a covariance of its own tiles would put the threshold far too low."""
    rng = np.random.default_rng(6)
    owner = np.repeat(np.arange(10), 20)
    feature = 4 * rng.normal(size=(10, 16))[owner] + 0.1 * rng.normal(size=(200, 16))
    tiles = KnownTiles(np.full((200, K), 1 / K, np.float32), feature, np.zeros(200, int), owner.astype(str), 10)
    found, tensors = learn(tiles, "ABC", "simulated")
    assert found.outliers is not None
    assert np.quantile(squared_distance(feature, tensors["mean"], tensors["precision"]), 0.95) < found.outliers.distance / 3
    fresh = 4 * rng.normal(size=(30, 16))
    assert outlying_tiles(found.outliers, tensors, fresh).mean() < 0.5


def test_distance_is_scipys_mahalanobis() -> None:
    from scipy.spatial.distance import mahalanobis

    rng = np.random.default_rng(12)
    x, mean = rng.normal(size=(5, 4)), rng.normal(size=4)
    precision = np.linalg.inv(np.cov(rng.normal(size=(50, 4)).T))
    assert squared_distance(x, mean, precision) == pytest.approx([mahalanobis(r, mean, precision) ** 2 for r in x])


def test_energy_is_minus_logsumexp_of_the_models_own_logits() -> None:
    rng = np.random.default_rng(7)
    tiles = patients(rng, 12, 10)
    weight, bias = rng.normal(size=(K, 6)), rng.normal(size=K)
    found, tensors = learn(tiles, "ABC", "simulated", last_layer=(weight, bias))
    assert found.outliers is not None
    assert found.outliers.energy is not None
    f = tiles.feature.astype(np.float16).astype(float)
    own = -np.log(np.exp(f @ weight.T + bias).sum(1))
    assert 0.93 < (own <= found.outliers.energy + 1e-5).mean() < 0.99
    quiet = f[:50] - 40 * np.linalg.pinv(weight) @ np.ones(K)
    assert outlying_tiles(found.outliers, tensors, quiet).all()


def test_reasons_are_told_together() -> None:
    rng = np.random.default_rng(8)
    found, _ = learn(patients(rng, 40), "ABC", "simulated")
    card = Card(**CARD | {"calibration": found.model_dump(), "decision": {"min_tiles": 10, "min_probability": 0.5}})
    p = np.full((4, K), 1 / K, np.float32)
    reason = call_slide(card, p, np.ones(4))["reason"]
    assert [part.split(":")[0] for part in reason.split("; ")] == [
        "only 4 tiles of tissue were scored, 10 are needed",
        "out of distribution",
        "not one class",
        "no class reaches probability 0.5",
    ]
    assert "A, B, C are all likely at 90 % coverage" in reason or "no class is likely enough at 90 % coverage" in reason


def test_a_slide_that_is_more_ink_than_tissue_is_withheld() -> None:
    assert poor_quality({"used": 10, "pen or dense blood": 6, "scanner black": 5}).startswith("quality: 11 of 21 tiles are under pen")
    assert poor_quality({"used": 10, "pen or dense blood": 10, "glass": 500, "too little tissue": 99}) == ""


def test_a_calibrated_model_is_whole_with_its_known_features(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED / "phantom-sts-subtype", tmp_path / "m"))
    before = read_card(folder)
    rng = np.random.default_rng(9)
    d = load_file(folder / "model.safetensors")["classifier.weight"].shape[1]
    owner = np.repeat(np.arange(30), 8)
    label = (owner % 5).astype(int)
    probability = softmax(rng.normal(size=(240, 5)) + 3 * np.eye(5)[label]).astype(np.float32)
    tiles = KnownTiles(probability, rng.normal(size=(240, d)), label, owner.astype(str), 30)
    card = calibrate_model(folder, tiles, "30 simulated patients")
    assert check_model(folder) == card
    assert card.digest != before.digest
    assert card.weights == before.weights
    assert card.calibration is not None
    assert card.calibration.outliers is not None
    assert set(load_file(folder / "doubt.safetensors")) == {"mean", "precision", "weight", "bias"}
    marks = mark_tiles(card, folder, np.concatenate([tiles.feature[:50], tiles.feature[:50] + 30]).astype(np.float16))
    assert marks is not None
    assert marks[:50].mean() < 0.2 < 0.9 < marks[50:].mean()
    assert prediction_set(card, np.array([0.99, 0.01, 0, 0, 0]))[0] == "DDLPS"
    (folder / "doubt.safetensors").write_bytes(b"other")
    with pytest.raises(WeightsMismatchError, match=r"doubt\.safetensors: sha256"):
        check_model(folder)
    said = json.loads((folder / "card.json").read_text())
    assert said["calibration"]["origin"] == "30 simulated patients"


def test_what_cannot_be_calibrated_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    tiles = patients(rng, 12)
    with pytest.raises(LabelsError, match="no tile of any patient"):
        learn(KnownTiles(tiles.probability[:0], tiles.feature[:0], tiles.label[:0], tiles.patient[:0], 0), "ABC", "x")
    both = KnownTiles(tiles.probability[:2], tiles.feature[:2], np.array([0, 1]), np.array(["P", "P"]), 1)
    assert len(both.by_patient()) == 2, "a patient with two kinds of tissue counts once for each"
    found, _ = learn(KnownTiles(tiles.probability, tiles.feature, tiles.label, np.full(len(tiles.label), "P"), 1), "ABCDE", "x")
    assert any(note.startswith("1 of 1 patients have labels of several classes") for note in found.notes)
    with pytest.raises(UsageError, match="a share between 0 and 1"):
        learn(tiles, "ABC", "x", 90)
    with pytest.raises(UsageError, match="only classifiers are calibrated"):
        calibrate_model(BUNDLED / "phantom-mitosis", tiles, "x")
