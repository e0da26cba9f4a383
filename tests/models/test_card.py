"""Cards that say something impossible are refused, each with the key at fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from wsikit.errors import CardError
from wsikit.models import BUNDLED, Card, check_model, read_card

CARD: dict[str, Any] = {
    "name": "a-model",
    "pipeline": "mitosis",
    "task": "detect",
    "classes": ["mitosis"],
    "detection": {"threshold": 0.5},
    "licence": "none",
    "trained_on": {"domain": "histology", "description": "nothing"},
    "weights": {"sha256": "0" * 64},
}
RISK = {"endpoint": "OS", "features": ["tissue_mm2"], "models": {}, "cutoff": 0.0, "cutoff_origin": "median"}
CLASSIFIER = {"task": "classify", "pipeline": "sts-subtype", "classes": ["A", "B"], "detection": None}

WRONG = {
    "an unknown field": {"surprise": 1},
    "an unknown field inside": {"detection": {"threshold": 0.5, "surprise": 1}},
    "a path upwards": {"weights": {"file": "../model.safetensors", "sha256": "0" * 64}},
    "an absolute path": {"weights": {"file": "/etc/model.safetensors", "sha256": "0" * 64}},
    "a path into a folder": {"weights": {"file": "a/model.safetensors", "sha256": "0" * 64}},
    "a path with backslashes": {"weights": {"file": "..\\model.safetensors", "sha256": "0" * 64}},
    "a pickle": {"weights": {"file": "model.pt", "sha256": "0" * 64}},
    "another pickle": {"weights": {"file": "model.pkl", "sha256": "0" * 64}},
    "a hidden suffix": {"weights": {"file": "model.safetensors\n", "sha256": "0" * 64}},
    "no digest": {"weights": {"file": "model.safetensors"}},
    "a short digest": {"weights": {"sha256": "0" * 63}},
    "a name with a slash": {"name": "../a"},
    "an unknown task": {"task": "segment"},
    "a detector without a threshold": {"detection": None},
    "a threshold below what is kept": {"detection": {"threshold": 0.05, "keep_above": 0.1}},
    "a threshold above 1": {"detection": {"threshold": 1.5}},
    "a threshold that is no number": {"detection": {"threshold": float("nan")}},
    "no merging distance": {"detection": {"threshold": 0.5, "merge_um": 0}},
    "a classifier with a threshold": {"task": "classify"},
    "a detector of the survival pipeline": {"pipeline": "survival"},
    "a class twice": CLASSIFIER | {"classes": ["A", "A"]},
    "no class": {"classes": []},
    "more overlap than tile": {"tile_px": 64, "overlap_px": 64},
    "odd overlap": {"overlap_px": 3},
    "an mpp of 0": {"mpp": 0},
    "an infinite mpp": {"mpp": float("inf")},
    "a scaling by 0": {"scaling": {"mean": [0, 0, 0], "std": [1, 0, 1]}},
    "an unknown domain": {"trained_on": {"domain": "radiology", "description": ""}},
    "a cut-off that is no number": {"task": "risk", "pipeline": "survival", "classes": [], "detection": None, "risk": RISK | {"cutoff": float("nan")}},
    "a risk model of a network's pipeline": {"task": "risk", "classes": [], "detection": None, "risk": RISK},
}


def test_the_cards_that_wrong_ones_differ_from_are_right() -> None:
    assert Card(**CARD).tile_px == 224
    assert Card(**CARD | CLASSIFIER).detection is None
    assert Card(**CARD | {"task": "risk", "pipeline": "survival", "classes": [], "detection": None, "risk": RISK}).risk is not None
    assert Card(**CARD | {"detection": {"threshold": 0.1, "keep_above": 0.1}}).detection is not None


@pytest.mark.parametrize("what", WRONG)
def test_impossible_cards_are_refused(what: str) -> None:
    with pytest.raises(ValidationError):
        Card(**CARD | WRONG[what])


def test_a_refusal_names_file_and_key(copy_model: Callable[[str], Any]) -> None:
    folder = copy_model("phantom-mitosis").change(mpp=-1)
    with pytest.raises(CardError, match=r"card\.json: mpp: ") as caught:
        read_card(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not json", b"[1, 2]", b"\xff\xfe\x00"])
def test_files_that_are_no_cards_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(CardError):
        read_card(tmp_path)


def test_a_folder_without_a_card_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"no readable card\.json"):
        check_model(tmp_path)


@pytest.mark.parametrize("folder", sorted(BUNDLED.iterdir()), ids=lambda p: p.name)
def test_bundled_cards_survive_their_own_json(folder: Path) -> None:
    card = read_card(folder)
    again = Card.model_validate_json(card.model_dump_json())
    assert again == card
    assert again.digest == card.digest
    phantoms = folder.name.startswith("phantom-")
    assert card.name == folder.name == f"{'phantom-' if phantoms else ''}{card.pipeline}"
    assert card.trained_on.domain == ("phantom" if phantoms else "histology")
    assert card.licence
    assert ("synthetic" if phantoms else "research use only") in card.limitations.lower()


def test_the_digest_changes_with_weights_and_with_every_parameter() -> None:
    base = Card(**CARD)
    changes = [{"weights": {"sha256": "1" * 64}}, {"mpp": 0.25}, {"detection": {"threshold": 0.6}}, {"batch": 8}, {"version": "2"}]
    assert len({base.digest, *(Card(**CARD | c).digest for c in changes)}) == 1 + len(changes)
