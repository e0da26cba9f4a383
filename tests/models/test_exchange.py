"""Models from elsewhere and for elsewhere: the same numbers, everything said, nothing unpickled, no network."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from wsikit.errors import CardError, ModelError, UnknownModelError, UsageError, WeightsMismatchError
from wsikit.models import BUNDLED, Card, check_model, fetch_model, find_model, load_model, read_card
from wsikit.models._card import Weights, write_model
from wsikit.models.exchange import tia
from wsikit.models.exchange.onnx import export_onnx

onnx = pytest.importorskip("onnx")
TOLD: dict[str, Any] = {"pipeline": "tissue-type", "classes": ["A", "B", "C"], "mpp": 1.0, "tile_px": 64, "batch": 4}
RNG = np.random.default_rng(0)
TILES = RNG.integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, an empty hub cache, and no network."""
    monkeypatch.setenv("WSIKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A ResNet18's state dict as trainers leave it."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=3)
    save_file({f"module.{k}": v.contiguous() for k, v in net.state_dict().items()}, tmp_path / "resnet.safetensors")
    return tmp_path / "resnet.safetensors"


def expected(net: nn.Module, images: np.ndarray = TILES, scaled: bool = True) -> np.ndarray:
    """Probabilities by torchvision's own way of scaling."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    if scaled:
        x = torchvision.transforms.functional.normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        return np.asarray(torch.softmax(net.eval()(x), 1))


def hub(tmp_path: Path, repo: str, files: dict[str, bytes]) -> None:
    """A repository in the hub's cache, as its client leaves it."""
    root, commit = tmp_path / "hub" / f"models--{repo.replace('/', '--')}", "c0ffee" * 6 + "abcd"
    (root / "refs").mkdir(parents=True)
    (root / "refs/main").write_text(commit)
    for i, (name, data) in enumerate(files.items()):
        (root / "blobs").mkdir(exist_ok=True)
        (root / "blobs" / str(i)).write_bytes(data)
        (root / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        (root / "snapshots" / commit / name).symlink_to(root / "blobs" / str(i))


@pytest.mark.parametrize("name", ["phantom-sts-subtype", pytest.param("phantom-rms-subtype", marks=pytest.mark.slow)])
def test_an_exported_model_gives_the_same_probabilities(tmp_path: Path, name: str) -> None:
    out = export_onnx(BUNDLED / name, tmp_path / "out.onnx")
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []
    theirs, ours = load_model(out), load_model(name)
    side = ours.card.tile_px
    images = RNG.integers(0, 256, (ours.card.batch + 1, side, side, 3), dtype=np.uint8)
    a, b = ours.predict(images), theirs.predict(images)
    for key in ("probability", "feature"):
        assert np.abs(a[key] - b[key]).max() < 1e-4 * max(1, np.abs(a[key]).max())
    kept = {"classes", "mpp", "tile_px", "scaling", "stain", "decision", "licence", "trained_on"}
    assert theirs.card.model_dump(include=kept) == ours.card.model_dump(include=kept)
    assert theirs.card.source.startswith(f"exported from model {name} ")
    alone = theirs.predict(images[-1:])
    assert np.array_equal(alone["probability"][0], b["probability"][-1]), "a tile's result does not depend on its neighbours"
    assert find_model(out) == find_model(out)
    with pytest.raises(UsageError, match="is there already"):
        export_onnx(BUNDLED / name, out)


def test_only_classifiers_are_exported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only classifiers"):
        export_onnx(BUNDLED / "phantom-mitosis", tmp_path / "out.onnx")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An ONNX file of somebody else: logits, no card, one batch size."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (torch.zeros(2, 3, 64, 64),), str(tmp_path / "theirs.onnx"), dynamo=False, input_names=["x"], output_names=["y"])
    torch.save(net, tmp_path / "theirs.pth")
    torch.manual_seed(1)
    return tmp_path / "theirs.onnx"


def test_a_foreign_file_becomes_a_model_once_told_what_it_does_not_say(foreign: Path) -> None:
    with pytest.raises(UsageError, match=r"does not say its pipeline, classes, mpp; tell with wsikit models add .*--pipeline … --classes … --mpp …"):
        load_model(foreign)
    folder = fetch_model(str(foreign), **{k: v for k, v in TOLD.items() if k not in ("tile_px", "batch")})
    model = load_model(folder)
    assert (model.card.tile_px, model.card.batch, model.card.architecture) == (64, 2, {"name": "onnx", "output": "y", "gives": "logits"})
    p = model.predict(TILES)["probability"]
    assert p.shape == (5, 3)
    assert p.sum(1) == pytest.approx(1, abs=1e-6)
    assert check_model(folder).classes == ["A", "B", "C"]
    with pytest.raises(CardError, match="no output has 4 numbers"):
        fetch_model(str(foreign), **TOLD | {"classes": [*"ABCD"]})


def test_a_sigmoid_for_each_class_is_not_taken_for_logits(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.Sigmoid())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (torch.zeros(2, 3, 64, 64),), str(tmp_path / "sigmoid.onnx"), dynamo=False)
    with pytest.raises(CardError, match="do not add up to 1, as of a sigmoid"):
        fetch_model(str(tmp_path / "sigmoid.onnx"), **TOLD)


