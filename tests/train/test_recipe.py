"""Recipes: every value has a source or is ours, files change only what they name, and each preset's recipe trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsikit.errors import UsageError
from wsikit.train.presets import PRESETS, choose_recipe
from wsikit.train.recipe import OURS, changed, read_recipe


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_of_a_preset_has_a_source_or_is_ours(name: str) -> None:
    recipe = PRESETS[name]
    sources = {k: recipe.source(k) for k, _ in recipe.values()}
    assert set(recipe.sources) <= set(sources)
    assert OURS in sources.values()
    assert name in ("plain", "unet") or len(set(sources.values())) > 1


def test_the_published_numbers() -> None:
    foersch, deeppath = PRESETS["foersch"], PRESETS["deeppath"]
    assert [(s.epochs, s.train, s.learning_rate, s.weight_decay) for s in foersch.stages] == [(25, "head", 1e-4, 0.1), (25, "all", 1e-4, 0.1)]
    assert (foersch.tile_px, foersch.batch, foersch.augment.holes, foersch.augment.hole_px, foersch.loss.class_weights) == (1024, 5, (60, 80), 8, "balanced")
    assert (foersch.source("mpp"), foersch.source("stages.1.lowest_rate")) == (OURS, OURS), "not published, so not theirs"
    assert (deeppath.optimiser.name, deeppath.optimiser.epsilon, deeppath.stages[0].decay, deeppath.stages[0].decay_every) == ("rmsprop", 1.0, 0.16, 30)
    assert [(PRESETS[n].loss.auxiliary, PRESETS[n].loss.label_smoothing) for n in ("zhang", "deeppath")] == [(0.4, 0.1)] * 2


def test_a_file_changes_what_it_names_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "foersch"\nbatch = 8\n[augment]\nhole_px = 16\n')
    mine = read_recipe(path, PRESETS)
    assert (mine.batch, mine.augment.hole_px, mine.augment.holes) == (8, 16, (60, 80))
    assert (mine.source("batch"), mine.source("augment.hole_px")) == ("mine.toml", "mine.toml")
    assert mine.source("augment.holes") == PRESETS["foersch"].source("augment.holes")
    for text, says in {
        'preset = "x"': "preset 'x'",
        "batch = 0": "mine.toml: batch",
        "bach = 8": "mine.toml: bach",
        "batch = [": "cannot be read as TOML",
    }.items():
        path.write_text(text)
        with pytest.raises(UsageError, match=says):
            read_recipe(path, PRESETS)


def test_the_command_lines_values_and_epochs() -> None:
    recipe = choose_recipe("rms-subtype", values={"architecture": "timm:resnet18", "mpp": 0.5}, epochs=4)
    assert (recipe.name, recipe.architecture, recipe.loss.auxiliary, recipe.epochs) == ("zhang", {"name": "timm", "model": "resnet18"}, 0.0, 4)
    assert recipe.source("mpp") == "command line"
    short = PRESETS["foersch"].shortened(4)
    assert [s.epochs for s in short.stages] == [2, 2]
    assert (short.source("stages.0.epochs"), short.source("stages.0.train")) == (OURS, PRESETS["foersch"].source("stages.0.train"))
    with pytest.raises(UsageError, match="preset 'best'"):
        choose_recipe("subtype", "best")
    with pytest.raises(UsageError, match="a recipe: precision"):
        changed(recipe, {"precision": "int8"}, "a recipe")
