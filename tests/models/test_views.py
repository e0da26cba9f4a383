"""Tiles seen in several positions: what is said of one does not depend on how it lies, and an exported file says the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from wsikit.errors import CardError
from wsikit.models import BUNDLED, load_model, load_network, read_card
from wsikit.models._card import CARD_FILE
from wsikit.models._network import views_of

STS = BUNDLED / "phantom-sts-subtype"
TILES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def seen_in(views: int) -> dict[str, np.ndarray]:
    """What the model says of the tiles, then of the same lying otherwise: mirrored, and turned by a quarter."""
    model = load_network(read_card(STS).model_copy(update={"views": views, "batch": 3, "tile_px": 64}), STS)
    found: dict[str, np.ndarray] = model.predict(np.concatenate([TILES, TILES[:, :, ::-1], np.rot90(TILES, 1, (1, 2))]))
    return found


def apart(found: np.ndarray) -> list[float]:
    """How far the answers of mirrored, and of turned, tiles are from those as they are."""
    return [float(np.abs(found[i : i + 3] - found[:3]).max()) for i in (3, 6)]


def test_the_eight_positions_are_all_there_are() -> None:
    tile = torch.arange(9.0).reshape(1, 1, 3, 3)
    views = [v[0, 0] for v in views_of(tile, 8)]
    assert len({tuple(v.flatten().tolist()) for v in views}) == 8
    for k, view in enumerate(views):
        assert torch.equal(view, torch.rot90(tile[0, 0].flip(1) if k >= 4 else tile[0, 0], k % 4))


def test_what_is_said_does_not_depend_on_how_a_tile_lies() -> None:
    one, four, eight = (seen_in(n) for n in (1, 4, 8))
    assert min(apart(one["feature"])) > 1e-2
    assert apart(four["feature"])[1] < 1e-4 < apart(four["feature"])[0]
    assert max(apart(eight["feature"])) < 1e-4
    assert max(apart(eight["probability"])) < 1e-5
    mean = (four["feature"][:3] + four["feature"][3:6]) / 2
    assert np.abs(eight["feature"][:3] - mean).max() < 1e-4, "the mean of the four positions and of their mirror images"


def folder_with(views: int, where: Path) -> Path:
    """The bundled model with these views, on smaller tiles."""
    shutil.copytree(STS, where)
    card = json.loads((where / CARD_FILE).read_text()) | {"views": views, "tile_px": 64}
    (where / CARD_FILE).write_text(json.dumps(card))
    return where


def test_an_exported_file_has_the_views_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    from wsikit.models.exchange.onnx import export_onnx

    monkeypatch.setenv("WSIKIT_HOME", str(tmp_path / "home"))
    folder = folder_with(8, tmp_path / "m")
    theirs, ours = load_model(export_onnx(folder, tmp_path / "m.onnx")), load_model(folder)
    assert (theirs.card.views, ours.card.views) == (1, 8)
    assert np.abs(theirs.predict(TILES)["probability"] - ours.predict(TILES)["probability"]).max() < 1e-4


def test_views_are_part_of_what_makes_two_models_the_same_and_of_tile_classifiers_only(tmp_path: Path) -> None:
    assert read_card(folder_with(4, tmp_path / "m")).digest != read_card(folder_with(1, tmp_path / "n")).digest
    card = json.loads((BUNDLED / "mitosis" / CARD_FILE).read_text()) | {"views": 8}
    (tmp_path / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(CardError, match="views are of classifiers of torch"):
        read_card(tmp_path)