def test_a_card_beside_the_file_is_enough(foreign: Path) -> None:
    made = read_card(fetch_model(str(foreign), **TOLD))
    (foreign.parent / "card.json").write_text(made.model_copy(update={"weights": Weights(file=foreign.name, sha256=made.weights.sha256)}).model_dump_json())
    assert load_model(foreign).card.classes == ["A", "B", "C"]


def test_onnx_files_that_reach_outside_or_are_damaged_are_refused(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "apart").mkdir()
    onnx.save(onnx.load(foreign), tmp_path / "apart/m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(WeightsMismatchError, match="weights are in other files"):
        fetch_model(str(tmp_path / "apart/m.onnx"), **TOLD)
    foreign.write_bytes(foreign.read_bytes()[:200])
    with pytest.raises(WeightsMismatchError, match="ONNX Runtime cannot load it"):
        fetch_model(str(foreign), **TOLD)
    with pytest.raises(UnknownModelError, match="no such file"):
        load_model(tmp_path / "nothing.onnx")


def test_a_state_dict_of_torchvision(state: Path) -> None:
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=3)
    model = load_model(fetch_model(str(state), **TOLD, architecture={"name": "torchvision", "model": "resnet18"}))
    got = model.predict(TILES)
    assert np.abs(got["probability"] - expected(net)).max() < 1e-5
    assert got["feature"].shape == (5, 512)
    for wrong, message in ({"model": "resnet34"}, "missing"), ({"model": "resnet0"}, "no classification model 'resnet0'"):
        with pytest.raises((WeightsMismatchError, CardError), match=message):
            fetch_model(str(state), **TOLD, architecture={"name": "torchvision"} | wrong)
    with pytest.raises(WeightsMismatchError, match=r"fc\.bias has shape \(3,\), the architecture \(2,\)"):
        fetch_model(str(state), **TOLD | {"classes": ["A", "B"]}, architecture={"name": "torchvision", "model": "resnet18"})


