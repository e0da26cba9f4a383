"""Slide level: gated attention (Ilse et al. 2018) over the features of a slide's tiles, from any encoder.

The bag's logits are W · Σ aᵢ hᵢ + b, with a = softmax over tiles of wᵀ(tanh(V hᵢ) ⊙ σ(U hᵢ)). By linearity they are Σ aᵢ (W hᵢ + b), so what is kept of a
tile is its own logits (as ``probability``) and its attention logit, and a slide of any number of tiles is put together from those
(`wsikit.aggregate.calls.bag_probability`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsikit.errors import CardError
from wsikit.models._card import Card
from wsikit.models._network import TileClassifier

NAME = "mil"
ATTENTION = "attention"


class GatedAttention(nn.Module):
    """Features (N, D) → logits of each tile (N, K) and of its attention (N,)."""

    def __init__(self, width: int, classes: int, hidden: int = 128) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU())
        self.v, self.u, self.w = nn.Linear(hidden, hidden // 2), nn.Linear(hidden, hidden // 2), nn.Linear(hidden // 2, 1)
        self.head = nn.Linear(hidden, classes)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of tiles, and of their attention."""
        h = self.project(feature)
        return self.head(h), self.w(torch.tanh(self.v(h)) * torch.sigmoid(self.u(h)))[:, 0]


class MilNet(nn.Module):
    """An encoder that gives features (B, D), and gated attention over them."""

    def __init__(self, encoder: nn.Module, width: int, classes: int, hidden: int = 128) -> None:
        super().__init__()
        self.encoder, self.mil = encoder, GatedAttention(width, classes, hidden)


def build(card: Card, whole: Any) -> MilNet:
    """The untrained network of a card whose ``architecture`` is ``{"name": "mil", "encoder": …, "hidden": …}``.

    ``whole(card)`` builds the encoder with its own classes and says the dotted name of its last layer.

    Raises
    ------
    CardError
        The encoder cannot be built.
    """
    architecture = dict(card.architecture)
    if not isinstance(architecture.get("encoder"), dict):
        raise CardError(f"model {card.name}: architecture 'mil' needs 'encoder', an architecture of its own")
    net, head = whole(card.model_copy(update={"architecture": architecture["encoder"]}))
    above, _, name = head.rpartition(".")
    width = int(net.get_submodule(head).in_features)
    setattr(net.get_submodule(above), name, nn.Identity())
    return MilNet(net, width, len(card.classes), int(architecture.get("hidden", 128)))


class MilClassifier(TileClassifier):
    """A slide classifier: of each tile its own probabilities, its features, and its attention."""

    def __init__(self, card: Card, net: MilNet, device: str = "cpu") -> None:
        super().__init__(card, net, device)
        self._mil = net

    @torch.inference_mode()
    def predict(self, images: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """As of a classifier, and ``attention`` float32 (B,): logits.

        Raises
        ------
        ModelError
            The images are not uint8 (B, H, W, 3).
        """
        feature = [self._mil.encoder(batch)[:real].float() for batch, real in self._batches(images)]
        f = torch.cat(feature) if feature else torch.empty((0, self.feature_size), device=self.device)
        logits, attention = self._mil.mil(f[:, : self.feature_size].contiguous())
        return {"probability": torch.softmax(logits, 1).cpu().numpy()} | self._split(f) | {ATTENTION: attention.cpu().numpy()}

    def _forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        f = self._mil.encoder(batch)
        return torch.softmax(self._mil.mil(f[:, : self.feature_size].contiguous())[0], 1), f

    def logits(self, batch: Tensor) -> Tensor:
        """Each tile's own logits, which its attention weights in the slide's."""
        own: Tensor = self._mil.mil(self._mil.encoder(batch)[:, : self.feature_size])[0]
        return own

    @property
    def body(self) -> nn.Module:
        """The encoder."""
        return self._mil.encoder

    @property
    def feature_size(self) -> int:
        """Features of a tile."""
        return self._mil.mil.width
