"""Weights that are not the card's never load, and nothing is ever unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from wsikit.errors import CardError, UnknownModelError, WeightsMismatchError
from wsikit.models import BUNDLED, available, check_model, family, find_model, load_model, pipelines

Copy = Callable[[str], Any]
NAMES = sorted(p.name for p in BUNDLED.iterdir())
NETWORKS = [n for n in NAMES if n != "phantom-survival"]


@pytest.mark.parametrize("name", NAMES)
def test_bundled_models_are_sound(name: str) -> None:
    assert check_model(BUNDLED / name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_bit_is_noticed(copy_model: Copy, name: str) -> None:
    folder = copy_model(name).path
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(WeightsMismatchError, match="the card says"):
        check_model(folder)


@pytest.mark.parametrize("name", NAMES)
def test_missing_weights_are_named(copy_model: Copy, name: str) -> None:
    folder = copy_model(name).path
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsMismatchError, match=r"model\.safetensors: the weights .* are missing"):
        check_model(folder)


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("write", [pickle.dumps, None], ids=["pickle", "torch.save"])
def test_a_pickle_under_a_safe_name_is_refused_unopened(copy_model: Copy, tmp_path: Path, name: str, write: Callable[[object], bytes] | None) -> None:
    trap = Trap(tmp_path / "sprung")
    if write:
        data = write(trap)
    else:
        torch.save({"w": trap}, tmp_path / "w.pt")
        data = (tmp_path / "w.pt").read_bytes()
    folder = copy_model(name).weights(data)
    with pytest.raises(WeightsMismatchError):
        check_model(folder)
    if name in NETWORKS:
        with pytest.raises(WeightsMismatchError):
            load_model(folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["missing", "extra", "reshaped", "empty"])
def test_tensors_that_do_not_fit_are_refused(copy_model: Copy, name: str, kind: str) -> None:
    folder = copy_model(name)
    tensors = load_file(folder.path / "model.safetensors")
    first = next(k for k in tensors if k.endswith("weight"))
    if kind == "missing":
        del tensors[first]
    elif kind == "extra":
        tensors["surprise"] = torch.zeros(1)
    elif kind == "reshaped":
        tensors[first] = torch.zeros(*tensors[first].shape, 2)
    else:
        tensors = {}
    path = folder.weights(save(tensors))
    with pytest.raises(WeightsMismatchError, match="do not fit"):
        load_model(path)


@pytest.mark.parametrize("name", ["phantom-sts-subtype", "phantom-rms-subtype"])
def test_more_classes_than_outputs_are_refused(copy_model: Copy, name: str) -> None:
    with pytest.raises(WeightsMismatchError, match="do not fit"):
        load_model(copy_model(name).change(classes=[*"ABCDEFGH"]))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("phantom-sts-subtype", {"architecture": {"name": "resnet50"}}),
        ("phantom-sts-subtype", {"architecture": {"name": "densenet", "surprise": 1}}),
        ("phantom-sts-subtype", {"architecture": {}}),
        ("phantom-rms-subtype", {"architecture": {"name": "inception_v3_slim", "width": 3}}),
        ("phantom-rms-subtype", {"architecture": {"name": "inception_v3_slim"}}),
        ("phantom-mitosis", {"architecture": {"name": "yolox-q"}}),
        ("phantom-mitosis", {"architecture": {"name": "yolox", "depth": 0.33}}),
        ("phantom-mitosis", {"architecture": {"name": "yolox", "depth": 0.33, "width": 0.125, "surprise": 1}}),
        ("phantom-mitosis", {"tile_px": 250}),
        ("phantom-mitosis", {"classes": ["mitosis", "lookalike"]}),
        ("phantom-mitosis", {"task": "classify", "detection": None}),
        ("phantom-sts-subtype", {"task": "detect", "detection": {"threshold": 0.5}}),
    ],
)
def test_architectures_that_cannot_be_built_are_the_cards_fault(copy_model: Copy, name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(CardError):
        check_model(copy_model(name).change(**fields))


def test_models_are_found_by_name_pipeline_and_folder(copy_model: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSIKIT_HOME", str(tmp_path / "home"))
    assert set(available()) == set(NAMES)
    for pipeline in set(pipelines()) - {"tissue-type", "tumour"}:
        assert find_model(pipeline, phantoms=True) == find_model(f"phantom-{pipeline}") == BUNDLED / f"phantom-{pipeline}"
        real = BUNDLED / pipeline
        assert find_model(pipeline) == (real if real.is_dir() else BUNDLED / f"phantom-{pipeline}"), "a model of real tissue goes before the phantom's"
    folder = copy_model("phantom-mitosis").change(name="mine")
    assert find_model(folder) == folder
    installed = tmp_path / "home" / "models" / "mine"
    installed.parent.mkdir(parents=True)
    folder.rename(installed)
    assert find_model("mitosis") == find_model("mine") == installed, "an installed model goes before the bundled ones"
    assert find_model("mitosis", phantoms=True) == installed
    assert find_model("phantom-mitosis") == BUNDLED / "phantom-mitosis"


def test_unknown_models_are_refused_with_what_there_is() -> None:
    with pytest.raises(UnknownModelError, match=r"'mitoses'.*phantom-mitosis.*phantom-sts-subtype"):
        load_model("mitoses")
    with pytest.raises(UnknownModelError, match="sts-subtype"):
        family("grading")
    with pytest.raises(UnknownModelError, match="no images"):
        load_model("survival")
