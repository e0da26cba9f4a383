"""Changes that do not change the label: turns, flips, and the light and stain of another day."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import adjust_hue

from wsikit.stain._lookup import apply_tables, tables_of
from wsikit.stain.macenko import IO, REFERENCE
from wsikit.train.recipe import Augment


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


def augment(images: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """A recipe's changes, drawn anew for each image: uint8 (B, H, H, 3) to the same."""
    if how.turns:
        images = turn_and_flip(images, generator)
    if how.flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(2), images)
    if how.rotate_deg or how.zoom or how.shift_px:
        images = move(images, how, generator)
    if how.restain:
        images = restain(images, generator, how.restain)
    if how.jitter:
        images = jitter(images, generator, how.jitter)
    images = recolour(images, how, generator)
    return sprinkle(images, how.holes, how.hole_px, generator) if how.holes[1] else images


def move(images: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Each image turned, shown larger or smaller (evenly in the logarithm), and shifted; what comes in at the edges is mirrored from inside."""

    def draw(*shape: int) -> Tensor:
        return 2 * torch.rand(len(images), *shape, generator=generator) - 1

    angle = torch.deg2rad(how.rotate_deg * draw())
    share = torch.exp(-math.log1p(how.zoom) * draw()) if how.zoom else torch.ones(len(images))
    shift = how.shift_px * draw(2) * 2 / images.shape[1] if how.shift_px else torch.zeros(len(images), 2)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
    matrix = torch.cat([turn * share[:, None, None], shift[:, :, None]], 2)
    planes = images.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(matrix, list(planes.shape), align_corners=False)
    turned = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return turned.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8)


def recolour(images: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Brightness (shift), contrast and saturation (factors, drawn evenly in their logarithm), hue (share of the circle)."""
    unchanged = (1.0, 1.0)
    if not how.brightness and how.contrast == unchanged and how.saturation == unchanged and not how.hue:
        return images
    x = images.permute(0, 3, 1, 2).float() / 255

    def draw(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(len(images), 1, 1, 1, generator=generator)).to(x)

    if how.brightness:
        x = x + draw(-how.brightness, how.brightness)
    if how.saturation != unchanged:
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * draw(*map(math.log, how.saturation)).exp()
    if how.hue:
        x = torch.stack([adjust_hue(image.clamp(0, 1), float(by)) for image, by in zip(x, draw(-how.hue, how.hue).flatten(), strict=True)])
    if how.contrast != unchanged:
        middle = x.mean((1, 2, 3), keepdim=True)
        x = middle + (x - middle) * draw(*map(math.log, how.contrast)).exp()
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def sprinkle(images: Tensor, holes: tuple[int, int], side: int, generator: torch.Generator) -> Tensor:
    """Blot out squares of ``side`` px at random places with the image's mean colour, between ``holes`` of them: "progressive sprinkles"."""
    out = images.clone()
    h, w = images.shape[1:3]
    for image in out:
        count = int(torch.randint(holes[0], holes[1] + 1, (1,), generator=generator))
        mean = image.float().mean((0, 1)).to(torch.uint8)
        ys, xs = (torch.randint(0, max(1, n - side + 1), (count,), generator=generator).tolist() for n in (h, w))
        for y, x in zip(ys, xs, strict=True):
            image[y : y + side, x : x + side] = mean
    return out
