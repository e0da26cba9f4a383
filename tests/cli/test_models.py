"""``wsikit models``: what is at hand, shown, added and checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from wsikit.models import LeftOutWarning, find_model, read_card

BUNDLED = ["mitosis", "phantom-mitosis", "phantom-rms-subtype", "phantom-sts-subtype", "phantom-survival"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for installed models."""
    monkeypatch.setenv("WSIKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home/models"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A model of one's own, with a note beside it that is not part of it."""
    folder = Path(shutil.copytree(find_model("mitosis"), tmp_path / "mine"))
    card = json.loads((folder / "card.json").read_text()) | {"name": "my-mitosis", "licence": "CC-BY-4.0"}
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "patients.txt").write_text("not to be copied")
    return folder


def test_list_names_the_bundled_with_licence_domain_and_digest(cli: Any) -> None:
    answer = cli("models", "list")
    assert answer.code == 0
    _, *lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines] == BUNDLED
    cards = cli("models", "list", "--json").json
    assert [c["name"] for c in cards] == BUNDLED
    for line, card in zip(lines, cards, strict=True):
        assert card["trained_on"]["domain"] in line
        assert card["licence"] in line
        assert line.endswith(card["digest"][:12])
        assert card["digest"] == read_card(Path(card["folder"])).digest


@pytest.mark.parametrize("ref", ["phantom-mitosis", "mitosis"])
def test_show_prints_the_card(cli: Any, ref: str) -> None:
    card = read_card(find_model(ref))
    facts = cli("models", "show", ref, "--json").json
    assert facts == json.loads(card.model_dump_json()) | {"digest": card.digest, "folder": str(find_model(ref))}
    shown = dict(line.split(maxsplit=1) for line in cli("models", "show", ref).out.splitlines() if " " in line.strip())
    assert (shown["name"], shown["detection.threshold"], shown["digest"]) == (ref, str(card.detection.threshold), card.digest)  # type: ignore[union-attr]


def test_add_makes_a_model_the_default_of_its_pipeline(cli: Any, home: Path, mine: Path, small: Path, tmp_path: Path) -> None:
    answer = cli("models", "add", mine)
    assert (answer.code, answer.err) == (0, "")
    assert sorted(p.name for p in (home / "my-mitosis").iterdir()) == ["card.json", "model.safetensors"]
    for ref in ("my-mitosis", "mitosis"):
        assert cli("models", "show", ref, "--json").json["folder"] == str(home / "my-mitosis")
    assert "my-mitosis: whole" in cli("models", "verify").out
    cli("score", small, "-o", tmp_path / "out", "--pipeline", "mitosis", "--workers", 0)
    assert json.loads((tmp_path / "out/run.json").read_text())["job"]["models"]["mitosis"]["name"] == "my-mitosis"
    again = cli("models", "add", mine)
    assert again.error.startswith(f"{home / 'my-mitosis'}: a model of this name is there already")


def test_of_several_models_the_one_added_last_is_the_default(cli: Any, home: Path, mine: Path, tmp_path: Path) -> None:
    """Adding says that it is now the model of its pipeline, whatever the names."""

    def default() -> str:
        return str(next(p for p in cli("pipelines", "--json").json if p["pipeline"] == "mitosis")["model"])

    card = json.loads((mine / "card.json").read_text())
    for name in ("m", "z", "a"):
        (mine / "card.json").write_text(json.dumps(card | {"name": name}))
        assert f"{name} is now the model of pipeline mitosis" in cli("models", "add", mine).out
        assert default() == name
    shutil.copytree(mine, home / "0-laid-there-by-hand")
    assert default() == "a"
    shutil.rmtree(home / "a")
    assert default() == "z"


