"""Grad-CAM is its formula, is of the class that was asked for, leaves the model as it was, and goes with the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from wsikit.errors import ModelError, UsageError
from wsikit.models._backbone import last_linear
from wsikit.models._cam import grad_cam
from wsikit.models._card import Card, Weights
from wsikit.models._network import Classifier
from wsikit.models.sts_subtype import build

TINY = {"name": "densenet", "growth_rate": 4, "block_config": [1, 1], "num_init_features": 8, "bn_size": 2}


def model(architecture: dict[str, Any], seed: int = 0, side: int = 64) -> Classifier:
    fields: dict[str, Any] = {"pipeline": "sts-subtype", "task": "classify", "classes": ["a", "b", "c"], "licence": "none", "batch": 4, "tile_px": side}
    about = {"domain": "phantom", "description": ""}
    card = Card(name="x", architecture=architecture, trained_on=about, weights=Weights(sha256="0" * 64), **fields)
    torch.manual_seed(seed)
    net = build(card)
    return Classifier(card, net, last_linear(net, 3))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), np.uint8)


def test_it_is_the_formula_and_leaves_the_model_as_it_was(images: np.ndarray) -> None:
    """A DenseNet ends in maps → ReLU → mean → linear, so ∂logit/∂A is w / (H·W) where A > 0."""
    one = model(TINY)
    before = one.predict(images)
    found = grad_cam(one, images, "b")
    assert (found.shape, found.dtype) == ((5, 64, 64), np.float32)
    with torch.no_grad():
        maps = one.net.features(one._scaled(torch.from_numpy(images)))  # type: ignore[operator]
        weight = one._head.weight[1].view(1, -1, 1, 1) * (maps > 0).float().mean((2, 3), keepdim=True) / (maps.shape[2] * maps.shape[3])
        expected = functional.interpolate(functional.relu((weight * maps).sum(1, keepdim=True)), size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
    assert np.allclose(found, expected.numpy(), atol=1e-6)
    after = one.predict(images)
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_it_depends_on_the_class_and_on_the_weights(images: np.ndarray) -> None:
    one = model(TINY)
    assert not np.allclose(grad_cam(one, images, "a"), grad_cam(one, images, "b"))
    assert not np.allclose(grad_cam(one, images, "a"), grad_cam(model(TINY, seed=1), images, "a")), "another network, another map"
    assert grad_cam(one, images[:0], "a").shape == (0, 64, 64)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_other_convolutional_networks_have_maps(name: str, images: np.ndarray) -> None:
    found = grad_cam(model({"name": "torchvision", "model": name}), images[:2], "a")
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_what_it_cannot_say_is_refused(images: np.ndarray) -> None:
    with pytest.raises(UsageError, match="has no class 'd'; there are: a, b, c"):
        grad_cam(model(TINY), images, "d")
    mixer = model({"name": "timm", "model": "mixer_s32_224", "img_size": 32}, side=32)
    with pytest.raises(ModelError, match="has no maps"):
        grad_cam(mixer, images[:, :32, :32], "a")
