"""Training pixels are the pixels of scoring, from tissue only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wsikit.errors import ResolutionMismatchError
from wsikit.models import Card
from wsikit.run import Run
from wsikit.train.tiles import Look, Source

WEIGHTS = {"sha256": "0" * 64}


@pytest.fixture
def card(classifier_fields: dict[str, Any]) -> Card:
    return Card(**classifier_fields, weights=WEIGHTS)


def test_training_sees_the_pixels_that_scoring_kept(scored: Run, phantom: Any, card: Card) -> None:
    store = scored.store("lms")
    look = Look.at(phantom.path, card.model_copy(update={"mpp": 0.5}))
    assert look.stain.model_dump() == store.attributes["stain"]
    assert (look.survey.mask.tissue == (store.tissue() == 1)).all()
    kept = np.moveaxis(np.asarray(store.image(0.5)[:, 768:1024, 1024:1280]), 0, -1)
    assert np.array_equal(look.read(1024, 768, 256), kept)
    assert kept.std() > 10


def test_tiles_are_of_tissue_spread_over_it_and_owned(sheets: list[Any], card: Card, draw_tiles: Any) -> None:
    slides = [Source(s.path) for s in sheets[:2]]
    images, owner = draw_tiles(slides, card, 6)
    assert (images.shape, images.dtype) == ((12, 64, 64, 3), np.uint8)
    assert owner.tolist() == [0] * 6 + [1] * 6
    assert images.mean((1, 2, 3)).max() < 235, "no tile of glass"
    assert len({i.tobytes() for i in images}) == 12
    again, _ = draw_tiles(slides, card, 6)
    assert np.array_equal(images, again)
    other, _ = draw_tiles(slides[::-1], card, 6)
    assert np.array_equal(other, np.roll(images, 6, axis=0)), "a slide's tiles do not depend on the others"


def test_no_more_tiles_than_there_are(sheets: list[Any], card: Card, draw_tiles: Any) -> None:
    images, owner = draw_tiles([Source(sheets[0].path)], card, 10_000)
    cells = (1024 * 768) / 128**2
    assert 10 < len(images) <= cells
    assert len(images) == len(owner)


def test_an_mpp_of_the_csv_holds_over_the_files(sheets: list[Any], card: Card, draw_tiles: Any) -> None:
    """Called twice as coarse, the slide has a tile where there were four."""
    fine, _ = draw_tiles([Source(sheets[0].path)], card, 10_000)
    coarse, _ = draw_tiles([Source(sheets[0].path, 1.0)], card, 10_000)
    assert len(coarse) > 2.5 * len(fine)


def test_nothing_asked_for_is_nothing_drawn(card: Card, draw_tiles: Any) -> None:
    images, owner = draw_tiles([], card, 5)
    assert (images.shape, owner.shape) == ((0, 64, 64, 3), (0,))


def test_a_slide_that_is_too_coarse_is_named(sheets: list[Any], card: Card, draw_tiles: Any) -> None:
    """Labels have many: which of them is it?"""
    with pytest.raises(ResolutionMismatchError, match=rf"{sheets[0].path.name}: the slide has 0\.5 µm/px, 0\.25 µm/px is needed"):
        draw_tiles([Source(sheets[0].path)], card.model_copy(update={"mpp": 0.25}), 5)