def test_a_broken_default_is_named_and_passed_over_unless_it_is_asked_for(cli: Any, home: Path, mine: Path, small: Path, tmp_path: Path) -> None:
    cli("models", "add", mine)
    shutil.copytree(home / "my-mitosis", home / "mitosis")  # even one of the pipeline's own name
    for name in ("mitosis", "zzz"):
        (home / name).mkdir(exist_ok=True)
        (home / name / "card.json").write_text("{")
    run = cli("score", small, "-o", tmp_path / "out", "--pipeline", "mitosis", "--workers", 0)
    assert run.code == 0
    said = [line for line in run.err.splitlines() if "warning" in line]
    assert [line.split(" is passed over: ")[0] for line in said] == [f"wsikit: warning: installed model '{name}'" for name in ("mitosis", "zzz")]
    assert "put the card right, or fetch the model again" in said[1]
    assert json.loads((tmp_path / "out/run.json").read_text())["job"]["models"]["mitosis"]["name"] == "my-mitosis"
    assert f"{home / 'zzz/card.json'}: " in cli("score", small, "-o", tmp_path / "asked", "--model", "mitosis=zzz").error
    everything = cli("score", small, "-o", tmp_path / "all", "--workers", 0)
    assert (everything.code, "wsikit: warning: installed model 'zzz' is passed over" in everything.err) == (0, True), "so is a run of every pipeline"
    shutil.rmtree(home / "my-mitosis")
    with pytest.warns(LeftOutWarning, match="installed model 'zzz' is passed over"):
        assert find_model("mitosis").parent == find_model("phantom-mitosis").parent, "the bundled one is behind them"


def test_add_refuses_what_is_not_whole_and_leaves_nothing(cli: Any, home: Path, mine: Path, damaged_model: Path, tmp_path: Path) -> None:
    assert "sha256 is" in cli("models", "add", damaged_model).error
    (tmp_path / "empty").mkdir()
    assert "no readable card.json" in cli("models", "add", tmp_path / "empty").error
    (mine / "card.json").write_text((mine / "card.json").read_text().replace('"my-mitosis"', '"../evil"'))
    assert "card.json: name: " in cli("models", "add", mine).error
    assert not home.exists()


def test_add_where_nothing_can_be_written(cli: Any, home: Path, mine: Path) -> None:
    home.parent.write_text("a file in the way")
    assert "cannot be written" in cli("models", "add", mine).error


def test_an_interrupted_add_can_be_done_again(cli: Any, home: Path, mine: Path) -> None:
    (home / "my-mitosis").mkdir(parents=True)
    shutil.copy(mine / "model.safetensors", home / "my-mitosis")
    assert cli("models", "add", mine).code == 0


def test_verify_says_which_are_whole(cli: Any, damaged_model: Path) -> None:
    whole = cli("models", "verify")
    assert (whole.code, [line.split(":")[0] for line in whole.out.splitlines()]) == (0, BUNDLED)
    some = cli("models", "verify", "phantom-mitosis", damaged_model)
    assert (some.code, some.err) == (1, "")
    good, bad = some.out.splitlines()
    assert good.startswith("phantom-mitosis: whole, ")
    assert bad.startswith(f"{damaged_model}: {damaged_model / 'model.safetensors'}: sha256 is ")
    problems = cli("models", "verify", "phantom-mitosis", damaged_model, "--json").json
    assert problems["phantom-mitosis"] == ""
    assert "sha256" in problems[str(damaged_model)]


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_an_unknown_model_lists_the_known(cli: Any, verb: str) -> None:
    assert cli("models", verb, "best").error == f"no model 'best': neither a folder nor one of {', '.join(BUNDLED)}"


def test_a_classifier_goes_out_as_onnx_and_comes_in_again(cli: Any, home: Path, small: Path, tmp_path: Path) -> None:
    """Through the files: exported, added under a name, and scored with, with the same call."""
    assert cli("models", "export", "phantom-sts-subtype", "--to", "onnx", "-o", tmp_path / "sts.onnx").code == 0
    added = cli("models", "add", tmp_path / "sts.onnx", "--name", "sts-onnx")
    assert (added.code, added.err) == (0, "")
    assert "sts-onnx is now the model of pipeline sts-subtype" in added.out
    assert "licence: " in added.out
    assert "sts-onnx: whole" in cli("models", "verify", "sts-onnx").out
    results = []
    for model in ("sts-onnx", "phantom-sts-subtype"):
        cli("score", small, "-o", tmp_path / model, "--model", f"sts-subtype={model}", "--workers", 0)
        results.append(json.loads(next((tmp_path / model / "slides").glob("*.json")).read_text())["pipelines"]["sts-subtype"])
    onnx, torch = results
    assert onnx["model"]["name"] == "sts-onnx"
    assert onnx["call"] == torch["call"]
    assert onnx["probability"] == pytest.approx(torch["probability"], abs=1e-4)
    assert "is there already" in cli("models", "export", "phantom-sts-subtype", "--to", "onnx", "-o", tmp_path / "sts.onnx").error


