"""What a network's maps say of tissue: they are taken as it runs and change none of its answers, whatever runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsikit.models._backbone import last_linear
from wsikit.models._cam import GradCam
from wsikit.models._card import Calibration, Card, Outliers, Weights
from wsikit.models._distance import Known
from wsikit.models._engine import OPENVINO, accelerate
from wsikit.models._known import map_layers, means, watch
from wsikit.models._network import Classifier
from wsikit.models.sts_subtype import build

TINY = {"name": "densenet", "growth_rate": 4, "block_config": [1, 1], "num_init_features": 8, "bn_size": 2}
SWIN = {"name": "timm", "model": "swin_tiny_patch4_window7_224", "img_size": 64, "window_size": 2, "embed_dim": 12, "depths": [1, 1, 1, 1]}


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home where what is converted is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSIKIT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def model(architecture: dict[str, Any]) -> Classifier:
    fields: dict[str, Any] = {"pipeline": "sts-subtype", "task": "classify", "classes": ["a", "b", "c"], "licence": "none", "batch": 4, "tile_px": 64}
    about = {"domain": "phantom", "description": ""}
    card = Card(name="x", architecture=architecture, trained_on=about, weights=Weights(sha256="0" * 64), **fields)
    torch.manual_seed(0)
    net = build(card)
    return Classifier(card, net, last_linear(net, 3))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        (TINY, ["features.relu0", "features.transition1.conv"]),
        (SWIN | {"num_heads": [1, 1, 1, 1]}, ["layers.0", "layers.1"]),
        ({"name": "timm", "model": "vit_tiny_patch16_224", "img_size": 64, "embed_dim": 24, "depth": 1, "num_heads": 2}, []),
    ],
)
def test_layers_of_the_two_largest_maps_and_of_transformers_none(architecture: dict[str, Any], layers: list[str]) -> None:
    assert map_layers(model(architecture)) == layers


def test_they_are_the_means_of_the_maps_and_change_no_answer(images: np.ndarray) -> None:
    plain, one = model(TINY), model(TINY)
    layers = map_layers(one)
    watch(one.body, layers)
    found, before, after = means(one, images), plain.predict(images), one.predict(images)
    assert {k: v.tobytes() for k, v in before.items()} == {k: v.tobytes() for k, v in after.items()}, "bit for bit"
    with torch.inference_mode():
        x, expected = plain._scaled(torch.from_numpy(images)), []
        for module in plain.net.features.children():  # type: ignore[union-attr]
            x = module(x)
            expected.append(x.mean((2, 3)))
    assert found.shape == (6, 8 + 6)
    assert np.allclose(found[:, :8], expected[2].numpy(), atol=1e-5)
    assert np.array_equal(means(one, images[4:5])[0], found[4]), "whichever tiles are beside it"
    assert np.allclose(GradCam(one, ["a", "b"])(images), GradCam(plain, ["a", "b"])(images)), "and what explains it is the same"


def test_a_pass_that_fails_leaves_nothing_behind(images: np.ndarray) -> None:
    one = model(TINY)
    watch(one.body, map_layers(one))
    expected = means(one, images)
    broken = one.net.get_submodule("features.norm5").register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        one.predict(images)
    broken.remove()
    assert np.array_equal(means(one, images), expected)


def test_openvino_sees_the_same(images: np.ndarray) -> None:
    pytest.importorskip("openvino")
    rules = Outliers(sha256="0" * 64, distance=1.0, tiles=1, layers=["features.relu0"])
    one, other = model(TINY), model(TINY)
    for m in (one, other):
        watch(m.body, map_layers(m))
    other.card = other.card.model_copy(update={"calibration": Calibration(origin="", patients=2, slides=2, outliers=rules)})
    accelerate(other, OPENVINO)
    assert np.allclose(means(one, images), means(other, images), atol=1e-4)
    middle = means(one, images).mean(0)
    away = ((means(one, images) - middle) ** 2).sum(1)
    for m in (one, other):
        m.known = Known(middle.astype(float), np.eye(len(middle)), float(np.median(away)))
    a, b = one.predict(images), other.predict(images)
    assert a["outlying"].tolist() == b["outlying"].tolist() == (away > np.median(away)).tolist()
    assert b["feature"].shape == (6, other.feature_size)
    assert np.allclose(a["probability"], b["probability"], atol=1e-3)
    assert {k: (v.dtype, len(v)) for k, v in other.predict(images[:0]).items()} == {k: (v.dtype, 0) for k, v in b.items()}


def test_a_card_without_layers_is_written_and_known_as_before(tmp_path: Path) -> None:
    """Cards of before there were layers keep their digest, by which runs and installed models are known."""
    fields: dict[str, Any] = {"origin": "x", "patients": 3, "slides": 3, "outliers": {"sha256": "0" * 64, "distance": 2.0, "tiles": 5}}
    card = model(TINY).card.model_copy(update={"calibration": Calibration(**fields)})
    assert "layers" not in card.model_dump_json()
    assert card.digest == "e64a919d7d38b41f344c76ae38399517d2470fbe07802e7ada7451997767dc00"
    fields["outliers"]["layers"] = ["features.relu0"]
    other = card.model_copy(update={"calibration": Calibration(**fields)})
    assert other.digest != card.digest
    assert Card.model_validate_json(other.model_dump_json()) == other
