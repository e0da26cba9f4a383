"""What every network promises: shapes, types, and the same numbers whatever is beside a tile."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from wsikit.errors import ModelError
from wsikit.models import BUNDLED, families, family, read_card
from wsikit.models._network import Detections
from wsikit.stain.macenko import METHOD
from wsikit.testing.phantom import Spec, Truth, make_phantom

NETWORKS = sorted(p.name for p in BUNDLED.iterdir() if p.name != "phantom-survival")
EVERY = pytest.mark.parametrize("name", NETWORKS)


BATCH = 4  # small, so that a few tiles fill more than one


@cache
def model(name: str) -> Any:
    """The bundled model with small batches, and a detector's tiles no larger than they need be."""
    card = read_card(BUNDLED / name)
    card = card.model_copy(update={"batch": BATCH, "tile_px": min(card.tile_px, 256) if card.task == "detect" else card.tile_px})
    return family(card.pipeline).load(card, BUNDLED / name, "cpu")


@cache
def phantom() -> tuple[np.ndarray, Truth]:
    """A phantom in the reference's colours."""
    rgb, truth = make_phantom(Spec(31, "LMS", 1536, 1280, mitoses_per_mm2=60))
    tissue = truth.tissue.repeat(16, 0).repeat(16, 1)[:1280, :1536]
    fit = METHOD.fit(rgb[tissue][::5])
    assert fit.trusted
    return METHOD.apply(torch.from_numpy(rgb), fit).numpy(), truth


@cache
def images(name: str, n: int) -> np.ndarray:
    """Different tiles of a phantom."""
    side = model(name).card.tile_px
    rgb, _ = phantom()
    rng = np.random.default_rng(0)
    corners = rng.integers((300, 300), (1280 - side - 100, 1536 - side - 100), (n, 2))
    return np.stack([rgb[y : y + side, x : x + side] for y, x in corners])


