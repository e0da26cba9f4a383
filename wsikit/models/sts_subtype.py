"""DenseNet for soft-tissue sarcoma subtypes: DDLPS, LMS, MFS, SS, UPS.

Architecture and class order of Foersch et al., Ann Oncol 2021 (32:1178): torchvision DenseNet121. Their µm/px is
not published; cards here state their own.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn
from torchvision.models import DenseNet, densenet121

from wsikit.errors import CardError
from wsikit.models import _backbone
from wsikit.models._card import Card
from wsikit.models._network import Classifier, load_weights

PIPELINE = "sts-subtype"
CLASSES = ("DDLPS", "LMS", "MFS", "SS", "UPS")
ARCHITECTURES = ("densenet121", "densenet", *_backbone.LIBRARIES)


def build(card: Card) -> nn.Module:
    """The untrained network of a card: ``densenet121``, ``densenet`` with torchvision's own arguments, or one of a library.

    Raises
    ------
    CardError
        The card names another architecture, or arguments that it does not have.
    """
    if card.architecture.get("name") in _backbone.LIBRARIES:
        return _backbone.build(card)
    arguments = {k: v for k, v in card.architecture.items() if k != "name"}
    try:
        if card.architecture.get("name") == "densenet121":
            return densenet121(weights=None, num_classes=len(card.classes), **arguments)
        if card.architecture.get("name") == "densenet":
            return DenseNet(num_classes=len(card.classes), **arguments)
    except TypeError as e:
        raise CardError(f"model {card.name}: architecture: {e}") from e
    raise CardError(f"model {card.name}: architecture.name must be one of {', '.join(ARCHITECTURES)}")


def load(card: Card, folder: Path, device: str) -> Classifier:
    """The trained model of a folder, on a device."""
    if card.architecture.get("name") in _backbone.LIBRARIES:
        return _backbone.load(card, folder, device)
    return Classifier(card, load_weights(build(card), card, folder), "classifier", device)