def test_what_a_file_of_weights_does_not_say_is_told_with_options(cli: Any, home: Path, tmp_path: Path) -> None:
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(torchvision.models.resnet18(num_classes=2).state_dict(), tmp_path / "w.safetensors")
    told = ("--architecture", "torchvision:resnet18", "--pipeline", "tissue-type", "--classes", "benign,malignant", "--mpp", 0.5, "--licence", "MIT")
    assert "does not say its tile_px; tell with wsikit models add" in cli("models", "add", tmp_path / "w.safetensors", *told).error
    answer = cli("models", "add", tmp_path / "w.safetensors", *told, "--tile", 64, "--name", "mine")
    assert (answer.code, "licence: MIT" in answer.out) == (0, True)
    card = read_card(home / "mine")
    assert (card.classes, card.architecture, card.tile_px) == (["benign", "malignant"], {"name": "torchvision", "model": "resnet18"}, 64)
    (tmp_path / "w.pth").write_bytes(b"a pickle")
    assert "weights_only=True" in cli("models", "add", tmp_path / "w.pth", *told).error
    assert "card says everything" in cli("models", "add", find_model("mitosis"), "--name", "x").error


def test_a_licence_is_shown_and_kept_once_somebody_says_yes(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def given() -> dict[str, str]:
        return {r["name"]: r["accepted"] for r in cli("models", "accept", "--json").json}

    assert set(given().values()) == {"no"}
    shown = cli("models", "accept", "uni")
    assert shown.code != 0, "nobody said yes"
    assert "CC-BY-NC-ND-4.0" in shown.out
    assert "non-commercial use only" in shown.out
    assert given()["uni"] == "no"
    assert cli("models", "accept", "hf:MahmoodLab/UNI", "--yes").code == 0
    assert [name for name, when in given().items() if when != "no"] == ["uni"]
    assert "give hf:owner/name, or one of uni, " in cli("models", "accept", "nothing").error
    assert "nothing of it is cached" in cli("models", "add", "hf:bioptimus/H-optimus-0", "--accept-licence").err
    assert given()["h-optimus-0"] != "no"


def test_verify_finds_a_card_that_was_edited_and_what_could_be_run(cli: Any, home: Path, mine: Path) -> None:
    assert cli("models", "add", mine).code == 0
    assert "my-mitosis: whole" in cli("models", "verify", "my-mitosis").out
    for name in ("hook.py", "more/weights.pth"):
        file = home / "my-mitosis" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("import os")
        found = cli("models", "verify", "my-mitosis")
        assert (found.code, f"holds {name}: a model holds nothing that can be run or unpickled" in found.out) == (1, True)
        file.unlink()
    card = json.loads((home / "my-mitosis/card.json").read_text())
    (home / "my-mitosis/card.json").write_text(json.dumps(card | {"detection": card["detection"] | {"threshold": 0.3}}))
    found = cli("models", "verify", "my-mitosis")
    assert (found.code, "its card was edited since the model was added (digest then " in found.out) == (1, True)


def test_a_broken_card_is_left_out_of_the_list_with_its_reason(cli: Any, home: Path, mine: Path) -> None:
    cli("models", "add", mine)
    (home / "my-mitosis/card.json").write_text("{")
    listed = cli("models", "list")
    assert (listed.code, len(listed.out.splitlines())) == (0, 1 + len(BUNDLED))
    assert "left out: " in listed.err
    assert "put the card right, or fetch the model again" in listed.err
    card = json.loads((mine / "card.json").read_text())
    (mine / "card.json").write_text(json.dumps(card | {"weights": card["weights"] | {"file": "model.pth"}}))
    assert "pickles are never opened, and wsikit models add FILE says how" in cli("models", "show", mine).error
    (mine / "card.json").write_text(json.dumps(card | {"auto_map": "x.py"}))
    assert "auto_map: a card has no such field" in cli("models", "show", mine).error
    (mine / "card.json").write_text(json.dumps(card | {"name": "mitosis"}))
    assert "a model of this name comes with wsikit" in cli("models", "add", mine).error


@pytest.mark.parametrize(("name", "said"), [("mitosis", "slides like those"), ("phantom-mitosis", "synthetic slides only; it abstains on real ones")])
def test_show_says_what_a_model_may_be_used_for(cli: Any, name: str, said: str) -> None:
    use = cli("models", "show", name).out.splitlines()[0]
    assert use.startswith("use ")
    assert said in use
    assert "research only, no diagnosis" in use
    assert "licence Apache-2.0" in use
