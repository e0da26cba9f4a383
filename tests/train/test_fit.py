"""The training loop: each preset learns, a killed training comes to the same weights, two processes train one model, what diverges is refused."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wsikit.errors import ModelError, StoreMismatchError, UsageError, WeightsMismatchError
from wsikit.models import load_model
from wsikit.models._card import Card, Weights
from wsikit.train.classify import Options, train_classifier
from wsikit.train.fit import fit
from wsikit.train.labels import Labelled
from wsikit.train.learner import TileLearner, Tiles, trainable
from wsikit.train.presets import PRESETS
from wsikit.train.recipe import Recipe, changed

TINY = {"name": "densenet", "growth_rate": 4, "block_config": [1, 1], "num_init_features": 8, "bn_size": 2}
KILLED = "after epoch 2"


def two_colours(n: int, side: int, seed: int = 0) -> Tiles:
    """Noisy pink and noisy violet."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    colour = np.array([[220, 120, 170], [120, 90, 190]])[label][:, None, None]
    return Tiles((colour + rng.normal(0, 25, (n, side, side, 3))).clip(0, 255).astype(np.uint8), label)


def card_of(architecture: dict[str, Any], side: int) -> Card:
    fields: dict[str, Any] = {"pipeline": "sts-subtype", "task": "classify", "classes": ["a", "b"], "licence": "none", "batch": 8, "tile_px": side}
    return Card(name="x", architecture=architecture, trained_on={"domain": "phantom", "description": ""}, weights=Weights(sha256="0" * 64), **fields)


def learner(recipe: Recipe, side: int) -> TileLearner:
    torch.manual_seed(0)
    net, head = trainable(card_of(recipe.architecture, side), recipe.loss.auxiliary)
    n = 24 if side < 100 else 8
    return TileLearner(net, head, card_of(recipe.architecture, side), recipe, two_colours(n, side), two_colours(n // 2, side, 1))


STILL = {"turns": False, "flip": False, "restain": 0.0, "jitter": 0.0, "brightness": 0.0, "hue": 0.0, "contrast": [1, 1], "saturation": [1, 1]}
SLIM = {"name": "inception_v3_slim", "width": 16}
SMALL: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({"architecture": TINY, "batch": 6}, 32),
    "cell": ({"architecture": {"name": "lite", "stages": 2, "width": 0.25}, "batch": 6}, 32),
    "foersch": ({"architecture": TINY, "augment": {"holes": (4, 6), "hole_px": 3}}, 32),
    "zhang": ({"architecture": SLIM, "batch": 4, "augment": STILL}, 299),
    "deeppath": ({"architecture": TINY, "loss": {"auxiliary": 0.0}, "batch": 6}, 32),  # its network is zhang's
}
QUICK = {"plain": (5e-3, 4), "cell": (2e-2, 8), "foersch": (3e-2, 8), "zhang": (5e-3, 3), "deeppath": (0.1, 8)}


@pytest.mark.parametrize("name", SMALL)
def test_every_preset_converges_on_a_task_that_is_easy(name: str, tmp_path: Path) -> None:
    values, side = SMALL[name]
    rate, epochs = QUICK[name]
    recipe = changed(PRESETS[name], values | {"initial": "none"}, "a test").shortened(epochs)
    stages = [s.model_copy(update={"learning_rate": rate, "lowest_rate": rate / 10 if s.lowest_rate else None}) for s in recipe.stages]
    recipe = recipe.model_copy(update={"stages": stages})
    history = fit(learner(recipe, side), recipe, tmp_path, "k", log=lambda _: None)
    assert len(history) == epochs
    assert history[-1]["loss"] < history[0]["loss"]
    if "inception" not in recipe.architecture["name"]:  # whose batch norms need many more steps to know the tiles' statistics
        assert max(row["accuracy"] for row in history) >= 0.9


def test_a_frozen_body_stays_as_it_was_and_the_head_learns(tmp_path: Path) -> None:
    values, side = SMALL["foersch"]
    recipe = changed(PRESETS["foersch"], values, "a test")
    recipe = recipe.model_copy(update={"stages": [recipe.stages[0].model_copy(update={"epochs": 1, "learning_rate": 0.1})]})
    one = learner(recipe, side)
    before = {k: v.clone() for k, v in one.net.state_dict().items()}
    fit(one, recipe, tmp_path, "k", log=lambda _: None)
    different = {k for k, v in one.net.state_dict().items() if not torch.equal(v, before[k])}
    assert different == {"classifier.weight", "classifier.bias"}


def test_gradient_accumulation_takes_as_many_steps_as_the_large_batch(tmp_path: Path) -> None:
    """Without batch norm, dropout and augmentation, two batches of 4 are one of 8."""
    states = []
    for n, values in enumerate([{"batch": 8}, {"batch": 4, "accumulate": 2}]):
        still = {"turns": False, "restain": 0.0, "jitter": 0.0}
        recipe = changed(PRESETS["plain"], {"augment": still, **values}, "t").shortened(1)
        recipe = recipe.model_copy(update={"architecture": TINY})
        one = learner(recipe, 32)
        for module in one.net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.0
                module.train = lambda mode=True, m=module: m  # type: ignore[method-assign, misc]
                module.training = False
        fit(one, recipe, tmp_path / str(n), "k", log=lambda _: None)
        states.append(one.net.state_dict())
    assert all(torch.allclose(states[0][k], states[1][k], atol=1e-5) for k in states[0])


def test_bf16_and_tensorboard(tmp_path: Path) -> None:
    recipe = changed(PRESETS["plain"], {"architecture": TINY, "batch": 6, "precision": "bf16"}, "t").shortened(2)
    history = fit(learner(recipe, 32), recipe, tmp_path, "k", log=lambda _: None, tensorboard=True)
    with (tmp_path / "log.csv").open() as f:
        assert [float(r["loss"]) for r in csv.DictReader(f)] == pytest.approx([h["loss"] for h in history], rel=1e-4)
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path) -> None:
    recipe = changed(PRESETS["plain"], {"architecture": TINY, "batch": 6, "patience": 2}, "t").shortened(9)
    one = learner(recipe, 32)
    scores = iter([0.2, 0.9, 0.5, 0.4])
    states: list[Any] = []

    def judged(_: Any) -> dict[str, float]:
        states.append({k: v.clone() for k, v in one.net.state_dict().items()})
        return {"score": next(scores)}

    one.validate = judged  # type: ignore[method-assign, assignment]
    assert len(fit(one, recipe, tmp_path, "k", log=lambda _: None)) == 4
    assert all(torch.equal(v, states[1][k]) for k, v in one.net.state_dict().items())


