"""The preset for pictures of one cell: its network starts from published weights and from a detector, and looks at the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from wsikit.errors import WeightsMismatchError
from wsikit.models import BUNDLED, load_model, read_card
from wsikit.models._lite import LiteNet
from wsikit.models.mitosis import build
from wsikit.train.classify import Options
from wsikit.train.initial import initialise
from wsikit.train.presets import choose_recipe
from wsikit.train.tasks import subtype

LITE = {"name": "lite"}


def started(initial: str, stages: int = 5) -> LiteNet:
    """A network that starts from weights."""
    net = LiteNet(2, stages)
    initialise(net, list(net.head.parameters()), LITE, initial, lambda _: None)
    return net.eval()


def test_it_starts_from_timms_weights_and_has_its_maps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = timm.create_model("efficientnet_lite0").eval()
    save_file(theirs.state_dict(), tmp_path / "lite0.safetensors")
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = theirs.blocks[:5](theirs.bn1(theirs.conv_stem(x)))
        found = started(str(tmp_path / "lite0.safetensors")).trunk(x)
    assert found.shape == (1, 112, 4, 4)
    assert torch.allclose(found, expected, atol=1e-5)


def test_it_starts_from_the_second_look_of_a_detector() -> None:
    verifier = load_model("mitosis").net.verifier
    net = started("mitosis")
    assert all(torch.allclose(v, net.trunk.state_dict()[k].to(v)) for k, v in verifier.trunk.state_dict().items())
    assert not torch.allclose(net.head.weight, verifier.head.weight)
    assert build(read_card(BUNDLED / "mitosis")).verifier.drop.p == net.drop.p
    with pytest.raises(WeightsMismatchError, match="tensors fit network lite"):
        started("mitosis", 7)


def test_half_of_what_it_pools_is_of_the_middle_only() -> None:
    """Maps of 8 × 8: what changes in a corner of the tile is not in the second half of the features."""
    torch.manual_seed(0)
    net = LiteNet(2, 1, 0.25).eval()
    net.head = torch.nn.Identity()  # type: ignore[assignment]
    x = torch.rand(1, 3, 64, 64)
    y = x.clone()
    y[..., :8, :8] += 1
    with torch.inference_mode():
        changed = (net(x) - net(y)).abs()[0].split(4)
    assert changed[0].max() > 0
    assert changed[1].max() == 0


def test_a_model_of_the_preset_sees_its_tiles_in_eight_positions(tmp_path: Path) -> None:
    rng, side = np.random.default_rng(0), 32
    rows = ["path,label,patient,mpp,split"]
    for n in range(12):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
        rows.append(f"{n}.png,{'ab'[n % 2]},P{n // 4},0.25,{'val' if n >= 8 else 'train'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    values = {"architecture": {"name": "lite", "stages": 1, "width": 0.25}, "initial": "none", "tile_px": side, "batch": 4}
    recipe = choose_recipe("subtype", "cell", values=values, epochs=1)
    card = subtype("subtype", tmp_path / "labels.csv", tmp_path / "m", recipe, Options(log=lambda _: None))
    assert (card.views, card.architecture["name"], card.stain) == (8, "lite", "none")
    model = load_model(tmp_path / "m")
    tiles = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    once, turned = (model.predict(t)["probability"] for t in (tiles, np.rot90(tiles, 1, (1, 2)).copy()))
    assert np.abs(once - turned).max() < 1e-5
