"""The second look: a small classifier of what a detector found, each in the middle of a patch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from wsikit.models._lite import LiteNet

_VIEWS = 4
_ROWS = 32  # patches per forward pass, always, so that a patch's score does not depend on how many there are


class Verdict(NamedTuple):
    """Of each patch, float32 (N,): the probabilities of being an object, and of being atypical if it is one."""

    probability: Tensor
    atypical: Tensor


class Verifier(LiteNet):
    """Patches (N, 3, ``side_px``, ``side_px``), enlarged to ``input_px`` → logits (N, 2): object, atypical."""

    def __init__(self, side_px: int = 64, input_px: int = 96, stages: int = 5, width: float = 1.0) -> None:
        super().__init__(2, stages, width)
        self.side_px, self.input_px = side_px, input_px

    def forward(self, patches: Tensor) -> Tensor:
        """Logits float32 (N, 2)."""
        if self.input_px != self.side_px:
            patches = F.interpolate(patches, (self.input_px, self.input_px), mode="bilinear", align_corners=False)
        return super().forward(patches)

    @torch.inference_mode()
    def verdict(self, patches: Tensor) -> Verdict:
        """The mean over four quarter turns, in passes of always the same size."""
        if not len(patches):
            return Verdict(patches.new_empty(0), patches.new_empty(0))
        logits = []
        for part in patches.split(_ROWS):
            full = torch.cat([part, part[-1:].expand(_ROWS - len(part), -1, -1, -1)]) if len(part) < _ROWS else part
            views = [self(torch.rot90(full, k, (2, 3)).contiguous(memory_format=torch.channels_last)) for k in range(_VIEWS)]
            logits.append(torch.stack(views).mean(0)[: len(part)])
        return Verdict(*torch.sigmoid(torch.cat(logits)).unbind(1))


def cut_patches(image: Tensor, position: Tensor, side: int) -> Tensor:
    """Squares of ``side`` px around positions (M, 2) x, y of an image (3, H, W), mirrored at its edges: (M, 3, side, side)."""
    pad = side // 2
    _, h, w = image.shape
    rows, columns = (_mirrored(torch.arange(-pad, n + pad, device=image.device), n) for n in (h, w))
    corner = (position.round().long()).clamp(min=torch.zeros(2, dtype=torch.long, device=image.device), max=torch.tensor([w, h], device=image.device))
    if not len(position):
        return image.new_empty((0, image.shape[0], side, side))
    return torch.stack([image[:, rows[y : y + side]][:, :, columns[x : x + side]] for x, y in corner.tolist()])


def _mirrored(index: Tensor, n: int) -> Tensor:
    """Any index as one in 0 … n − 1, mirrored at both ends."""
    period = max(1, 2 * (n - 1))
    index = index.abs() % period
    return torch.where(index >= n, period - index, index)