def test_steps_that_lead_nowhere_are_an_error_and_not_a_model(tmp_path: Path) -> None:
    recipe = changed(PRESETS["plain"], {"architecture": TINY, "batch": 6, "stages": [{"epochs": 2, "learning_rate": 1e30, "schedule": "constant"}]}, "t")
    with pytest.raises(ModelError, match="in epoch 1: steps are too large"):
        fit(learner(recipe, 32), recipe, tmp_path, "k", log=lambda _: None)


def test_an_auxiliary_loss_needs_a_second_output() -> None:
    with pytest.raises(UsageError, match=r"loss\.auxiliary is for inception_v3"):
        trainable(card_of(TINY, 32), 0.4)


@pytest.fixture
def items(sheets: list[Any]) -> list[Labelled]:
    return [Labelled(s.path, s.truth.spec.subtype, s.patient, split="val" if n > 3 else "train") for n, s in enumerate(sheets)]


RECIPE = changed(PRESETS["plain"], {"architecture": TINY, "batch": 8, "initial": "none", "tile_px": 64}, "a test").shortened(4)

PROGRAM = """
import os, signal, sys
import torch
from pathlib import Path
from wsikit.train.recipe import Recipe
from wsikit.train.classify import Options, train_classifier
from wsikit.train.labels import Labelled
from wsikit.train.parallel import join_group

torch.set_num_threads({threads})
items = [Labelled(Path(p), label, patient, split=split) for p, label, patient, split in {items!r}]

def log(line):
    print(line, flush=True)
    if {kill} and line.startswith("epoch 3/"):
        os.kill(os.getpid(), signal.SIGKILL)

with join_group("cpu") as group:
    recipe = Recipe.model_validate_json({recipe!r})
    card = train_classifier(items, Path({out!r}), {fields!r}, recipe, Options(6, log=log), group)
    print("done", group.rank, card.weights.sha256)
"""


