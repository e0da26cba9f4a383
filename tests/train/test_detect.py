"""A tiny detector: its folder loads and repeats, its threshold is frozen, boxes lie on the points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsikit.errors import LabelsError, UsageError
from wsikit.models import Card, check_model, load_model
from wsikit.models._two_stage import TwoStage
from wsikit.models.mitosis import build
from wsikit.train.compose import FIGURE_UM, Composition, Piece
from wsikit.train.detect import Course, Points, _batch, _crops, fit, train_detector
from wsikit.train.labels import Labelled
from wsikit.train.tasks import mitosis


@pytest.fixture
def points(sheets: list[Any]) -> list[Points]:
    chosen = [(sheets[0], "train"), (sheets[2], "train"), (sheets[4], "val")]
    return [Points(Labelled(s.path, "mitosis", s.patient, split=split), s.truth.mitoses, s.truth.lookalikes) for s, split in chosen]


def quiet(_: str) -> None:
    """No log."""


def test_a_few_steps_give_a_folder_that_loads_and_repeats(points: list[Points], detector_fields: dict[str, Any], tmp_path: Path) -> None:
    cards = [train_detector(points, tmp_path / name, detector_fields, epochs=1, seed=3, log=quiet) for name in "ab"]
    assert cards[0] == cards[1] == check_model(tmp_path / "a")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    detection = cards[0].detection
    assert detection is not None
    assert 0.2 <= detection.threshold <= 0.9
    validation = cards[0].metrics["validation"]
    assert (validation["unit"], validation["patients"]) == ("squares", 1)
    assert len(load_model(tmp_path / "a").predict(np.zeros((2, 128, 128, 3), np.uint8))) == 2


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other on a busy machine take minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_yolov9_learns_by_the_same_steps_with_and_without_a_verifier(detector_fields: dict[str, Any], one_thread: None) -> None:
    rng = np.random.default_rng(0)
    pieces = [Piece(rng.integers(0, 255, (64, 64, 3), np.uint8), np.array([[30.0, 30]]), 0.5)] * 2
    for more in ({}, {"verifier": {"side_px": 32}}):
        fields = detector_fields | {"architecture": {"name": "yolo9-t", **more}, "tile_px": 64, "batch": 2}
        card = Card(**fields, weights={"sha256": "0" * 64})
        net: Any = build(card)
        assert isinstance(net, TwoStage) == bool(more)
        lines: list[str] = []
        fit(net, pieces, card, 1, 0, "cpu", lines.append)
        assert "loss" in lines[0]


@pytest.mark.parametrize("name", ["kongnet", "darknet", "centre", "nonsense"])
def test_what_is_not_trained_by_name_is_refused_before_any_slide_is_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mitoses are learned by yolox-n"):
        mitosis(tmp_path / "none.csv", tmp_path / "m", 0.25, architecture=name)


def test_squares_hold_their_points_as_dark_spots(points: list[Points], detector_fields: dict[str, Any]) -> None:
    card = Card(**detector_fields, weights={"sha256": "0" * 64})
    crops = _crops(points[0], card, np.random.default_rng(0))
    assert sum(len(c.objects) > 0 for c in crops) >= len(points[0].objects) * 0.8
    inside, around = [], []
    for crop in crops:
        assert crop.image.shape == (128, 128, 3)
        for x, y in crop.objects.round().astype(int).tolist():
            assert 4 <= x <= 124
            assert 4 <= y <= 124
            inside.append(float(crop.image[y - 3 : y + 4, x - 3 : x + 4].mean()))
            around.append(float(crop.image.mean()))
    assert np.mean(np.array(inside) < np.array(around) - 15) > 0.9


def test_targets_follow_the_turns(points: list[Points], detector_fields: dict[str, Any]) -> None:
    card = Card(**detector_fields, weights={"sha256": "0" * 64})
    crops = [c for c in _crops(points[0], card, np.random.default_rng(0)) if len(c.objects)][:6]
    images, targets = _batch(crops, card, torch.Generator().manual_seed(0))
    dark = []
    for crop, image, rows in zip(crops, images, targets, strict=True):
        real = rows[rows[:, 3] > 0]
        assert len(real) == len(crop.objects)
        assert real[:, 3:].unique().tolist() == [FIGURE_UM / 0.5]
        for x, y in real[:, 1:3].round().int().tolist():
            dark.append(float(image[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].float().mean()) < float(image.float().mean()) - 15)
    assert np.mean(dark) > 0.9


def test_points_beyond_the_slide_are_refused(points: list[Points], detector_fields: dict[str, Any], tmp_path: Path) -> None:
    wrong = [Points(points[0].item, np.array([[5000.0, 10.0]]), points[0].lookalikes), *points[1:]]
    with pytest.raises(LabelsError, match=r"5000, 10 is outside of the slide of 1024 × 768 px"):
        train_detector(wrong, tmp_path / "m", detector_fields, epochs=1, log=quiet)


def test_validation_without_objects_is_refused(points: list[Points], detector_fields: dict[str, Any], tmp_path: Path) -> None:
    bare = [*points[:2], Points(points[2].item, np.empty((0, 2)), points[2].lookalikes)]
    with pytest.raises(LabelsError, match="must each have labelled objects"):
        train_detector(bare, tmp_path / "m", detector_fields, epochs=1, log=quiet)
    assert not (tmp_path / "m").exists()


def test_on_composed_fields_with_a_verifier(points: list[Points], detector_fields: dict[str, Any], tmp_path: Path) -> None:
    architecture = {"name": "yolox", "depth": 0.33, "width": 0.125, "shrink": 2, "verifier": {"side_px": 32, "input_px": 32, "stages": 1, "width": 0.25}}
    course, said = Course(Composition((0.4, 0.6), paste=0.5), fields=12, rounds=1, epochs=1, verifier_steps=3, seed=1), []
    train_detector(points, tmp_path / "m", detector_fields | {"architecture": architecture}, seed=1, log=said.append, course=course)
    assert check_model(tmp_path / "m").architecture == architecture
    assert sum(s.startswith("round 1: ") for s in said) == 1
    assert sum(s.startswith("verifier, round ") for s in said) == 2
    (found,) = load_model(tmp_path / "m").predict(np.zeros((1, 128, 128, 3), np.uint8))
    assert found.atypical is not None