def test_a_state_dict_of_timm_and_one_of_fastai(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", pretrained=False, num_classes=3)
    save_file(net.state_dict(), tmp_path / "t.safetensors")
    model = load_model(fetch_model(str(tmp_path / "t.safetensors"), **TOLD, architecture={"name": "timm", "model": "resnet10t"}))
    assert np.abs(model.predict(TILES)["probability"] - expected(net)).max() < 1e-5
    body = nn.Sequential(*list(torchvision.models.resnet18().children())[:-2])

    class Both(nn.Module):
        """fastai's AdaptiveConcatPool2d: the maximum first."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([nn.functional.adaptive_max_pool2d(x, 1), nn.functional.adaptive_avg_pool2d(x, 1)], 1)

    head = [Both(), nn.Flatten(), nn.BatchNorm1d(1024), nn.Dropout(0.25), nn.Linear(1024, 512, bias=False), nn.ReLU()]
    learner = nn.Sequential(body, nn.Sequential(*head, nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, 3, bias=False)))
    save_file(learner.state_dict(), tmp_path / "f.safetensors")
    model = load_model(fetch_model(str(tmp_path / "f.safetensors"), **TOLD, architecture={"name": "fastai", "model": "resnet18", "bias": False}))
    got = model.predict(TILES)
    assert np.abs(got["probability"] - expected(learner)).max() < 1e-5
    assert got["feature"].shape == (5, 512)


def test_arguments_that_would_open_files_are_refused(state: Path) -> None:
    for argument in ("checkpoint_path", "pretrained_cfg", "cache_dir"):
        with pytest.raises(CardError, match=argument):
            fetch_model(str(state), **TOLD, architecture={"name": "timm", "model": "resnet10t", argument: "/tmp/x.pth"})
    with pytest.raises(CardError, match="timm has no model"):
        fetch_model(str(state), **TOLD, architecture={"name": "timm", "model": "hf-hub:owner/name"})


@pytest.mark.parametrize("name", ["theirs.pth", "export.pkl", "pytorch_model.bin"])
def test_pickles_are_refused_unopened_with_the_way_to_convert_them(foreign: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_bytes((tmp_path / "theirs.pth").read_bytes())
    with pytest.raises(UsageError, match="weights_only=True") as caught:
        fetch_model(str(target), **TOLD)
    assert "\n" not in str(caught.value)


def test_the_advice_for_pickles_works(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of the message, run as it is, in this process."""
    import shlex

    from wsikit.models.exchange import SAFELY

    net = torchvision.models.resnet18(num_classes=3)
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, tmp_path / "IN.pth")
    command = shlex.split(SAFELY.split("installed: ")[1].split(" – ")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["-c", *command[3:]])
    exec(command[2], {})
    model = load_model(fetch_model(str(tmp_path / "OUT.safetensors"), **TOLD, architecture={"name": "torchvision", "model": "resnet18"}))
    assert np.abs(model.predict(TILES)["probability"] - expected(net)).max() < 1e-5


def test_a_hub_repository_with_a_card_is_a_model(tmp_path: Path) -> None:
    folder = BUNDLED / "phantom-sts-subtype"
    hub(tmp_path, "owner/name", {n: (folder / n).read_bytes() for n in ("card.json", "model.safetensors")})
    model = load_model("hf:owner/name")
    assert model.digest == read_card(folder).digest
    assert find_model("hf:owner/name@main").name.startswith("c0ffee")
    with pytest.raises(UnknownModelError, match="nothing of it is cached"):
        load_model("hf:owner/other")
    with pytest.raises(UsageError, match="not the name of a repository"):
        load_model("hf:../../etc")


