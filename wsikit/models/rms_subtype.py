"""InceptionV3 for rhabdomyosarcoma subtypes: ARMS, ERMS, other.

Architecture of Zhang et al., Am J Pathol 2022 (192:917) and Frankel et al., Mod Pathol 2022: torchvision
InceptionV3, 299 px. ``other`` (stroma, background, another entity) is always a class, so that a tile can be neither.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import inception as tv

from wsikit.errors import CardError
from wsikit.models import _backbone
from wsikit.models._card import Card
from wsikit.models._network import Classifier, load_weights

PIPELINE = "rms-subtype"
CLASSES = ("ARMS", "ERMS", "other")
ARCHITECTURES = ("inception_v3", "inception_v3_slim", *_backbone.LIBRARIES)
FEATURES = 2048


class _SlimConv(nn.Module):
    """torchvision's BasicConv2d with 1/width of the channels; RGB stays RGB."""

    def __init__(self, in_channels: int, out_channels: int, *, width: int, **conv: Any) -> None:
        super().__init__()
        self.basic = tv.BasicConv2d(in_channels if in_channels == 3 else in_channels // width, out_channels // width, **conv)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.basic(x)
        return out


def slim_inception(classes: int, width: int) -> nn.Module:
    """InceptionV3 with every layer 1/width as wide (width divides 16), for small tasks and tests."""
    conv = partial(_SlimConv, width=width)
    cells = [partial(cell, conv_block=conv) for cell in (tv.InceptionA, tv.InceptionB, tv.InceptionC, tv.InceptionD, tv.InceptionE)]
    net = tv.Inception3(num_classes=classes, aux_logits=False, init_weights=False, inception_blocks=[conv, *cells, tv.InceptionAux])
    net.fc = nn.Linear(FEATURES // width, classes)
    return net


def build(card: Card) -> nn.Module:
    """The untrained network of a card: ``inception_v3``, ``inception_v3_slim`` with ``width``, or one of a library.

    Raises
    ------
    CardError
        The card names another architecture or width.
    """
    name = card.architecture.get("name")
    if name in _backbone.LIBRARIES:
        return _backbone.build(card)
    if name == "inception_v3":
        return tv.Inception3(num_classes=len(card.classes), aux_logits=False, init_weights=False)
    width = card.architecture.get("width")
    if name == "inception_v3_slim" and width in (2, 4, 8, 16):
        return slim_inception(len(card.classes), width)
    raise CardError(f"model {card.name}: architecture.name must be one of {', '.join(ARCHITECTURES)} (inception_v3_slim with width 2, 4, 8 or 16)")


def load(card: Card, folder: Path, device: str) -> Classifier:
    """The trained model of a folder, on a device."""
    if card.architecture.get("name") in _backbone.LIBRARIES:
        return _backbone.load(card, folder, device)
    return Classifier(card, load_weights(build(card), card, folder), "fc", device)
