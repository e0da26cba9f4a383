"""Slide level: attention over tiles learns from slides, its parts make up the whole, and a slide of many tiles needs little memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wsikit as wk
from wsikit.models import load_model
from wsikit.models._card import Card, Weights
from wsikit.models._mil import GatedAttention, MilNet, bag_probability
from wsikit.train.classify import Options
from wsikit.train.labels import Labelled
from wsikit.train.mil import BagLearner, Bags, mil_recipe, train_mil
from wsikit.train.parallel import Group
from wsikit.train.presets import PRESETS
from wsikit.train.recipe import changed


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
    bags = Bags(feature, start, label)
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
    card = train_mil(items, folder / "m", fields, recipe, Options(40, log=lambda _: None))
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
    assert told["for"][0][4] == pytest.approx(table["probability"][:, card.classes.index(told["class"])].max(), abs=1e-4)
    assert told["against"][0][4] == pytest.approx(table["probability"][:, card.classes.index(told["class"])].min(), abs=1e-4)


def test_its_folder_loads_and_an_empty_batch_has_its_columns(scored: tuple[Any, Any]) -> None:
    _, run = scored
    model = load_model(run.folder.parent / "m")
    found = model.predict(np.zeros((0, 64, 64, 3), np.uint8))
    assert {k: v.shape[0] for k, v in found.items()} == {"probability": 0, "feature": 0, "attention": 0}
