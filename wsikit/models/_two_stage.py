"""Two looks at a mitosis: a network that finds, and one that looks at each find again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsikit.errors import ModelError
from wsikit.models._card import Card
from wsikit.models._network import Detections
from wsikit.models._verifier import Verifier, cut_patches


class TwoStage(nn.Module):
    """A detector that looks at the image ``shrink`` × smaller, and the verifier of what it finds, which looks at the image as it is."""

    def __init__(self, detector: nn.Module, verifier: Verifier, shrink: int) -> None:
        super().__init__()
        self.detector, self.verifier, self.shrink = detector, verifier, shrink

    @property
    def head(self) -> Any:
        """The detector's."""
        return self.detector.head

    def init_weights(self) -> None:
        """As the detector starts."""
        first: Any = self.detector
        first.init_weights()

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        """The detector's output, or its losses, in px of the image ``x`` (B, 3, H, W)."""
        small = F.avg_pool2d(x, self.shrink) if self.shrink > 1 else x
        if targets is not None:
            return self.detector(small, torch.cat([targets[..., :1], targets[..., 1:] / self.shrink], 2))
        out: Tensor = self.detector(small)
        return torch.cat([out[..., :4] * self.shrink, out[..., 4:]], 2)


def verified(verifier: Verifier, batch: Tensor, first: list[Detections], card: Card) -> list[Detections]:
    """The detections that the verifier leaves, each at least ``merge_um`` from a better one; scores are multiplied by its probability.

    Raises
    ------
    ModelError
        The verifier gives no number for one.
    """
    assert card.detection is not None
    patches = [cut_patches(image, torch.from_numpy(d.position), verifier.side_px) for image, d in zip(batch, first, strict=False)]
    probability, atypical = (v.cpu().numpy() for v in verifier.verdict(torch.cat(patches)))
    if np.isnan(probability).any():
        raise ModelError(f"model {card.name} gave no number for a detection: its verifier is damaged")
    ends = np.cumsum([len(d.score) for d in first])
    found = []
    for d, p, a in zip(first, np.split(probability, ends[:-1]), np.split(atypical, ends[:-1]), strict=True):
        score = d.score * p
        order = np.argsort(-score, kind="stable")
        order = order[score[order] > card.detection.keep_above]
        order = order[apart(d.position[order], card.detection.merge_um / card.mpp)]
        found.append(Detections(d.position[order], score[order], d.label[order], d.size[order], a[order]))
    return found


def apart(position: np.ndarray, radius: float) -> np.ndarray:
    """Of points (M, 2), best first, those at least ``radius`` from every better one: bool (M,)"""
    kept = np.zeros(len(position), bool)
    for i, point in enumerate(position):
        kept[i] = not kept.any() or float(np.hypot(*(position[kept] - point).T).min()) >= radius
    return kept
