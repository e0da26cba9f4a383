"""Gated weights are used once their licence was accepted, not before; whose weights are in a model is in its card and on its results. No network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import wsikit as wk
from wsikit.errors import CardError, DamagedStoreError, LicenceError, UnknownModelError, UsageError
from wsikit.models import BUNDLED, fetch_model, load_model, read_card
from wsikit.models._backbone import _timm
from wsikit.models._card import Card, is_non_commercial
from wsikit.models.exchange.encoders import encoder_card, encoder_values, encoder_weights
from wsikit.models.exchange.licences import ENCODERS, accept, accepted, require_accepted, terms_of
from wsikit.models.sts_subtype import build
from wsikit.report import write_reports
from wsikit.testing.phantom import Spec, write_phantom
from wsikit.train.initial import initialise
from wsikit.train.mil import mil_recipe
from wsikit.train.presets import choose_recipe

COMMIT = "c0ffee" * 6 + "abcd"
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "init_values": 1e-5}
PAGE = "---\nlicense: cc-by-nc-nd-4.0\nextra_gated_prompt: Say who you are.\n---\n# An encoder\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, an empty hub cache, and no network."""
    monkeypatch.setenv("WSIKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


def put(tmp_path: Path, repo: str, files: dict[str, bytes]) -> None:
    """A repository in the hub's cache, as its client leaves it."""
    root = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
    for folder in ("refs", "blobs", f"snapshots/{COMMIT}"):
        (root / folder).mkdir(parents=True)
    (root / "refs/main").write_text(COMMIT)
    for i, (name, data) in enumerate(files.items()):
        (root / "blobs" / str(i)).write_bytes(data)
        (root / "snapshots" / COMMIT / name).symlink_to(root / "blobs" / str(i))


@pytest.fixture
def encoder(tmp_path: Path) -> Any:
    """An encoder with random weights in the place of UNI, as timm puts encoders on the hub."""
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, **VIT)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    look = {"input_size": [3, 32, 32], "mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.2], "num_classes": 0}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": VIT | {"num_classes": 0}, "pretrained_cfg": look}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": (tmp_path / "w.safetensors").read_bytes(), "README.md": PAGE.encode()}
    put(tmp_path, "MahmoodLab/UNI", files)
    return net


def test_nothing_of_it_is_used_before_its_licence_was_accepted(encoder: Any, home: Path) -> None:
    for use in (lambda: fetch_model("hf:MahmoodLab/UNI"), lambda: encoder_values("uni"), lambda: encoder_weights("hf:mahmoodlab/uni")):
        with pytest.raises(LicenceError, match=r"CC-BY-NC-ND-4\.0 \(non-commercial use only\), .* run wsikit models accept MahmoodLab/UNI"):
            use()
    terms = terms_of("MahmoodLab/UNI")
    assert (terms.prompt, terms.gated, terms.use) == ("Say who you are.", True, "non-commercial use only")
    assert accept(terms) == home / "licences.json"
    entry = accepted()["mahmoodlab/uni"]
    assert entry["licence"] == "CC-BY-NC-ND-4.0"
    assert entry["accepted"][:2] == "20"
    require_accepted("MahmoodLab/UNI")
    (home / "licences.json").write_text(json.dumps({"mahmoodlab/uni": entry | {"licence": "MIT"}}))
    with pytest.raises(LicenceError):
        require_accepted("MahmoodLab/UNI")  # another licence is another question
    (home / "licences.json").write_text("{torn")
    with pytest.raises(DamagedStoreError, match="remove it"):
        require_accepted("MahmoodLab/UNI")


def test_other_gated_repositories_ask_too_and_open_ones_do_not(tmp_path: Path) -> None:
    put(tmp_path, "a/gated", {"README.md": PAGE.encode()})
    put(tmp_path, "a/open", {"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"})
    with pytest.raises(LicenceError, match="run wsikit models accept a/gated"):
        fetch_model("hf:a/gated")
    require_accepted("a/open")
    with pytest.raises(UnknownModelError, match="HF_HUB_OFFLINE"):
        require_accepted("a/nowhere")


