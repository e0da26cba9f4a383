"""Changes that do not change the label: turns, flips, and the light and stain of another day."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wsikit.stain._lookup import apply_tables, tables_of
from wsikit.stain.macenko import IO, REFERENCE


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


def restain(images: Tensor, generator: torch.Generator, strength: float = 0.2) -> Tensor:
    """Each image with more or less haematoxylin, and eosin, as thickness and time in the dye vary: uint8 (B, H, W, 3).

    The images are in the reference's colours, so the amounts are those of its stain vectors; what is of neither stain stays.
    """
    amounts = 1 + strength * (2 * torch.rand(len(images), 2, generator=generator, dtype=torch.float64) - 1)
    unmix = np.linalg.pinv(REFERENCE)
    changed = [np.eye(3) + (unmix @ np.diag(amount - 1) @ REFERENCE).T for amount in amounts.numpy()]
    tables = [tables_of(matrix, IO, less=1) for matrix in changed]
    return torch.stack([apply_tables(image, table) for image, table in zip(images, tables, strict=True)])


def jitter(images: Tensor, generator: torch.Generator, strength: float = 0.15) -> Tensor:
    """Optical density of each colour scaled and shifted a little, as light and camera vary: uint8 (B, H, W, 3)."""
    b = len(images)
    scale = 1 + strength * (2 * torch.rand(b, 1, 1, 3, generator=generator) - 1)
    shift = 0.25 * strength * (2 * torch.rand(b, 1, 1, 3, generator=generator) - 1)
    density = -torch.log((images.float() + 1) / 256)
    return (256 * torch.exp(-(density * scale + shift)) - 1).clamp(0, 255).to(torch.uint8)
