"""Grad-CAM is its formula, is of the class that was asked for, leaves the model as it was, and goes with the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from wsikit.errors import ModelError, UsageError
from wsikit.models import load_model
from wsikit.models._backbone import last_linear
from wsikit.models._cam import GradCam, grad_cam
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
    """A DenseNet ends in maps → ReLU → mean → linear: each place adds Σ wₖ ReLU(Aᵏ) / (H·W), and all of them, with the bias, are the logit."""
    one = model(TINY)
    before = one.predict(images)
    found = grad_cam(one, images, "b")
    assert (found.shape, found.dtype) == ((5, 64, 64), np.float32)
    with torch.no_grad():
        maps = one.net.features(one._scaled(torch.from_numpy(images)))  # type: ignore[operator]
        assert (maps < 0).any()
        adds = (one._head.weight[1].view(1, -1, 1, 1) * functional.relu(maps)).sum(1, keepdim=True) / maps[0, 0].numel()
        logit = one.logits(one._scaled(torch.from_numpy(images)))[:, 1]
        assert torch.allclose(adds.sum((1, 2, 3)) + one._head.bias[1], logit, atol=1e-5)
        expected = functional.interpolate(functional.relu(adds), size=(64, 64), mode="bilinear", align_corners=False)[:, 0]
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


VIT = {"name": "timm", "model": "vit_tiny_patch16_224", "img_size": 64, "embed_dim": 24, "depth": 3, "num_heads": 2}


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_tokens_of_a_vision_transformer_lie_where_their_patches_are(images: np.ndarray, pool: str) -> None:
    """Attention's queries and keys have four dimensions too, and are no maps. Here against the formula, taken from the block by hand."""
    one = model(VIT | {"global_pool": pool}, seed=2)
    cam = GradCam(one, ["a", "c"])
    assert (cam.maps.name, cam.maps.shape) == ("blocks.2.norm1", (4, 4))
    found = cam(images)
    assert found.shape == (5, 2, 4, 4)
    x, net = one._scaled(torch.from_numpy(images)), one.net
    with torch.enable_grad():
        before: Any = net.blocks[:2](net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(x)))))  # type: ignore[operator, index]
        block: Any = net.blocks[2]  # type: ignore[index]
        tokens = block.norm1(before).detach().requires_grad_(True)
        y = before + block.ls1(block.attn(tokens))
        y = net.norm(y + block.ls2(block.mlp(block.norm2(y))))  # type: ignore[operator]
        logits = one._head(net.forward_head(y, pre_logits=True))  # type: ignore[operator]
        (gradient,) = torch.autograd.grad(logits[:, 2].sum(), tokens)
    expected = torch.relu((tokens[:, 1:] * gradient[:, 1:].mean(1, keepdim=True)).sum(2)).detach().reshape(5, 4, 4)
    assert np.allclose(found[:, 1], expected.numpy(), atol=1e-6)
    assert found[:, 1].max() > 0


def test_maps_with_their_channels_last(images: np.ndarray) -> None:
    swin = {"name": "timm", "model": "swin_tiny_patch4_window7_224", "img_size": 64, "window_size": 2, "embed_dim": 12, "depths": [1, 1, 1, 1]}
    cam = GradCam(model(swin | {"num_heads": [1, 1, 1, 1]}), ["a"])
    assert (cam.maps.name, cam.maps.shape) == ("norm", (2, 2))
    assert cam(images[:1]).shape == (1, 1, 2, 2)


def test_what_it_cannot_say_is_refused(images: np.ndarray) -> None:
    with pytest.raises(UsageError, match="has no class 'd'; there are: a, b, c"):
        grad_cam(model(TINY), images, "d")
    mixer = model({"name": "timm", "model": "mixer_s32_224", "img_size": 32}, side=32)
    with pytest.raises(ModelError, match="has no maps"):
        grad_cam(mixer, images[:, :32, :32], "a")
    theirs = model({"name": "torchvision", "model": "vit_b_32", "image_size": 64})  # maps of its first layer are none of its answer
    with pytest.raises(ModelError, match="has no maps"):
        grad_cam(theirs, images, "a")
    detector: Any = load_model("phantom-mitosis")
    with pytest.raises(ModelError, match="is of tile classifiers, and this one has task 'detect'"):
        GradCam(detector, [])


def test_an_engine_without_gradients_is_refused(images: np.ndarray) -> None:
    one = model(TINY)
    one.net = torch.nn.Identity()  # as `accelerate` leaves a model: no weights that torch knows
    with pytest.raises(ModelError, match="what runs it has no gradients"):
        grad_cam(one, images, "a")
