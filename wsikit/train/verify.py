"""Train the second look of a detector: what it found where there is a figure, and what it found where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsikit.models._card import Card
from wsikit.models._verifier import Verifier, cut_patches
from wsikit.models.mitosis import Detector
from wsikit.train.augment import jitter, restain
from wsikit.train.compose import Piece
from wsikit.train.learner import scaled

HIT_UM, MISS_UM = 5.0, 8.0  # nearer is the object, farther is not; between, nothing is learned
_LEARNING_RATE = 1e-3
_ROOM = 1.5  # patches are kept larger than the verifier sees, so that they can be turned and shifted
_BATCH = 64
_PER_OBJECT = 2  # patches without an object, for each with


@dataclass(frozen=True)
class Patches:
    """Candidates: ``image`` uint8 (N, S, S, 3), ``object`` bool (N,), ``kind`` float32 (N,): 1 atypical, 0 typical, NaN not known."""

    image: Tensor
    object: Tensor
    kind: Tensor

    def __add__(self, other: Patches) -> Patches:
        return Patches(torch.cat([self.image, other.image]), torch.cat([self.object, other.object]), torch.cat([self.kind, other.kind]))

    def chosen(self, rows: Tensor) -> Patches:
        """Some of them."""
        return Patches(self.image[rows], self.object[rows], self.kind[rows])


def false_finds(found: np.ndarray, piece: Piece) -> np.ndarray:
    """Which of the positions (M, 2) are far from every object of the piece, hidden ones too? bool (M,)"""
    return np.asarray((_distance(found, np.concatenate([piece.objects, piece.hidden])) * piece.mpp > MISS_UM).all(1))


def _distance(found: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.asarray(np.hypot(*(found[:, None] - points[None]).transpose(2, 0, 1)))


def gather(model: Detector, fields: Sequence[Piece], side_px: int) -> Patches:
    """What the first stage finds in fields, and the objects themselves, as patches that say which they are."""
    side = 2 * round(side_px * _ROOM / 2)
    images, truth, kinds = [], [], []
    for start in range(0, len(fields), 64):
        part = fields[start : start + 64]
        pixels = torch.from_numpy(np.stack([f.image for f in part]))
        for image, found, piece in zip(pixels, model.candidates(pixels), part, strict=True):
            wrong = false_finds(found.position, piece)
            at, is_object, kind = [found.position[wrong], piece.objects], [np.zeros(wrong.sum()), np.ones(len(piece.objects))], [piece.kinds]
            if len(piece.objects) and len(found.position):
                distance = _distance(found.position, piece.objects) * piece.mpp
                hits = (distance.min(1) < HIT_UM) & ~wrong
                at, is_object = [*at, found.position[hits]], [*is_object, np.ones(hits.sum())]
                kind.append(piece.kinds[distance[hits].argmin(1)])
            position = torch.from_numpy(np.concatenate(at))
            images.append(cut_patches(image.permute(2, 0, 1), position, side).permute(0, 2, 3, 1))
            truth.append(np.concatenate(is_object) > 0)
            kinds.append(np.concatenate([np.full(wrong.sum(), np.nan), *kind]))
    return Patches(torch.cat(images), torch.from_numpy(np.concatenate(truth)), torch.from_numpy(np.concatenate(kinds)).float())


def _turned(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Patches float32 (N, 3, S, S) turned by any angle, mirrored, scaled and shifted a little, and cut to ``side``."""
    n = len(images)
    angle = 2 * torch.pi * torch.rand(n, generator=generator)
    zoom = torch.exp((torch.rand(n, generator=generator) - 0.5) * 0.35)
    mirror = torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1
    share = side / images.shape[2] / zoom
    row0 = torch.stack([share * torch.cos(angle) * mirror, -share * torch.sin(angle)], 1)
    row1 = torch.stack([share * torch.sin(angle) * mirror, share * torch.cos(angle)], 1)
    shift = (torch.rand(n, 2, 1, generator=generator) - 0.5) * 2 * 4 / (images.shape[2] / 2)
    grid = F.affine_grid(torch.cat([torch.stack([row0, row1], 1), shift], 2), [n, 3, side, side], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _augmented(images: Tensor, side: int, card: Card, generator: torch.Generator) -> Tensor:
    coloured = jitter(restain(images, generator, 0.3), generator, 0.25)
    return _turned(scaled(coloured, card), side, generator).contiguous(memory_format=torch.channels_last)


def fit_verifier(
    net: Verifier, patches: Patches, card: Card, steps: int, *, seed: int, device: str, log: Callable[[str], None], rate: float = _LEARNING_RATE
) -> None:
    """Train the verifier on as many patches with an object as fit its draws, and twice as many without."""
    generator = torch.Generator().manual_seed(seed)
    yes, no = torch.nonzero(patches.object).flatten(), torch.nonzero(~patches.object).flatten()
    if not len(yes) or not len(no):
        log("the first stage finds nothing that is no object: the verifier has nothing to learn")
        return
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.15)
    few = _BATCH // (1 + _PER_OBJECT)
    net.train().requires_grad_(True)
    total = 0.0
    for step in range(steps):
        rows = torch.cat([yes[torch.randint(len(yes), (few,), generator=generator)], no[torch.randint(len(no), (_BATCH - few,), generator=generator)]])
        batch = patches.chosen(rows)
        logits = net(_augmented(batch.image, net.side_px, card, generator).to(device))
        loss = F.binary_cross_entropy_with_logits(logits[:, 0], (0.02 + 0.96 * batch.object.float()).to(device))
        known = ~torch.isnan(batch.kind)
        if known.any():
            kind, weight = batch.kind[known].to(device), 1 + 2.4 * batch.kind[known].to(device)  # AMi-Br: 3.4 typical to one atypical
            loss = loss + 0.3 * F.binary_cross_entropy_with_logits(logits[known.to(device), 1], kind, weight)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        total += float(loss.detach())
        if (step + 1) % 200 == 0 or step + 1 == steps:
            log(f"verifier: step {step + 1}/{steps}, loss {total / (step % 200 + 1):.3f}")
            total = 0.0
    net.eval()
