"""KongNet as TIAToolbox has it: its layout of weights, its map, and its peaks, by figures of TIAToolbox itself and, where it is installed, beside it."""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wsikit.errors import CardError, ModelError, UsageError, WeightsMismatchError
from wsikit.models import Card, fetch_model, load_model, read_card
from wsikit.models._card import Scaling
from wsikit.models._kongnet import KongNet
from wsikit.models.exchange import tia
from wsikit.models.exchange.state import write_fitted
from wsikit.models.mitosis import build

SMALL = "test_efficientnet"  # timm's, of 0.3 million weights
GAIN = 6.0  # of the last layer, so that the map goes from 0 to 1


def filled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that are the same everywhere, whatever draws them."""
    out = {}
    for i, (k, v) in enumerate(sorted(state.items())):
        n = np.random.default_rng(i).standard_normal(tuple(v.shape)).astype(np.float32)
        if not v.is_floating_point():
            out[k] = torch.zeros_like(v)
            continue
        if k.endswith("running_var"):
            n = 1 + 0.2 * np.abs(n)
        elif v.ndim > 1:
            n *= (2 / v[0].numel()) ** 0.5
        else:
            n = 1 + 0.1 * n if k.endswith("weight") else 0.1 * n
        out[k] = torch.from_numpy(n) * (GAIN if k == "heads.0.0.weight" else 1)
    return out


def tile(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side].astype(np.float64)
    rgb = [150 + 60 * np.sin(x / 7 + c) * np.cos(y / (9 + c)) + 40 * np.sin((x * y) / (900 + 50 * c)) for c in range(3)]
    return np.clip(np.stack(rgb, -1), 0, 255).astype(np.uint8)


# What TIAToolbox 2.1.3's NucleusDetector finds with these weights on `tile(256)`, min_distance 21 and threshold_abs 0.3: row, column, probability.
# (Of patches that release names the row x and the column y; of slides it does not. The map's maximum is in row 255, column 0.)
THEIRS = [
    *[(255, 0, 0.56645), (255, 208, 0.56085), (255, 160, 0.55368), (255, 252, 0.54271), (255, 116, 0.53524), (255, 72, 0.53074), (255, 28, 0.52917)],
    *[(1, 29, 0.47819), (1, 0, 0.47675), (1, 71, 0.46658), (1, 117, 0.46247), (1, 230, 0.46078), (209, 18, 0.46057), (1, 190, 0.45564), (1, 142, 0.45516)],
    *[(150, 0, 0.45477), (33, 0, 0.45309), (199, 208, 0.45269), (97, 0, 0.45021), (207, 240, 0.45007), (177, 170, 0.44783), (173, 210, 0.4405)],
    *[(175, 236, 0.4397), (205, 146, 0.43836), (169, 142, 0.43142), (199, 120, 0.43121), (141, 210, 0.428), (143, 168, 0.4257), (111, 216, 0.4246)],
    *[(149, 242, 0.4186), (107, 38, 0.41718), (175, 104, 0.41469), (75, 236, 0.41301), (105, 170, 0.40722), (79, 168, 0.40632), (85, 78, 0.40478)],
    *[(35, 132, 0.40439), (29, 30, 0.40216), (25, 70, 0.40053), (147, 84, 0.39475), (31, 248, 0.39229), (37, 202, 0.39058), (191, 72, 0.38968)],
    *[(115, 104, 0.38534), (79, 32, 0.38463), (163, 52, 0.38128)],
]
PLAN = {"mpp": 0.5, "tile_px": 256, "threshold": 0.3, "min_distance_px": 21}


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSIKIT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def folder(models: None) -> Path:
    """The model folder of the small one."""
    fields = tia.kongnet_fields("tia:KongNet_Det_MIDOG_1", PLAN, {"batch": 1})
    fields["architecture"] |= {"encoder": SMALL}
    return write_fitted(fields, filled(KongNet(SMALL).state_dict()), "a test")


def test_the_layout_is_that_of_tiatoolbox_files() -> None:
    """The names and shapes that TIAToolbox 2.1.3 gives ``KongNet(num_heads=1, num_channels_per_head=[1], …)``."""
    with torch.device("meta"):
        state = KongNet().state_dict()
    lines = "\n".join(f"{k} {tuple(v.shape)}" for k, v in sorted(state.items()))
    assert (len(state), sum(v.numel() for v in state.values())) == (1728, 126_912_463)
    assert hashlib.sha256(lines.encode()).hexdigest() == "dfcd702d1a1904532a906f5f78db688de6bd779a10a61c45f16d97d4b06b2186"


def test_it_finds_what_tiatoolbox_finds(folder: Path) -> None:
    """Its pixels are counted by their corner there, and by their centre here."""
    model = load_model(folder)
    (found,) = model.predict(tile(256)[None])
    counted = found.score >= np.float32(0.3)
    ours = np.column_stack([found.position[:, ::-1] - 0.5, found.score])[counted]
    ours, theirs = (np.array(sorted(map(tuple, rows))) for rows in (ours.tolist(), THEIRS))
    assert np.array_equal(ours[:, :2], theirs[:, :2])
    assert np.abs(ours[:, 2] - theirs[:, 2]).max() < 1e-4
    assert (found.size == 25).all(), "12.5 µm"
    detection = model.card.detection
    assert detection is not None
    assert (detection.threshold, detection.merge_um, model.card.mpp, model.card.scaling) == (0.3, 10.5, 0.5, Scaling())
    assert "CC BY 4.0" in model.card.licence
    assert "cited" in model.card.trained_on.description


def test_a_map_without_numbers_is_no_tile_without_mitoses(folder: Path) -> None:
    model = load_model(folder)
    torch.nn.init.constant_(model.net.heads[0][0].bias, float("nan"))
    with pytest.raises(ModelError, match="gave no number"):
        model.predict(tile(256)[None])


def test_by_name_it_comes_through_tiatoolbox(monkeypatch: pytest.MonkeyPatch) -> None:
    net = KongNet(SMALL)
    net.load_state_dict(filled(net.state_dict()))
    net.threshold_abs, net.min_distance = 0.3, 21  # type: ignore[assignment]
    plan = types.SimpleNamespace(input_resolutions=[{"units": "mpp", "resolution": 0.5}], patch_input_shape=[256, 256])
    for name in ("tiatoolbox", "tiatoolbox.models", "tiatoolbox.models.architecture"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["tiatoolbox.models.architecture"], "get_pretrained_model", lambda name: (net, plan), raising=False)
    monkeypatch.setattr(KongNet.__init__, "__defaults__", (SMALL, *KongNet.__init__.__defaults__[1:]))
    card = read_card(fetch_model("tia:kongnet_det_midog_1"))
    assert (card.source, card.tile_px, card.architecture["min_distance_px"]) == ("tia:KongNet_Det_MIDOG_1", 256, 21)
    assert card.detection is not None
    assert card.detection.threshold == 0.3
    for other in ("mapde-conic", "KongNet_CoNIC_1"):
        with pytest.raises(UsageError, match="finds nuclei of all kinds"):
            load_model(f"tia:{other}")


def test_its_file_as_safetensors_needs_no_tiatoolbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command that `PICKLES` names makes it of ``{"model": …}``."""
    monkeypatch.setattr(KongNet.__init__, "__defaults__", (SMALL, *KongNet.__init__.__defaults__[1:]))
    state = filled(KongNet().state_dict())
    path = tmp_path / "KongNet_Det_MIDOG_1.safetensors"
    save_file(state, path)
    card = read_card(fetch_model(str(path)))
    assert (card.name, card.mpp, card.tile_px, card.detection and card.detection.threshold) == ("tia-kongnet_det_midog_1", 0.5, 512, 0.99)
    assert read_card(fetch_model(str(path), threshold=0.9)).detection.threshold == 0.9  # type: ignore[union-attr]
    save_file({k: v for k, v in state.items() if "sSE" not in k}, path)
    with pytest.raises(WeightsMismatchError, match=r"attention.sSE.*missing"):
        fetch_model(str(path))


@pytest.mark.parametrize(("arguments", "why"), [({"encoder": "resnet10000"}, "timm has no model 'resnet10000'"), ({"widths": [8]}, "widths must be 5")])
def test_an_architecture_that_cannot_be_is_refused(arguments: dict[str, Any], why: str) -> None:
    fields = tia.kongnet_fields("here", PLAN, {})
    card = Card(**{**fields, "architecture": fields["architecture"] | arguments}, weights={"sha256": "0" * 64})
    with pytest.raises(CardError, match=why):
        build(card)
