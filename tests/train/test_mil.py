"""Slide level: attention over tiles learns from slides, its parts make up the whole, and a slide of many tiles needs little memory."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import wsikit as wk
from wsikit.aggregate.calls import attention_weights, bag_probability, call_patient, call_slide
from wsikit.calibrate import calibrate
from wsikit.errors import UsageError
from wsikit.geometry import Size
from wsikit.grid import Raster, TileGrid
from wsikit.models import load_model
from wsikit.models._cam import GradCam
from wsikit.models._card import Card, Decision, Weights
from wsikit.models._mil import GatedAttention, MilNet
from wsikit.overlay.grad_cam import assemble
from wsikit.run.job import read_run
from wsikit.train.classify import Options
from wsikit.train.labels import Labelled
from wsikit.train.mil import BagLearner, Bags, mil_recipe, train_mil
from wsikit.train.parallel import Group
from wsikit.train.presets import PRESETS
from wsikit.train.recipe import changed
from wsikit.train.tiles import Look


def test_a_slide_put_together_from_its_tiles_is_the_attention_over_all() -> None:
    torch.manual_seed(0)
    net, x = GatedAttention(12, 3, 16), torch.randn(50, 12)
    tile, attention = net(x)
    h = net.project(x)
    whole = torch.softmax(net.head(torch.softmax(attention, 0) @ h), 0)
    parts = bag_probability(torch.softmax(tile, 1).detach().numpy(), attention.detach().numpy())
    assert np.allclose(parts, whole.detach().numpy(), atol=1e-6)


def test_few_telling_tiles_among_many_are_found_in_bags_of_100000(tmp_path: Path, classifier_fields: dict[str, Any]) -> None:
    """One in 20 tiles of class b is different; the mean over tiles would hardly move."""
    rng = np.random.default_rng(0)
    sizes, label = [100_000, 400, 300, 500, 400, 300], np.array([1, 0, 1, 0, 1, 0])
    start = np.concatenate([[0], np.cumsum(sizes)])
    feature = np.memmap(tmp_path / "f", np.float16, "w+", shape=(int(start[-1]), 8))
    for i, n in enumerate(sizes):
        x = rng.normal(0, 1, (n, 8))
        x[: n // 20, 0] += 6 * label[i]
        feature[start[i] : start[i + 1]] = x
    bags = Bags(feature, start, label, np.arange(6))
    card = Card(**classifier_fields, weights=Weights(sha256="0" * 64))
    recipe = changed(mil_recipe(PRESETS["plain"]), {"stages": [{"epochs": 25, "learning_rate": 5e-3, "schedule": "cosine"}]}, "t")
    torch.manual_seed(0)
    learner = BagLearner(MilNet(torch.nn.Identity(), 8, 2, 32), card, recipe, bags, bags)
    from wsikit.train.fit import fit

    fit(learner, recipe, tmp_path, "k", log=lambda _: None)
    probability = learner.answers(Group())
    assert (probability.argmax(1) == label).all()
    with torch.inference_mode():
        tile, attention = learner.net(bags.take(4))
    assert attention[: sizes[4] // 20].mean() > attention[sizes[4] // 20 :].mean(), "the telling tiles are looked at"
    assert np.allclose(bag_probability(torch.softmax(tile, 1).numpy(), attention.numpy()), probability[4], atol=1e-4)


@pytest.fixture(scope="module")
def scored(sheets: list[Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("mil")
    items = [Labelled(s.path, s.truth.spec.subtype, s.patient, split="val" if n > 3 else "train") for n, s in enumerate(sheets)]
    tiny = {"name": "densenet", "growth_rate": 4, "block_config": [1, 1], "num_init_features": 8, "bn_size": 2}
    fields = {
        "name": "mil", "pipeline": "sts-subtype", "task": "classify", "classes": ["SS", "UPS"], "architecture": {"name": "mil", "encoder": tiny}, "mpp": 1.0,
        "tile_px": 64, "batch": 8, "licence": "none", "trained_on": {"domain": "phantom", "description": "a test"}, "decision": {"min_probability": 0.5},
    }  # fmt: skip
    recipe = changed(mil_recipe(PRESETS["plain"]), {"initial": "none", "tile_px": 64, "stages": [{"epochs": 20, "learning_rate": 1e-2}]}, "t")
    card = train_mil(items, folder / "m", fields, recipe, Options(40, folds=2, log=lambda _: None))
    return card, wk.score([sheets[5].path], folder / "out", ["sts-subtype"], models={"sts-subtype": folder / "m"})


def test_trained_from_slides_it_scores_them_and_says_where_it_looked(scored: tuple[Any, Any]) -> None:
    card, run = scored
    assert card.metrics["validation"]["unit"] == "slides"
    (slide_id,) = run.results
    store, result = run.store(slide_id), run.results[slide_id]["pipelines"]["sts-subtype"]
    table = store.tables()["sts-subtype"]
    expected = bag_probability(table["probability"], table["attention"])
    assert [result["probability"][c] for c in card.classes] == pytest.approx(expected.tolist(), abs=1e-6)
    heat = store.overlay("sts-subtype")
    assert heat.channels == ("SS", "UPS", "attention")
    assert np.nanmax(heat.values[2]) == 1
    told = result["tiles"]
    k, weight = card.classes.index(told["class"]), np.exp(table["attention"] - table["attention"].max())
    adds = weight * (np.log(table["probability"][:, k]) - np.log(table["probability"]).mean(1))  # to the slide's logit, beyond all classes' mean
    for side, best in (("for", adds.argmax()), ("against", adds.argmin())):
        assert told[side][0][:2] == table["origin"][best].tolist()
        assert told[side][0][4] == pytest.approx(table["probability"][best, k], abs=1e-4)


def test_its_attention_and_what_speaks_in_its_tiles_are_pictures_of_the_report(scored: tuple[Any, Any]) -> None:
    """Slide, quality, class, attention, Grad-CAM: five panels; the last is asked for later."""
    _, run = scored
    (slide_id,), model = run.results, run.folder.parent / "m"
    path = read_run(run.folder)["job"]["slides"][0]["path"]
    more = wk.score([path], run.folder, ["sts-subtype"], models={"sts-subtype": model}, explain=["sts-subtype"])
    assert more.results[slide_id]["pipelines"]["sts-subtype"]["status"] == "ok"
    store = more.store(slide_id)
    about = store.about_overlay("sts-subtype-grad-cam")
    assert about["layer"] == "encoder.features"
    assert about["method"].endswith(", each tile weighted by its attention")
    table, heat = store.tables()["sts-subtype"], store.overlay("sts-subtype-grad-cam").values * about["logits_at_1"]
    weight = np.exp(table["attention"].astype(float) - table["attention"].max())
    weight /= weight.sum()
    look, network = Look.at(Path(path), scored[0]), load_model(model)
    cells = (table["origin"] / table["size"]).round().astype(int)
    tiles = np.stack([look.read(x * 64, y * 64, 64) for x, y in cells.tolist()])
    alone = GradCam(network, scored[0].classes)(tiles)  # of each tile's own logits
    side = about["squares_per_tile"]
    for (x, y), w, expected in zip(cells.tolist(), weight, alone, strict=True):
        found = heat[:, y * side : (y + 1) * side, x * side : (x + 1) * side]
        assert found.mean((1, 2)) == pytest.approx(w * expected.mean((1, 2)), rel=0.02, abs=1e-3 * float(np.nanmax(heat)))
    said = more.results[slide_id]["pipelines"]["sts-subtype"]["explanation"]["logits_at_1"]
    assert said == pytest.approx(about["logits_at_1"], rel=1e-5), "however small the share of a tile is"
    width = Image.open(run.folder / f"slides/{slide_id}.png").width
    panel, left = divmod(width + 8, 5)
    assert (left, panel > 640) == (0, True)


def test_a_tile_without_attention_shows_nothing_of_what_it_would_say() -> None:
    grid = TileGrid(Raster(0, (1.0, 1.0), (1.0, 1.0), Size(256, 64), (0.5, 0.5)), 64)
    maps = np.full((4, 1, 2, 2), 3, np.float32)
    weight = attention_weights(np.array([0.0, 9.0, -40.0, 0.0], np.float32)).astype(np.float32)
    heat, top = assemble(grid, 1, [(grid.all_cells(), maps * weight[:, None, None, None])], 1.0)
    assert (heat[0, :, 2:4] == 1).all(), "the tile that is looked at is full, though hardly any other shows"
    assert heat[0, :, [0, 1, 4, 5, 6, 7]].max() < 2e-4
    assert top == pytest.approx(3 * weight[1])


def test_folds_and_doubt_are_over_slides_and_their_patients(scored: tuple[Any, Any]) -> None:
    """Six patients cannot tell a temperature nor sets, and the card says so; what is unlike known tissue is told by tiles."""
    card, run = scored
    crossed = card.metrics["cross_validation"]
    assert (crossed["unit"], crossed["n"], crossed["patients"], crossed["by"]) == ("slides", 6, 6, "patient")
    assert [f["patients"] for f in crossed["folds"]] == [3, 3]
    folder = run.folder.parent / "m/training"
    with (folder / "cross_validation.csv").open() as f:
        assert sorted(r["Patient_ID"] for r in csv.DictReader(f)) == [f"P{n}" for n in range(6)]
    assert not list(folder.rglob("*.tiles"))
    found = card.calibration
    assert (found.patients, found.slides, found.temperature, found.conformal) == (2, 2, 1, None)
    assert [note.split(":")[0] for note in found.notes] == ["temperature left at 1", "no sets of classes"]
    assert found.outliers.energy is None
    (result,) = (r["pipelines"]["sts-subtype"] for r in run.results.values())
    assert 0 <= result["outlying"] < 0.5, "a slide that it knows"


def test_a_slide_called_as_one_is_tempered_once_and_counts_once(scored: tuple[Any, Any]) -> None:
    card = scored[0].model_copy(update={"calibration": scored[0].calibration.model_copy(update={"temperature": 2.0}), "decision": Decision(min_tiles=1)})
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1], 30).astype(np.float32)
    few, many = (call_slide(card, part, None, rng.normal(size=len(part)).astype(np.float32)) for part in (p[:5], p))
    attention = np.random.default_rng(0)
    attention.dirichlet([1, 1], 30)
    plain = bag_probability(p[:5], attention.normal(size=5).astype(np.float32))
    odds = np.sqrt(plain[0] / plain[1])
    assert few["probability"]["SS"] == pytest.approx(odds / (1 + odds), abs=1e-6)
    patient = call_patient(card, [few, many])
    assert patient["probability"]["SS"] == pytest.approx((few["probability"]["SS"] + many["probability"]["SS"]) / 2, abs=1e-6)
    assert patient["n_tiles"] == 35


def test_calibrated_on_labelled_slides_it_is_by_slides(scored: tuple[Any, Any], sheets: list[Any], tmp_path: Path) -> None:
    rows = [f"{s.path},{s.truth.spec.subtype},{s.patient}" for s in sheets[:4]]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,patient", *rows]) + "\n")
    card = calibrate(str(scored[1].folder.parent / "m"), tmp_path / "labels.csv", tmp_path / "c")
    assert card.calibration is not None
    assert (card.calibration.patients, card.calibration.slides) == (4, 4)
    assert card.calibration.outliers is not None
    run = [json.loads(p.read_text())["pipelines"]["sts-subtype"]["probability"] for p in sorted((tmp_path / "c/calibration/slides").glob("*.json"))]
    truth = [s.truth.spec.subtype for s in sheets[:4]]
    nll = -np.mean([np.log(p[t]) for p, t in zip(run, truth, strict=True)])
    assert card.calibration.metrics["nll_before"] == pytest.approx(nll, abs=1e-3), "of the slides' own probabilities, not of tiles"


def test_it_trains_in_one_process(classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without torchrun"):
        train_mil([], tmp_path / "m", classifier_fields, mil_recipe(PRESETS["plain"]), group=Group(0, 2))


def test_its_folder_loads_and_an_empty_batch_has_its_columns(scored: tuple[Any, Any]) -> None:
    _, run = scored
    model = load_model(run.folder.parent / "m")
    found = model.predict(np.zeros((0, 64, 64, 3), np.uint8))
    assert {k: v.shape[0] for k, v in found.items()} == {"probability": 0, "feature": 0, "outlying": 0, "attention": 0}
