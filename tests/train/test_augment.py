"""Changes of training tiles: points go where their pixels go, and the same generator gives the same tiles."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from wsikit.stain.macenko import IO, REFERENCE
from wsikit.train.augment import apply_turn, draw_turn, jitter, move, restain, turn_and_flip, turn_points
from wsikit.train.recipe import Augment

SIDE = 16


@pytest.mark.parametrize(("k", "flip"), itertools.product(range(4), (False, True)))
def test_points_follow_their_pixels(k: int, flip: bool) -> None:
    image = torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8)
    marks = [(3, 5), (0, 15), (12, 1)]
    for value, (x, y) in enumerate(marks, 1):
        image[y, x] = value
    turned = apply_turn(image, k, flip)
    points = turn_points(torch.tensor(marks) + 0.5, SIDE, k, flip)
    for value, (x, y) in enumerate(points.tolist(), 1):
        assert turned[int(y), int(x), 0] == value
        assert (x % 1, y % 1) == (0.5, 0.5)


def test_all_eight_turns_are_drawn_and_lose_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    assert {draw_turn(generator) for _ in range(200)} == set(itertools.product(range(4), (False, True)))
    images = torch.randint(0, 256, (10, SIDE, SIDE, 3), dtype=torch.uint8)
    turned = turn_and_flip(images, torch.Generator().manual_seed(3))
    assert torch.equal(turned, turn_and_flip(images, torch.Generator().manual_seed(3)))
    for before, after in zip(images, turned, strict=True):
        assert torch.equal(before.reshape(-1, 3).sort(0).values, after.reshape(-1, 3).sort(0).values)
    assert not torch.equal(images, turned)


def test_jitter_varies_colour_within_its_strength() -> None:
    images = torch.randint(30, 250, (6, SIDE, SIDE, 3), dtype=torch.uint8)
    before = images.clone()
    out = jitter(images, torch.Generator().manual_seed(1))
    assert torch.equal(images, before)
    assert out.dtype == torch.uint8
    assert torch.equal(out, jitter(images, torch.Generator().manual_seed(1)))
    assert not torch.equal(out, jitter(images, torch.Generator().manual_seed(2)))
    density, changed = (-torch.log((i.float() + 1) / 256) for i in (images, out))
    assert float((changed - density).abs().max()) <= 0.15 * float(density.max()) + 0.0375 + 0.05
    shift = (changed - density).flatten(1, 2).mean(1)
    assert float(shift.std(0).min()) > 0.005, "each image and channel has its own"
    assert int((jitter(images, torch.Generator().manual_seed(1), strength=0.0).int() - images.int()).abs().max()) <= 1


def test_restain_changes_the_amount_of_each_stain_and_nothing_else() -> None:
    """Images of known amounts of the reference's stains, and of a third colour that is neither."""
    third = np.cross(REFERENCE[0], REFERENCE[1])
    colours = np.stack([REFERENCE[0], REFERENCE[1], third / np.linalg.norm(third)])
    amount = np.random.default_rng(0).uniform(0.2, 0.9, (5, SIDE, SIDE, 3)) * [1, 1, 0.2]
    images = torch.from_numpy((IO * np.exp(-amount @ colours) - 1).round().astype(np.uint8))
    before = images.clone()
    out = restain(images, torch.Generator().manual_seed(4), strength=0.3)
    assert torch.equal(images, before)
    assert torch.equal(out, restain(images, torch.Generator().manual_seed(4), strength=0.3))
    found = -np.log((out.numpy() + 1.0) / IO) @ np.linalg.inv(colours)
    ratio = np.median((found / amount).reshape(5, -1, 3), axis=1)
    assert np.abs(found / amount / ratio[:, None, None] - 1)[..., :2].max() < 0.2, "one factor for a whole image, but for rounding"
    assert ratio[:, 2] == pytest.approx(np.ones(5), abs=0.05)
    assert (np.abs(ratio[:, :2] - 1) <= 0.31).all()
    assert ratio[:, :2].std(0).min() > 0.05, "each image and stain has its own"


def test_restain_by_nothing_is_the_identity() -> None:
    images = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8)
    assert torch.equal(restain(images, torch.Generator().manual_seed(0), strength=0.0), images)


def blob(n: int, side: int, x: float, width: float) -> torch.Tensor:
    """Black blots on white, ``x`` px right of the middle."""
    at = torch.arange(side) - (side - 1) / 2
    there = torch.exp(-((at[None, :] - x) ** 2 + at[:, None] ** 2) / (2 * width**2))
    return (255 * (1 - there)).round().to(torch.uint8)[None, :, :, None].expand(n, side, side, 3).contiguous()


def measured(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each blot the centre x, y (N, 2), px from the middle, and the standard deviation (N,), px."""
    side = images.shape[1]
    at, weight = torch.arange(side) - (side - 1) / 2, 255 - images[..., 0].float()
    total = weight.sum((1, 2))
    x, y = (weight.sum(1) @ at / total, weight.sum(2) @ at / total)
    spread = (weight.sum(1) @ at**2 / total - x**2).sqrt()
    return torch.stack([x, y], 1), spread


def test_moved_tiles_show_the_same_turned_shifted_and_larger_within_what_was_asked() -> None:
    n, side = 200, 65

    def moved(images: torch.Tensor, **how: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return measured(move(images, Augment(**how), torch.Generator().manual_seed(0)))

    off, middle = blob(n, side, 10, 3), blob(n, side, 0, 5)
    centre, spread = moved(off, rotate_deg=180)
    assert torch.allclose(centre.norm(dim=1), torch.tensor(10.0), atol=0.1), "turned about the middle"
    assert torch.allclose(spread, torch.tensor(3.0), atol=0.1)
    assert (torch.atan2(centre[:, 1], centre[:, 0]).abs() > 2).any()
    centre, _ = moved(middle, shift_px=4)
    assert 3.5 < centre.abs().max() < 4.1
    assert centre.mean(0).abs().max() < 0.5
    centre, spread = moved(middle, zoom=0.2)
    assert centre.abs().max() < 0.1
    assert (spread / 5).min() == pytest.approx(1 / 1.2, abs=0.03)
    assert (spread / 5).max() == pytest.approx(1.2, abs=0.03)
