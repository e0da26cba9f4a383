"""YOLOv9 of the MIT release, through libreyolo, with the targets and outputs that every detector here has."""

from __future__ import annotations

from typing import Any

import torch
from libreyolo.models.yolo9.nn import LibreYOLO9Model
from torch import Tensor, nn

from wsikit.models._boxes import decode

SIZES = ("yolo9-t", "yolo9-s", "yolo9-m", "yolo9-c")


class Yolo9(nn.Module):
    """float32 (B, 3, H, W) → (B, N, 6) as `wsikit.models._boxes` has it; with targets (B, M, 5) of class, centre, size in px, the losses."""

    def __init__(self, name: str, side: int) -> None:
        super().__init__()
        self.net: Any = LibreYOLO9Model(name.removeprefix("yolo9-"), nb_classes=1, img_size=side)
        self.net.head.export = True

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        """Boxes, or losses with ``total_loss``."""
        if targets is None:
            return decode("corners", {"out": self.net(x)}, x.shape[-1])
        corners = torch.cat([targets[..., 1:3] - targets[..., 3:5] / 2, targets[..., 1:3] + targets[..., 3:5] / 2], -1) / x.shape[-1]
        return self.net(x, torch.cat([targets[..., :1], corners.clamp(0, 1)], -1))  # empty rows stay 0: boxes without an area hold no anchor

    def init_weights(self) -> None:
        """The network's own start is that of its release; its class scores begin at 1 % so that a short training gets somewhere."""
        for tower in self.net.head.cv3:
            nn.init.constant_(tower[-1].bias, -4.6)
