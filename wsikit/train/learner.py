"""A tile classifier as something that `wsikit.train.fit` can train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import Inception3

from wsikit.errors import UsageError
from wsikit.models import family
from wsikit.models._backbone import last_linear
from wsikit.models._card import Card
from wsikit.models._inception import add_auxiliary
from wsikit.train.augment import augment
from wsikit.train.held import scores
from wsikit.train.parallel import Group
from wsikit.train.recipe import Loss, Recipe


@dataclass(frozen=True)
class Tiles:
    """Images uint8 (N, tile, tile, 3), perhaps on the disk, and the class of each, int64 (N,)."""

    images: np.ndarray
    label: np.ndarray

    def take(self, rows: np.ndarray) -> Tensor:
        """Some of the images."""
        return torch.from_numpy(np.ascontiguousarray(self.images[rows]))


def scaled(images: Tensor, card: Card) -> Tensor:
    """uint8 (B, H, W, 3) as the card's network input, float32 (B, 3, H, W)."""
    mean, std = torch.tensor(card.scaling.mean).view(1, 3, 1, 1), torch.tensor(card.scaling.std).view(1, 3, 1, 1)
    return ((images.permute(0, 3, 1, 2).float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def trainable(card: Card, auxiliary: float = 0.0) -> tuple[nn.Module, list[nn.Parameter]]:
    """The untrained network of a card, and the parameters of its last layers.

    Raises
    ------
    CardError
        There is no such network.
    UsageError
        An ``auxiliary`` loss is wanted of a network that has no second output.
    """
    net = family(card.pipeline).build(card)
    name = last_linear(net, len(card.classes), card.name)
    last: Any = net.get_submodule(name)
    last.reset_parameters()  # timm's EfficientNets begin with logits of ±10 where there are few classes
    if card.architecture.get("name") == "fastai":
        name = name.split(".")[0]  # all that comes after the maps is its head
    head = list(net.get_submodule(name).parameters())
    if auxiliary:
        if not isinstance(net, Inception3):
            raise UsageError(f"loss.auxiliary is for inception_v3, which has a second output, and not for {card.architecture.get('name')}; set it to 0")
        add_auxiliary(net, int(card.architecture.get("width", 1)))
        head += list(net.AuxLogits.parameters())
    return net, head


class TileLearner:
    """A classifier, its tiles, its loss, and how good it is on the tiles held out."""

    def __init__(self, net: nn.Module, head: list[nn.Parameter], card: Card, recipe: Recipe, tiles: Tiles, held: Tiles) -> None:
        self.net, self.head, self.size = net, head, len(tiles.label)
        self._card, self._recipe, self._tiles, self._held = card, recipe, tiles, held
        self._weight = class_weights(tiles.label, len(card.classes), recipe.loss)

    def loss(self, net: nn.Module, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Cross-entropy of some tiles, changed as the recipe says; with that of the second output, where there is one."""
        device = next(self.net.parameters()).device
        images = augment(self._tiles.take(rows.numpy()), self._recipe.augment, generator)
        out = net(scaled(images, self._card).to(device))
        label = torch.from_numpy(self._tiles.label[rows.numpy()]).to(device)
        parts = out if isinstance(out, tuple) else (out, None)
        weight, smoothing = self._weight.to(device), self._recipe.loss.label_smoothing
        loss = functional.cross_entropy(parts[0], label, weight, label_smoothing=smoothing)
        if parts[1] is not None:
            loss = loss + self._recipe.loss.auxiliary * functional.cross_entropy(parts[1], label, weight, label_smoothing=smoothing)
        return loss

    @torch.inference_mode()
    def validate(self, group: Group) -> Mapping[str, float]:
        """Figures over the tiles held out, each process doing its part of them."""
        n, device = len(self._held.label), next(self.net.parameters()).device
        probability = np.zeros((n, len(self._card.classes)), np.float32)
        mine = np.arange(n)[group.rank :: group.size]
        for start in range(0, len(mine), self._card.batch):
            rows = mine[start : start + self._card.batch]
            logits = self.net(scaled(self._held.take(rows), self._card).to(device))
            probability[rows] = torch.softmax(logits.float(), 1).cpu().numpy()
        return scores(self._held.label, group.total(probability), self._recipe.keep)


def class_weights(label: np.ndarray, classes: int, how: Loss) -> Tensor:
    """N / (K · n_k) of each class, as Foersch et al. weigh them; or 1."""
    if how.class_weights == "none":
        return torch.ones(classes)
    counts = np.bincount(label, minlength=classes).clip(min=1)
    return torch.from_numpy((len(label) / classes / counts).astype(np.float32))
