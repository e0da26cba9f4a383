"""What the second stage learns from: patches of objects are of objects, those of false finds are not, and it then tells them apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsikit.models._card import Card
from wsikit.models._centre import CentreNet
from wsikit.models._verifier import Verifier
from wsikit.models.mitosis import Detector
from wsikit.train.compose import Piece
from wsikit.train.detect import with_false_finds
from wsikit.train.verify import fit_verifier, gather


class DarkNet(CentreNet):
    """Finds whatever is dark, mitosis or not: a first stage that needs no training."""

    def __init__(self) -> None:
        super().__init__(25, 8, 0.25)

    def logits(self, x: Tensor) -> Tensor:
        grey: Tensor = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 4)[:, 0]
        return (0.35 - grey) * 30


@pytest.fixture(scope="module")
def card() -> Card:
    return Card(
        name="t", pipeline="mitosis", task="detect", classes=["mitosis"], architecture={"name": "centre"}, mpp=0.25, tile_px=128, batch=4, stain="none",
        scaling={"mean": [0, 0, 0], "std": [1, 1, 1]}, detection={"threshold": 0.5, "keep_above": 0.3}, licence="none",
        trained_on={"domain": "histology", "description": "dots"}, weights={"sha256": "0" * 64},
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(card: Card) -> Detector:
    return Detector(card, DarkNet())


@pytest.fixture(scope="module")
def fields() -> list[Piece]:
    """Pale fields with a dark blue dot where the object is, a dark red one where it is not, and a blue one that is covered in the books."""
    rng = np.random.default_rng(0)
    found = []
    for n in range(12):
        image = np.clip(rng.normal(200, 6, (128, 128, 3)), 0, 255)
        at = np.arange(128) + 0.5
        spots = rng.uniform(14, 40, (3, 2)) + np.array([[0, 0], [66, 10], [20, 70]])
        for (x, y), colour in zip(spots, ([10, 10, 90], [90, 10, 10], [10, 10, 90]), strict=True):
            image[np.hypot(at[None] - x, at[:, None] - y) < 8] = colour
        found.append(Piece(image.astype(np.uint8), spots[:1], 0.25, "s", kind=np.array([float(n % 2)]), hidden=spots[2:]))
    return found


def test_patches_say_what_is_in_their_middle(model: Detector, fields: list[Piece]) -> None:
    patches = gather(model, fields, 32)
    assert patches.image.shape[1:] == (48, 48, 3)
    middle = patches.image[:, 20:28, 20:28].float().mean((1, 2))
    assert (middle[patches.object, 2] > middle[patches.object, 0] + 40).all(), "objects are blue"
    assert (middle[~patches.object, 0] > middle[~patches.object, 2] + 40).all(), "what was found falsely is red; what is covered is neither"
    assert int((~patches.object).sum()) == 12
    assert int(patches.object.sum()) == 24, "each object where it is labelled, and where it was found"
    assert torch.isnan(patches.kind[~patches.object]).all()
    assert patches.kind[patches.object].nanmean() == 0.5


def test_fields_with_false_finds_come_back_with_them_marked(model: Detector, fields: list[Piece]) -> None:
    clean = Piece(np.full((128, 128, 3), 210, np.uint8), np.empty((0, 2)), 0.25)
    hard = with_false_finds(model, [clean, *fields], 5)
    assert len(hard) == 5
    for field in hard:
        ((x, y),) = field.lookalikes
        red, _, blue = field.image[int(y), int(x)]
        assert red > blue


def test_a_verifier_learns_to_tell_them_apart(model: Detector, fields: list[Piece], card: Card) -> None:
    torch.manual_seed(0)
    net, said = Verifier(32, 32, 2, 0.25), []
    patches = gather(model, fields, 32)
    fit_verifier(net, patches, card, 40, seed=0, device="cpu", log=said.append)
    inner = patches.image[:, 8:40, 8:40].permute(0, 3, 1, 2).float() / 255
    probability = net.verdict(inner).probability
    assert probability[patches.object].min() > probability[~patches.object].max()
    assert said[-1].startswith("verifier: step 40/40, loss ")


def test_a_first_stage_without_false_finds_leaves_the_verifier_as_it_is(model: Detector, card: Card) -> None:
    image = np.full((128, 128, 3), 200, np.uint8)
    image[56:72, 56:72] = 10
    patches = gather(model, [Piece(image, np.array([[64.0, 64.0]]), 0.25)], 32)
    net, said = Verifier(32, 32, 1, 0.25), []
    before: dict[str, Any] = {k: v.clone() for k, v in net.state_dict().items()}
    fit_verifier(net, patches, card, 5, seed=0, device="cpu", log=said.append)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert "nothing to learn" in said[0]