def test_a_hub_repository_of_timm_needs_the_mpp_and_says_its_licence(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", pretrained=False, num_classes=3)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    config = {
        "architecture": "resnet10t",
        "num_classes": 3,
        "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }
    page = b"---\nlicense: cc-by-nc-4.0\n---\n# A model\n"
    hub(tmp_path, "a/timm", {"config.json": json.dumps(config).encode(), "model.safetensors": (tmp_path / "w.safetensors").read_bytes(), "README.md": page})
    with pytest.raises(UsageError, match="does not say its pipeline, classes, mpp"):
        load_model("hf:a/timm")
    model = load_model(fetch_model("hf:a/timm", **{k: v for k, v in TOLD.items() if k != "tile_px"}))
    assert (model.card.licence, model.card.tile_px) == ("cc-by-nc-4.0", 64)
    assert model.card.source.startswith("hf:a/timm@c0ffee")
    assert np.abs(model.predict(TILES)["probability"] - expected(net)).max() < 1e-5


def test_a_hub_repository_of_a_pickle_only_is_refused(tmp_path: Path) -> None:
    hub(tmp_path, "a/pickle", {"pytorch_model.bin": b"never opened", "README.md": b"# x"})
    with pytest.raises(UsageError, match="is a pickle, which can run code"):
        load_model("hf:a/pickle")


def test_timm_by_name_from_its_cache(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", pretrained=False)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    hub(tmp_path, net.default_cfg["hf_hub_id"], {"model.safetensors": (tmp_path / "w.safetensors").read_bytes()})
    model = load_model("timm:resnet10t")
    assert (len(model.card.classes), model.card.trained_on.domain, model.card.mpp) == (1000, "photographs", 0.5)
    side = model.card.tile_px
    assert model.predict(np.zeros((1, side, side, 3), np.uint8))["feature"].shape == (1, 512)
    with pytest.raises(UnknownModelError, match="timm has no such network; near: resnet"):
        load_model("timm:resnet10000")
    with pytest.raises(UnknownModelError, match="cannot be fetched"):
        load_model("timm:resnet14t")


def fake_tiatoolbox(monkeypatch: pytest.MonkeyPatch, net: nn.Module) -> None:
    """A stand-in that changes what the real one changes when it is imported."""

    def get_pretrained_model(name: str) -> tuple[nn.Module, Any]:
        import dask

        logging.captureWarnings(True)
        logging.getLogger().addHandler(logging.NullHandler())
        logging.getLogger().setLevel(logging.INFO)
        dask.config.set(scheduler="threads")
        torch._dynamo.config.suppress_errors = True
        os.environ["MASTER_PORT"] = "1"
        if not name.startswith("resnet18"):
            raise ValueError(name)
        return net, types.SimpleNamespace(input_resolutions=[{"units": "mpp", "resolution": 0.5}], patch_input_shape=[64, 64])

    for name in ("tiatoolbox", "tiatoolbox.models", "tiatoolbox.models.architecture"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["tiatoolbox.models.architecture"].get_pretrained_model = get_pretrained_model  # type: ignore[attr-defined]


class CNNModel(nn.Module):
    """As TIAToolbox lays its classifiers out."""

    def __init__(self) -> None:
        super().__init__()
        self.feat_extract = nn.Sequential(*list(torchvision.models.resnet18().children())[:-2])
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(512, 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.pool(self.feat_extract(x)), 1))


def test_tiatoolbox_models_give_its_numbers_and_leave_no_setting_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    def settings() -> Any:
        root = logging.getLogger()
        return root.handlers[:], root.level, warnings.showwarning, dask.config.get("scheduler", None), torch._dynamo.config.suppress_errors, dict(os.environ)

    net = CNNModel()
    fake_tiatoolbox(monkeypatch, net)
    before = settings()
    model = load_model("tia:resnet18-kather100k")
    assert settings() == before
    assert (model.card.mpp, model.card.tile_px, model.card.classes[3], model.card.pipeline) == (0.5, 64, "TUM", "tissue-type")
    assert np.abs(model.predict(TILES)["probability"] - expected(net, scaled=False)).max() < 1e-5
    with pytest.raises(UnknownModelError, match="has no such model"):
        load_model("tia:resnet19-kather100k")
    assert settings() == before
    with pytest.raises(UnknownModelError, match="BACKBONE-kather100k or BACKBONE-pcam"):
        load_model("tia:resnet18")


def test_without_tiatoolbox_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiatoolbox", None)
    with pytest.raises(ModelError, match="extra 'tia'"):
        tia.pretrained("resnet18-kather100k")


def test_a_younger_field_left_empty_keeps_a_models_digest() -> None:
    card = read_card(BUNDLED / "phantom-sts-subtype")
    survival = read_card(BUNDLED / "phantom-survival")
    assert survival.risk is not None
    assert card.digest == survival.risk.models["sts-subtype"]
    assert card.model_copy(update={"source": "hf:a/b"}).digest != card.digest


def test_models_of_photographs_withhold_their_calls(tmp_path: Path) -> None:
    from wsikit.aggregate.doubt import outside_domain

    said = json.loads((BUNDLED / "phantom-sts-subtype/card.json").read_text()) | {"trained_on": {"domain": "photographs", "description": "things"}}
    assert "trained on photographs" in outside_domain(Card(**said), False)


def test_files_of_a_card_cannot_leave_its_folder(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED / "phantom-sts-subtype", tmp_path / "m"))
    said = json.loads((folder / "card.json").read_text())
    for name in ("../model.onnx", "a/b.onnx", "/etc/passwd", "model.pth", "model.onnx.pkl"):
        said["weights"]["file"] = name
        (folder / "card.json").write_text(json.dumps(said))
        with pytest.raises(CardError, match=r"weights\.file"):
            check_model(folder)


def test_write_model_takes_any_architecture_of_a_library(tmp_path: Path) -> None:
    net = timm.create_model("resnet10t", pretrained=False, num_classes=5)
    fields = {"name": "m", "pipeline": "sts-subtype", "task": "classify", "classes": [*"ABCDE"], "architecture": {"name": "timm", "model": "resnet10t"}}
    fields |= {"tile_px": 64, "trained_on": {"domain": "histology", "description": ""}, "licence": "x"}
    write_model(tmp_path / "m", fields, net.state_dict())
    assert check_model(tmp_path / "m").name == "m"
