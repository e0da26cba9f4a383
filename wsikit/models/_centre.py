"""A detector of point-like objects: one score for each cell of 4 × 4 px, highest where a centre is (after Zhou et al. 2019, Objects as Points)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsikit.models._lite import convolution, lite_layers

CELL_PX = 4
_STAGES = 4  # strides 2, 4, 8, 16
_SPREAD = 1.0  # cells: standard deviation of the bell around a centre, within which a score is not held against the network


class CentreNet(nn.Module):
    """Images (B, 3, H, W), sides a multiple of 16 → boxes (B, A, 6) as YOLOX gives them, zero but at local maxima; with targets, the loss.

    Every box is ``box_px`` wide: objects of one kind, whose size is not asked for.
    """

    def __init__(self, box_px: float, channels: int = 32, width: float = 1.0) -> None:
        super().__init__()
        layers, ends = lite_layers(_STAGES, width)
        self.trunk = nn.Sequential(*layers)
        self.box_px = box_px
        self._ends = [at for at, _ in ends]
        self.lateral = nn.ModuleList(nn.Conv2d(o, channels, 1) for _, o in ends[1:])
        self.mix = nn.Sequential(*convolution(channels, channels, 3))
        self.head = nn.Conv2d(channels, 1, 1)

    def init_weights(self) -> None:
        """Start with a score of 1 % everywhere."""
        nn.init.constant_(self.head.bias, -4.6)  # type: ignore[arg-type]

    def logits(self, x: Tensor) -> Tensor:
        """float32 (B, H / 4, W / 4)."""
        levels = []
        for n, layer in enumerate(self.trunk, 1):
            x = layer(x)
            if n in self._ends[1:]:
                levels.append(x)
        mixed = self.lateral[-1](levels[-1])
        for level, lateral in zip(levels[-2::-1], list(self.lateral)[-2::-1], strict=True):
            mixed = lateral(level) + F.interpolate(mixed, level.shape[2:], mode="nearest")
        out: Tensor = self.head(self.mix(mixed))[:, 0].float()
        return out

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Boxes, or the focal loss against targets (B, M, 5): class, centre x, y, width, height; empty rows are 0."""
        logits = self.logits(x)
        if targets is not None:
            return {"total_loss": focal_loss(logits, heat_of(targets, logits.shape[1], logits.shape[2]))}
        score = torch.sigmoid(logits)
        peak = F.max_pool2d(score[:, None], 3, 1, 1)[:, 0] == score
        centre = _refined(score)
        size = torch.full_like(centre, self.box_px)
        return torch.cat([centre, size, (score * peak)[..., None], torch.ones_like(score)[..., None]], 3).flatten(1, 2)


def heat_of(targets: Tensor, h: int, w: int) -> Tensor:
    """A bell of height 1 on the cell of each centre: float32 (B, h, w)."""
    real = targets[..., 3] > 0
    cell = torch.floor(targets[..., 1:3] / CELL_PX)
    rows, columns = torch.arange(h, device=targets.device), torch.arange(w, device=targets.device)
    squared = (columns[None, None, None] - cell[..., 0, None, None]) ** 2 + (rows[None, None, :, None] - cell[..., 1, None, None]) ** 2
    bells = torch.exp(-squared / (2 * _SPREAD**2)) * real[..., None, None]
    return bells.amax(1)


def focal_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """Law & Deng 2018 (CornerNet), eq. 1: easy cells weigh little, and cells near a centre less than others; per object."""
    p = torch.sigmoid(logits)
    centre = heat == 1
    hit = -F.logsigmoid(logits) * (1 - p) ** 2 * centre
    miss = -F.logsigmoid(-logits) * p**2 * (1 - heat) ** 4 * ~centre
    return (hit.sum() + miss.sum()) / centre.sum().clamp(min=1)


def _refined(score: Tensor) -> Tensor:
    """Of each cell the mean place of it and its neighbours, weighted by score, x, y px: (B, h, w, 2)."""
    b, h, w = score.shape
    around = F.unfold(score[:, None], 3, padding=1).view(b, 9, h, w)
    step = torch.arange(-1, 2, device=score.device, dtype=score.dtype)
    total = around.sum(1).clamp(min=1e-6)
    dx = (around * step.repeat(3)[None, :, None, None]).sum(1) / total
    dy = (around * step.repeat_interleave(3)[None, :, None, None]).sum(1) / total
    x = torch.arange(w, device=score.device)[None, None] + 0.5 + dx
    y = torch.arange(h, device=score.device)[None, :, None] + 0.5 + dy
    return torch.stack([x, y], 3) * CELL_PX