def test_an_encoder_becomes_the_one_of_a_slide_model_and_its_licence_goes_along(encoder: Any) -> None:
    accept(terms_of("MahmoodLab/UNI"))
    with pytest.raises(UsageError, match="is an encoder, without classes of its own; train with it: wsikit train … --mil"):
        fetch_model("hf:uni")
    recipe = mil_recipe(choose_recipe("sts-subtype", values={"architecture": "uni", "mpp": 0.5}))
    assert (recipe.tile_px, recipe.initial, recipe.stain) == (32, "hf:MahmoodLab/UNI", "none")
    card = encoder_card(recipe.architecture)
    assert card["scaling"] == {"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.2]}
    assert is_non_commercial(card["licence"])
    fields: dict[str, Any] = {"name": "m", "pipeline": "sts-subtype", "task": "classify", "classes": ["SS", "UPS"], "tile_px": 32, "batch": 4}
    fields |= {"trained_on": {"domain": "phantom", "description": ""}, "weights": {"sha256": "0" * 64}, "architecture": recipe.architecture} | card
    net: Any = build(Card(**fields))
    origin = initialise(net.encoder, [], recipe.architecture["encoder"], recipe.initial, lambda _: None)
    assert origin == f"hf:MahmoodLab/UNI@{COMMIT}"
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(net.eval().encoder(x), encoder.eval()(x), atol=1e-6), "the features are the encoder's own"


def test_a_foundation_encoder_sees_pixels_as_scanned_unless_a_stain_is_asked_for(encoder: Any, tmp_path: Path) -> None:
    accept(terms_of("MahmoodLab/UNI"))
    file = tmp_path / "mine.toml"
    file.write_text('preset = "zhang"\nstain = "macenko"\n')  # which is the preset's own, and yet said
    plain = choose_recipe("sts-subtype", values={"architecture": "uni"})
    assert (plain.stain, mil_recipe(plain).stain) == ("none", "none")
    assert plain.source("stain") == "foundation encoders learned from slides as they were scanned"
    assert choose_recipe("sts-subtype", values={"architecture": "uni", "stain": "reinhard"}).stain == "reinhard"
    assert choose_recipe("sts-subtype", file=file, values={"architecture": "uni"}).stain == "macenko"
    assert choose_recipe("sts-subtype", values={"architecture": "timm:resnet18"}).stain == "vahadane", "of ImageNet's weights nothing changes"


def test_a_pickled_encoder_is_refused_with_the_way_on_and_unreadable_ones_with_the_reason(tmp_path: Path) -> None:
    put(tmp_path, "MahmoodLab/UNI", {"pytorch_model.bin": b"never opened", "config.json": b"{}"})
    accept(terms_of("MahmoodLab/UNI"))
    with pytest.raises(UsageError, match=r"pytorch_model\.bin is a pickle.*weights_only=True.*--init") as caught:
        encoder_weights("uni")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"has no config\.json of timm.*--architecture timm:…, and --init FILE"):
        encoder_values("uni")
    for name in ("conch", "phikon"):
        with pytest.raises(UsageError, match="cannot be read here; of those known by name these can: uni, "):
            encoder_values(name)
    with pytest.raises(UsageError, match="cannot be read here"):
        fetch_model(f"hf:{ENCODERS['conch'].repo}")


def test_packed_swiglu_is_named_in_a_card() -> None:
    """UNI2-h and Virchow are made with a layer that JSON can only name."""
    named = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu", "global_pool": "token", "img_size": 28, "embed_dim": 16, "depth": 1, "num_heads": 2}
    net: Any = _timm("vit_giant_patch14_224", 2, weights_of="MahmoodLab/UNI2-h", **named | {"mlp_ratio": 2.0})
    assert type(net.blocks[0].mlp).__name__ == "GluMlp"
    assert type(net.blocks[0].mlp.act).__name__ == "SiLU"
    with pytest.raises(CardError, match="mlp_layer 'os'"):
        _timm("vit_giant_patch14_224", 2, mlp_layer="os")


def test_non_commercial_models_say_so_on_every_result(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED / "phantom-sts-subtype", tmp_path / "nc"))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"licence": "CC-BY-NC-ND-4.0"}))
    assert read_card(folder).terms == {"terms": "non-commercial use only (CC-BY-NC-ND-4.0)"}
    assert load_model("phantom-sts-subtype").card.terms == {}
    write_phantom(tmp_path / "a.tif", Spec(3, "LMS", 768, 768))
    run = wk.score([tmp_path / "a.tif"], tmp_path / "run", ["sts-subtype"], models={"sts-subtype": folder})
    assert run.results["a"]["pipelines"]["sts-subtype"]["model"]["terms"] == "non-commercial use only (CC-BY-NC-ND-4.0)"
    assert "non-commercial use only (CC-BY-NC-ND-4.0)" in (write_reports(run.folder).parent / "a.html").read_text()


def test_a_revision_that_was_named_is_the_one_that_is_taken(encoder: Any) -> None:
    accept(terms_of("MahmoodLab/UNI"))
    values = encoder_values("hf:MahmoodLab/UNI@" + COMMIT)
    assert values["initial"].endswith("@" + COMMIT)
    tensors, _ = encoder_weights(values["initial"])
    assert np.array_equal(tensors["cls_token"].numpy(), encoder.cls_token.detach().numpy())
