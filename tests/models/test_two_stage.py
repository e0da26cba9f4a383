"""A detector with a second look: the verifier only ever takes away, and patches and peaks are where they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsikit.errors import CardError, ModelError
from wsikit.models._card import Card
from wsikit.models._centre import CELL_PX, CentreNet, focal_loss, heat_of
from wsikit.models._two_stage import apart
from wsikit.models._verifier import Verifier, cut_patches
from wsikit.models.mitosis import Detector, build

TINY: dict[str, Any] = {
    "name": "centre",
    "box_px": 25,
    "channels": 8,
    "width": 0.25,
    "shrink": 2,
    "verifier": {"side_px": 32, "input_px": 32, "stages": 2, "width": 0.25},
}


def card(**architecture: Any) -> Card:
    return Card(
        name="tiny", pipeline="mitosis", task="detect", classes=["mitosis"], architecture=TINY | architecture, mpp=0.25, tile_px=128, batch=2, stain="none",
        detection={"threshold": 0.5, "keep_above": 0.01}, licence="none",
        trained_on={"domain": "histology", "description": "nothing"}, weights={"sha256": "0" * 64},
    )  # fmt: skip


@pytest.fixture
def detector() -> Detector:
    """Random weights whose first stage finds something everywhere."""
    torch.manual_seed(0)
    net: Any = build(card())
    torch.nn.init.constant_(net.head.bias, -1.0)
    return Detector(card(), net)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)


def test_the_verifier_only_takes_away(detector: Detector, images: np.ndarray) -> None:
    for first, both in zip(detector.candidates(images), detector.predict(images), strict=True):
        assert 0 < len(both.score) <= len(first.score)
        for position, score in zip(both.position, both.score, strict=True):
            (same,) = np.flatnonzero((first.position == position).all(1))
            assert score <= first.score[same]
        assert (np.diff(both.score) <= 0).all()
        assert both.atypical is not None
        assert both.atypical.shape == both.score.shape
        assert ((both.atypical >= 0) & (both.atypical <= 1)).all()


def test_what_is_left_is_apart(detector: Detector, images: np.ndarray) -> None:
    for found in detector.predict(images):
        distance = np.hypot(*(found.position[:, None] - found.position[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(found.score))
        assert distance.min(initial=1e9) * 0.25 >= 7.5


def test_a_verifier_that_gives_no_number_does_not_pass_for_one_that_says_no(detector: Detector, images: np.ndarray) -> None:
    net: Any = detector.net
    net.verifier.head.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="its verifier is damaged"):
        detector.predict(images)


def test_an_image_in_which_nothing_is_found(detector: Detector, images: np.ndarray) -> None:
    net: Any = detector.net
    net.head.bias.fill_(-50.0)
    assert [len(d.score) for d in detector.predict(images)] == [0, 0, 0]


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([8, 16, 32]))
def test_patches_are_those_of_the_mirrored_image(x: int, y: int, side: int) -> None:
    image = np.random.default_rng(1).random((3, 40, 36)).astype(np.float32)
    x = min(x, 36)
    half = side // 2
    padded = np.pad(image, ((0, 0), (half, half), (half, half)), mode="reflect")
    (patch,) = cut_patches(torch.from_numpy(image), torch.tensor([[x, y]]), side)
    want = padded[:, y : y + side, x : x + side]
    assert (patch.numpy()[:, : want.shape[1], : want.shape[2]] == want).all()


def test_apart_keeps_the_best_of_each_heap() -> None:
    at = np.array([[0.0, 0], [3, 0], [10, 0], [14, 0], [30, 0]])
    assert apart(at, 5).tolist() == [True, False, True, False, True]
    assert apart(np.empty((0, 2)), 5).tolist() == []


def test_a_bell_stands_on_the_cell_of_its_centre() -> None:
    targets = torch.tensor([[[0.0, 10.0, 21.9, 25, 25], [0, 0, 0, 0, 0]]])
    heat = heat_of(targets, 8, 16)
    assert heat.shape == (1, 8, 16)
    assert torch.nonzero(heat == 1).tolist() == [[0, 5, 2]]
    assert heat[0, 5, 3] == pytest.approx(np.exp(-0.5))
    assert heat_of(torch.zeros(1, 3, 5), 4, 4).sum() == 0


def test_the_loss_is_least_where_the_heat_is() -> None:
    heat = heat_of(torch.tensor([[[0.0, 18.0, 10.0, 25, 25]]]), 8, 8)
    right, nothing, everywhere = (torch.where(heat == 1, a, b) for a, b in ((6.0, -6.0), (-6.0, -6.0), (6.0, 6.0)))
    losses = [float(focal_loss(v, heat)) for v in (right, nothing, everywhere)]
    assert losses[0] < 0.05 < losses[1] < losses[2]


def test_peaks_come_out_where_they_went_in() -> None:
    """The centre between two equal cells is between them, and only local maxima have a score."""
    net = CentreNet(25, 8, 0.25).eval()
    logits = torch.full((1, 8, 8), -9.0)
    logits[0, 3, 4] = logits[0, 3, 5] = 2.0
    logits[0, 6, 1] = 1.0
    net.logits = lambda _: logits  # type: ignore[method-assign]
    out = net(torch.zeros(1, 3, 32, 32))[0]
    found = out[out[:, 4] > 0.5]
    assert found[:, 2:4].unique().tolist() == [25.0]
    want = np.array([[1.5, 6.5], [5, 3.5], [5, 3.5]]) * CELL_PX
    assert np.array(sorted(found[:, :2].tolist())) == pytest.approx(want, abs=0.1)


@pytest.mark.parametrize("stages", [1, 3, 7])
def test_a_verifier_can_be_of_any_depth(stages: int) -> None:
    assert Verifier(32, 48, stages, 0.25).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize(
    "wrong", [{"shrink": 3}, {"shrink": 8}, {"verifier": {"side": 3}}, {"verifier": {"stages": 9}}, {"box": 3}, {"name": "centres"}], ids=str
)
def test_what_cannot_be_built_is_the_cards_fault(wrong: dict[str, Any]) -> None:
    with pytest.raises(CardError):
        build(card(**wrong))
