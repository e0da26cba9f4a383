"""Changes that do not change the label: turns, flips, and the light and stain of another day."""

from __future__ import annotations

import torch
from torch import Tensor


def turn_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (B, H, H, 3) turned by a multiple of 90° and perhaps mirrored."""
    return torch.stack([apply_turn(image, *draw_turn(generator)) for image in images])


def draw_turn(generator: torch.Generator) -> tuple[int, bool]:
    """Quarter turns, and whether to mirror."""
    k, flip = torch.randint(0, 8, (1,), generator=generator).item() % 4, bool(torch.randint(0, 2, (1,), generator=generator).item())
    return int(k), flip


def apply_turn(image: Tensor, k: int, flip: bool) -> Tensor:
    """Turn an (H, H, C) image by k quarters counter-clockwise, then mirror it left to right."""
    turned = torch.rot90(image, k, (0, 1))
    return turned.flip(1) if flip else turned


def turn_points(points: Tensor, side: int, k: int, flip: bool) -> Tensor:
    """Where points (M, 2) x, y of a square image go under `apply_turn`."""
    for _ in range(k):
        points = torch.stack([points[:, 1], side - points[:, 0]], 1)
    return torch.stack([side - points[:, 0], points[:, 1]], 1) if flip else points


def jitter(images: Tensor, generator: torch.Generator, strength: float = 0.15) -> Tensor:
    """Optical density of each colour scaled and shifted a little, as stain and light vary: uint8 (B, H, W, 3)."""
    b = len(images)
    scale = 1 + strength * (2 * torch.rand(b, 1, 1, 3, generator=generator) - 1)
    shift = 0.25 * strength * (2 * torch.rand(b, 1, 1, 3, generator=generator) - 1)
    density = -torch.log((images.float() + 1) / 256)
    return (256 * torch.exp(-(density * scale + shift)) - 1).clamp(0, 255).to(torch.uint8)