def parts(result: Any) -> list[tuple[np.ndarray, ...]]:
    """What was said of each image, as arrays."""
    if isinstance(result, dict):
        return list(zip(result["probability"], result["feature"], strict=True))
    return [(d.position, d.score, d.label, d.size) for d in result]


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit."""
    return len(parts(a)) == len(parts(b)) and all(all(np.array_equal(x, y) for x, y in zip(p, q, strict=True)) for p, q in zip(parts(a), parts(b), strict=True))


def test_every_family_has_a_bundled_model_that_is_tested_here() -> None:
    phantoms = {f"phantom-{pipeline}" for pipeline in families() if pipeline not in ("tissue-type", "tumour")}  # these are of users' own
    assert phantoms | {"mitosis"} == set(NETWORKS)


@EVERY
@pytest.mark.parametrize("n", [0, 1, 5])
def test_shapes_and_types(name: str, n: int) -> None:
    net = model(name)
    result = net.predict(images(name, 5)[:n])
    if net.card.task == "classify":
        k = len(net.card.classes)
        assert (result["probability"].shape, result["probability"].dtype) == ((n, k), np.float32)
        assert (result["feature"].shape[0], result["feature"].dtype) == (n, np.float32)
        assert result["feature"].shape[1] == model(name).predict(images(name, 5))["feature"].shape[1] > k
        assert result["probability"].sum(1) == pytest.approx(1, abs=1e-5)
        assert (result["probability"] >= 0).all()
        assert np.isfinite(result["feature"]).all()
        return
    assert len(result) == n
    for found in result:
        assert isinstance(found, Detections)
        m = len(found.score)
        assert [(v.shape, v.dtype) for v in (found.position, found.score, found.label, found.size)] == [
            ((m, 2), np.float32), ((m,), np.float32), ((m,), np.int64), ((m, 2), np.float32),
        ]  # fmt: skip
        assert (np.diff(found.score) <= 0).all(), "best first"
        assert (found.score > net.card.detection.keep_above).all()
        assert (found.size > 0).all()
        assert (found.label == 0).all()


@EVERY
def test_a_tile_is_the_same_alone_in_any_order_and_in_any_batch(name: str) -> None:
    net, tiles = model(name), images(name, BATCH + 2)  # a full batch and a filled one
    whole = net.predict(tiles)
    order = np.random.default_rng(1).permutation(len(tiles))
    shuffled = parts(net.predict(tiles[order]))
    for i, at in enumerate(order):
        assert all(np.array_equal(a, b) for a, b in zip(shuffled[i], parts(whole)[at], strict=True))
    for i in (0, BATCH + 1):
        alone = parts(net.predict(tiles[i : i + 1]))[0]
        assert all(np.array_equal(a, b) for a, b in zip(alone, parts(whole)[i], strict=True))


@EVERY
def test_tensors_and_arrays_are_alike_and_a_second_load_too(name: str) -> None:
    tiles = images(name, 5)[:3]
    before = tiles.copy()
    first = model(name).predict(tiles)
    assert same(first, model(name).predict(torch.from_numpy(tiles)))
    again = family(model(name).card.pipeline).load(model(name).card, BUNDLED / name, "cpu")
    assert same(first, again.predict(tiles))
    assert (tiles == before).all()


@EVERY
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 64, 64, 3), np.float32),
        np.zeros((2, 64, 64, 3), np.uint16),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((2, 3, 64, 64), np.uint8),
        np.zeros((2, 64, 64, 4), np.uint8),
        torch.zeros((2, 64, 64, 3)),
    ],
    ids=["float", "uint16", "one image", "channels first", "alpha", "float tensor"],
)
def test_pixels_of_another_kind_are_refused(name: str, wrong: np.ndarray | torch.Tensor) -> None:
    """A float image in 0–1 would be read as almost black, and give probabilities all the same."""
    with pytest.raises(ModelError, match="must be uint8"):
        model(name).predict(wrong)


@EVERY
def test_a_network_that_gives_no_numbers_does_not_pass_for_one_that_finds_nothing(name: str) -> None:
    net = family(model(name).card.pipeline).load(model(name).card, BUNDLED / name, "cpu")
    with torch.no_grad():
        for p in net.net.parameters():
            p.fill_(float("nan"))
    if net.card.task == "detect":
        with pytest.raises(ModelError, match="gave no number"):
            net.predict(images(name, 5)[:2])
    else:
        assert np.isnan(net.predict(images(name, 5)[:2])["probability"]).all(), "the call is withheld, see aggregate.calls"


def test_classifiers_know_their_phantoms() -> None:
    rgb, truth = phantom()
    rows, columns = np.nonzero(truth.tissue)
    y, x = int(rows.mean()) * 16 - 112, int(columns.mean()) * 16 - 112
    for name, classes in (("phantom-sts-subtype", {"LMS"}), ("phantom-rms-subtype", {"other"})):
        card = model(name).card
        factor = round(card.mpp / 0.5)
        side = card.tile_px * factor
        tile = rgb[max(0, y - side // 2) :, max(0, x - side // 2) :][:side, :side]
        small = tile.reshape(card.tile_px, factor, card.tile_px, factor, 3).mean((1, 3)).astype(np.uint8)
        probability = model(name).predict(small[None])["probability"][0]
        assert card.classes[int(probability.argmax())] in classes


def test_the_detector_finds_mitoses_where_they_are_and_none_on_glass() -> None:
    net, (rgb, truth) = model("phantom-mitosis"), phantom()
    side, margin = net.card.tile_px, 24
    corners = np.array([(x, y) for y in range(200, 1280 - side, side) for x in range(200, 1536 - side, side)])
    found = net.predict(np.stack([rgb[y : y + side, x : x + side] for x, y in corners]))
    at = np.concatenate([d.position[d.score >= net.card.detection.threshold] + c for d, c in zip(found, corners, strict=True)])
    known = [p for p in truth.mitoses if ((p > corners + margin) & (p < corners + side - margin)).all(1).any()]
    distance_um = np.hypot(*(at[:, None] - np.array(truth.mitoses)[None]).transpose(2, 0, 1)) * 0.5
    hits = sum(np.hypot(*(at - p).T).min() * 0.5 <= 4 for p in known)
    assert len(known) >= 8
    assert hits >= 0.9 * len(known)
    assert (distance_um.min(1) > 7.5).sum() <= 1
    assert len(net.predict(np.full((1, side, side, 3), 243, np.uint8))[0].score) == 0