@pytest.fixture
def start(items: list[Labelled], classifier_fields: dict[str, Any]) -> Callable[..., subprocess.Popen[str]]:
    def begin(out: Path, *, kill: bool = False, threads: int = 1, epochs: int = 4, **environment: str) -> subprocess.Popen[str]:
        rows = [(str(i.path), i.label, i.patient, i.split) for i in items]
        recipe = RECIPE.shortened(epochs).model_dump_json()
        program = PROGRAM.format(items=rows, out=str(out), fields=classifier_fields, recipe=recipe, kill=kill, threads=threads)
        return subprocess.Popen([sys.executable, "-c", program], env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    return begin


def test_killed_and_resumed_is_as_undisturbed(start: Any, items: list[Labelled], classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    killed = start(tmp_path / "a", kill=True, threads=torch.get_num_threads())
    assert "epoch 3/4" in killed.communicate(timeout=120)[0]
    assert killed.returncode == -9
    assert not (tmp_path / "a/card.json").exists()
    with pytest.raises(StoreMismatchError, match="unfinished training with other slides or options"):
        train_classifier(items, tmp_path / "a", classifier_fields, RECIPE.shortened(3), Options(6, log=lambda _: None))
    lines: list[str] = []
    resumed = train_classifier(items, tmp_path / "a", classifier_fields, RECIPE, Options(6, log=lines.append))
    assert lines[1] == "going on " + KILLED
    whole = train_classifier(items, tmp_path / "b", classifier_fields, RECIPE, Options(6, log=lambda _: None))
    assert resumed.weights == whole.weights, "byte for byte"
    left = {p.name for p in (tmp_path / "a/training").iterdir()}
    assert left == {"log.csv", "training.html", "validation.csv"}
    page = (tmp_path / "a/training/training.html").read_text()
    assert all(words in page for words in ("our default", "Research use only", "data:image/png;base64,"))


def test_two_processes_train_one_model(start: Any, tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    both = [start(tmp_path / "m", epochs=1, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in (0, 1)]
    said = [p.communicate(timeout=120)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    ends = [next(line for line in text.splitlines() if line.startswith("done")).split() for text in said]
    assert ends[0][2] == ends[1][2], "the same model in both"
    assert "epoch 1/1" in said[0]
    assert "epoch" not in said[1], "one process speaks"
    assert load_model(tmp_path / "m").card.metrics["validation"]["balanced_accuracy"] >= 0.5


def test_a_model_can_start_from_another_or_from_a_file(items: list[Labelled], classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    lines: list[str] = []
    first = train_classifier(items, tmp_path / "a", classifier_fields, RECIPE.shortened(1), Options(4, log=lines.append))
    assert first.training["started_from"] == "random"
    frozen = changed(RECIPE, {"stages": [{"epochs": 1, "train": "head", "learning_rate": 1e-3}], "initial": str(tmp_path / "a")}, "t")
    second = train_classifier(items, tmp_path / "b", classifier_fields, frozen, Options(4, log=lines.append))
    assert second.training["started_from"] == f"model {first.name} ({first.digest[:12]})"
    a, b = (load_file(tmp_path / n / "model.safetensors") for n in "ab")
    assert {k for k in a if not torch.equal(a[k], b[k])} == {"classifier.weight", "classifier.bias"}
    torch.save(a, tmp_path / "a.pth")
    (tmp_path / "pickle.pth").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    other = changed(RECIPE, {"initial": str(tmp_path / "a.pth")}, "t").shortened(1)
    assert train_classifier(items, tmp_path / "c", classifier_fields, other, Options(4, log=lines.append)).training["started_from"] == "the file a.pth"
    for name, says in {"pickle.pth": "not opened|not a plain state dict", "b/card.json": "not a plain state dict|not opened"}.items():
        with pytest.raises(WeightsMismatchError, match=says):
            train_classifier(items, tmp_path / "d", classifier_fields, changed(other, {"initial": str(tmp_path / name)}, "t"), Options(4, log=lines.append))
    wide = classifier_fields | {"architecture": TINY | {"growth_rate": 8}}
    with pytest.raises(WeightsMismatchError, match="tensors fit network densenet"):
        train_classifier(items, tmp_path / "e", wide, other, Options(4, log=lines.append))


def test_without_published_weights_training_warns_and_the_card_says_so(items: list[Labelled], classifier_fields: dict[str, Any], tmp_path: Path) -> None:
    lines: list[str] = []
    card = train_classifier(items, tmp_path / "a", classifier_fields, changed(RECIPE, {"initial": "imagenet"}, "t").shortened(1), Options(4, log=lines.append))
    assert any(line.startswith("WARNING: training starts from random weights: there are no ImageNet weights of network densenet") for line in lines)
    assert card.training["started_from"].startswith("random (there are no ImageNet weights")
