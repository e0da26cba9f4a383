"""Synthetic tiles: of the class asked for, no copies, only where tiles are trained on; and what they are worth is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsikit.errors import UsageError
from wsikit.models._card import Card, Weights
from wsikit.train.acgan import synthesise, train_acgan
from wsikit.train.classify import Options, train_classifier
from wsikit.train.held import HeldOut
from wsikit.train.labels import Labelled
from wsikit.train.learner import Tiles
from wsikit.train.presets import PLAIN
from wsikit.train.recipe import changed
from wsikit.train.synthetic import Synthesis, effect, nearness, with_synthetic

SIDE = 16


def blots(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pale tiles with a blot somewhere, violet for class 0, red for class 1: uint8 (N, 16, 16, 3)."""
    images = np.full((len(label), SIDE, SIDE, 3), 225.0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for image, k in zip(images, label, strict=True):
        cy, cx = rng.uniform(4, 12, 2)
        there = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 12)[..., None]
        image += there * (np.array([[70, 30, 140], [190, 40, 40]])[k] - 225)
    return np.clip(images + rng.normal(0, 4, images.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def tiles() -> Tiles:
    label = np.repeat([0, 1], [24, 8])
    return Tiles(blots(label, np.random.default_rng(0)), label)


@pytest.fixture(scope="module")
def made(tiles: Tiles) -> np.ndarray:
    """32 synthetic tiles of each class."""
    generator = train_acgan(tiles.images, tiles.label, 2, 250, seed=2, width=12, log=lambda _: None)
    return synthesise(generator, np.repeat([0, 1], 32), seed=2)


def redness(images: np.ndarray) -> np.ndarray:
    """Mean red less blue of each tile: that of class 1 is higher."""
    return np.asarray((images[..., 0].astype(float) - images[..., 2]).mean((1, 2)))


def test_tiles_are_of_the_class_that_was_asked_for(tiles: Tiles, made: np.ndarray) -> None:
    between = (redness(tiles.images[:24]).mean() + redness(tiles.images[24:]).mean()) / 2
    assert (redness(made[:32]) < between).mean() > 0.85
    assert (redness(made[32:]) > between).mean() > 0.85


def test_the_same_seed_makes_the_same_tiles(tiles: Tiles) -> None:
    first, second, other = (synthesise(train_acgan(tiles.images, tiles.label, 2, 1, seed=s, width=4, log=lambda _: None), tiles.label) for s in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_copies_are_seen_even_when_turned() -> None:
    rng = np.random.default_rng(5)
    real = blots(np.zeros(96, int), rng)
    assert nearness(real, np.rot90(real[:40], 1, (1, 2)).copy())["to_real"] == 0
    alike = nearness(real, np.repeat(blots(np.zeros(1, int), rng), 30, 0))
    assert alike["among"] == 0
    fresh = nearness(real, blots(np.zeros(96, int), rng))
    assert 0.7 < fresh["to_real"] < 1.4
    assert 0.7 < fresh["among"] < 1.4


def test_each_class_has_the_same_share_of_synthetic_tiles_and_real_ones_stay_first(tiles: Tiles, classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    """So that what looks made up says nothing of the class."""
    card = Card(**classifier_fields | {"tile_px": SIDE}, weights=Weights(sha256="0" * 64))
    whole = with_synthetic(tiles, card, Synthesis(1, True, 0, "cpu", tmp_path, lambda _: None), tmp_path / "more.tiles")
    assert np.bincount(whole.label[:32]).tolist() == np.bincount(whole.label[32:]).tolist() == [24, 8]
    assert np.array_equal(whole.images[:32], tiles.images)
    assert not (whole.images[32:] == tiles.images).all((1, 2, 3)).any()
    facts = json.loads((tmp_path / "acgan.json").read_text())
    assert (facts["synthetic"], facts["real"]) == ({"SS": 24, "UPS": 8}, {"SS": 24, "UPS": 8})
    with Image.open(tmp_path / "acgan.png") as sheet:
        assert sheet.size == (1000, 450)
    with pytest.raises(UsageError, match="16, 32, 64, 128 px, and these have 24; give --tile 64"):
        train_acgan(np.zeros((4, 24, 24, 3), np.uint8), np.array([0, 0, 1, 1]), 2, 1)


def test_the_difference_is_of_the_same_tiles_with_an_interval_over_patients() -> None:
    """Ten patients of ten tiles; without, all tiles of class b are wrong of five patients; with, none."""
    items = [Labelled(Path("x"), "ab"[p % 2], f"P{p}") for p in range(20)]
    owner = np.repeat(np.arange(20), 10)
    truth = owner % 2
    wrong = (truth == 1) & (owner < 10)
    plain, mixed = (np.eye(2)[np.where(wrong & (which == 0), 1 - truth, truth)] for which in (0, 1))
    found = effect(*(HeldOut(items, owner, p, np.empty((200, 0)), "ab") for p in (mixed, plain)), "a test")
    value, low, high = found["difference"]
    assert (found["balanced_accuracy_with"], found["balanced_accuracy_without"], value) == (1, 0.75, 0.25)
    assert 0 < low < 0.25 < high <= 0.5
    assert found["recall_with_and_without"] == {"a": [1, 1], "b": [1, 0.5]}


def test_training_with_synthetic_tiles_says_so_and_measures_them(classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    """Validation and test have real tiles only; off by default, and then nothing changes."""
    rng, items = np.random.default_rng(7), []
    for p, (label, split) in enumerate([("SS", "train")] * 6 + [("UPS", "train")] * 2 + [("SS", "val"), ("UPS", "val"), ("SS", "test"), ("UPS", "test")]):
        tile = np.concatenate([np.concatenate(list(blots(np.full(4, int(label == "UPS")), rng)), 1) for _ in range(4)])
        Image.fromarray(tile).save(tmp_path / f"{p}.png")
        items.append(Labelled(tmp_path / f"{p}.png", label, f"P{p}", 1.0, split))
    fields = classifier_fields | {"tile_px": SIDE, "stain": "none"}
    recipe = changed(PLAIN, {"batch": 16, "initial": "none", "stages": [{"epochs": 2, "learning_rate": 0.01}]}, "a test")
    lines: list[str] = []
    card = train_classifier(items, tmp_path / "m", fields, recipe, Options(seed=1, acgan=2, log=lines.append))
    assert card.training["acgan"]["synthetic"] == {"SS": 96, "UPS": 32}
    assert card.trained_on.description.endswith("synthetic tiles made by an ACGAN from them: 96 of SS, 32 of UPS")
    told = card.metrics["acgan"]
    assert (told["n"], told["patients"], told["held_out"]) == (32, 2, "the patients of split test, who decided nothing")
    assert card.metrics["validation"]["n"] == 32
    assert {p.name for p in (tmp_path / "m/training").iterdir()} >= {"acgan.png", "acgan.json", "acgan.safetensors", "training.html"}
    assert any(line.startswith("ACGAN epoch 2/2") for line in lines)
    plain = train_classifier(items, tmp_path / "plain", fields, recipe, Options(seed=1, log=lines.append))
    assert "acgan" not in plain.training
    assert "acgan" not in plain.metrics
    assert plain.weights != card.weights
