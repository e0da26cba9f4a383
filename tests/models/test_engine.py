"""Engines on a CPU: the same answers as torch within their limits, chosen by rule, part of the recipe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import wsikit as wk
from wsikit.errors import ModelError, UsageError
from wsikit.models import BUNDLED, _engine, load_model, load_network, read_card
from wsikit.models._engine import BFLOAT16, OPENVINO, TORCH, Compiled, accelerate, choose_engine, probe_tiles
from wsikit.testing.phantom import Spec, write_phantom

openvino = pytest.importorskip("openvino")
STS = BUNDLED / "phantom-sts-subtype"
has_bf16 = pytest.mark.skipif("BF16" not in _engine._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="this processor has no bfloat16")


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home where what is converted is kept."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("WSIKIT_HOME", str(folder))
        yield folder


def forget(home: Path) -> None:
    """Forget what was measured, but not what was converted."""
    for file in home.glob("cache/engines/*/*.json"):
        file.unlink()


@pytest.mark.parametrize(("engine", "limit"), [(OPENVINO, 1e-3), pytest.param(BFLOAT16, 2e-2, marks=has_bf16)])
def test_an_engine_gives_torchs_answers_within_its_limit_and_always_the_same_bits(engine: str, limit: float) -> None:
    card = read_card(STS).model_copy(update={"batch": 4})
    ours, theirs, again = (load_network(card, STS) for _ in range(3))
    accelerate(theirs, engine)
    accelerate(again, engine)
    images = probe_tiles(card.tile_px, 6)
    images[5] = np.random.default_rng(0).integers(0, 256, images[5].shape)
    a, b = ours.predict(images), theirs.predict(images)
    assert np.abs(a["probability"] - b["probability"]).max() < limit
    assert (a["probability"].argmax(1) == b["probability"].argmax(1)).all()
    assert np.abs(a["feature"] - b["feature"]).max() < limit * np.abs(a["feature"]).max()
    for i in (0, len(images) - 1):
        assert np.array_equal(theirs.predict(images[i : i + 1])["probability"][0], b["probability"][i])
    assert np.array_equal(again.predict(images)["feature"], b["feature"])


def test_small_models_other_tasks_and_devices_stay_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    card = read_card(STS)
    assert choose_engine(card, STS, "cpu") == (TORCH, None), "the bundled ones are not worth the conversion"
    monkeypatch.setattr(_engine, "LARGE_BYTES", 1000)
    assert choose_engine(card, STS, "cuda") == (TORCH, None)
    mitosis = BUNDLED / "phantom-mitosis"
    assert choose_engine(read_card(mitosis), mitosis, "cpu") == (TORCH, None)
    with pytest.raises(ModelError, match="runs classifiers of torch on the CPU"):
        choose_engine(card, STS, "cuda", OPENVINO)
    with pytest.raises(UsageError, match="engine 'tensorrt': there are auto, torch, openvino, openvino-bf16"):
        choose_engine(card, STS, "cpu", "tensorrt")


@pytest.mark.parametrize("quick", [False, pytest.param(True, marks=has_bf16)])
def test_large_classifiers_take_openvino_and_bfloat16_only_where_it_is_quick(monkeypatch: pytest.MonkeyPatch, home: Path, quick: bool) -> None:
    forget(home)
    monkeypatch.setattr(_engine, "LARGE_BYTES", 1000)
    monkeypatch.setattr(_engine, "_has_bfloat16", lambda: quick)
    engine, difference = choose_engine(read_card(STS), STS, "cpu")
    assert engine == (BFLOAT16 if quick else OPENVINO)
    assert difference is not None
    assert 0 <= difference <= _engine.LIMIT[engine]
    monkeypatch.setattr(Compiled, "forward", lambda self, x: pytest.fail("measured again"))
    assert choose_engine(read_card(STS), STS, "cpu") == (engine, difference)


def test_an_engine_that_differs_too_much_is_not_taken(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    forget(home)
    monkeypatch.setattr(_engine, "LARGE_BYTES", 1000)
    features = load_model(STS).feature_size  # type: ignore[attr-defined]
    monkeypatch.setattr(Compiled, "forward", lambda self, x: 50 * torch.randn(len(x), features, generator=torch.Generator().manual_seed(0)))
    assert choose_engine(read_card(STS), STS, "cpu") == (TORCH, None)
    with pytest.raises(ModelError, match=r"engine openvino differs from torch by .* in a probability, and in a call; use --engine torch"):
        choose_engine(read_card(STS), STS, "cpu", OPENVINO)
    forget(home)


def test_bfloat16_on_a_processor_without_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worker elsewhere would quietly give float32's numbers."""

    class Core:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr(_engine, "_core", Core)
    with pytest.raises(ModelError, match="no bfloat16, and would give other numbers"):
        Compiled(tmp_path / "x", (1, 3, 64, 64), BFLOAT16)


def test_the_engine_is_part_of_the_recipe_and_stated_in_the_result(tmp_path: Path) -> None:
    write_phantom(tmp_path / "a.tif", Spec(12, "UPS", 960, 960))

    def score(out: str, **options: str) -> dict[str, object]:
        run = wk.score([tmp_path / "a.tif"], tmp_path / out, ["sts-subtype"], block_px=512, **options)  # type: ignore[arg-type]
        assert not run.failed
        return run.results["a"]

    torch_, ov = score("torch"), score("ov", engine=OPENVINO)
    said = ov["provenance"]["models"]["sts-subtype"]  # type: ignore[index]
    assert said["engine"] == OPENVINO
    assert said["engine_difference"] <= 1e-3
    assert torch_["provenance"]["models"]["sts-subtype"]["engine"] == TORCH  # type: ignore[index]
    a, b = (r["pipelines"]["sts-subtype"] for r in (torch_, ov))  # type: ignore[index]
    assert a["call"] == b["call"]
    assert a["probability"] == pytest.approx(b["probability"], abs=1e-3)
    keys = [r["provenance"]["stages"]["sts-subtype"]["key"] for r in (torch_, ov)]  # type: ignore[index]
    assert keys[0] != keys[1]
    same = score("ov")  # resumed without a word about the engine
    assert same["provenance"] == ov["provenance"]
    score("torch", engine=OPENVINO)
    assert json.loads((tmp_path / "torch/slides/a.json").read_text())["provenance"]["stages"]["sts-subtype"]["key"] == keys[1], "done again"
