"""Networks for soft-tissue sarcoma subtypes: DDLPS, LMS, MFS, SS, UPS; and for any other classes, which the cards then name.

Class order of Foersch et al., Ann Oncol 2021 (32:1178), who use a DenseNet121. Their µm/px is not published; cards here state their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn
from torchvision.models import DenseNet, densenet121

from wsikit.errors import CardError
from wsikit.models import _backbone, _mil
from wsikit.models._card import Card
from wsikit.models._inception import inception, slim_inception
from wsikit.models._lite import LiteNet
from wsikit.models._network import Classifier, TileClassifier, load_weights

PIPELINE = "sts-subtype"
CLASSES = ("DDLPS", "LMS", "MFS", "SS", "UPS")
_NAMED: dict[str, Callable[..., nn.Module]] = {
    "densenet121": lambda classes, **arguments: densenet121(weights=None, num_classes=classes, **arguments),
    "densenet": lambda classes, **arguments: DenseNet(num_classes=classes, **arguments),
    "inception_v3": inception,
    "inception_v3_slim": slim_inception,
    "lite": LiteNet,
}
ARCHITECTURES = (*_NAMED, *_backbone.LIBRARIES, _mil.NAME)


def build(card: Card) -> nn.Module:
    """The untrained network of a card: the ones named here, ``densenet`` with torchvision's own arguments, or one of a library.

    Raises
    ------
    CardError
        The card names another architecture, or arguments that it does not have.
    """
    arguments = dict(card.architecture)
    name = arguments.pop("name", None)
    if name == _mil.NAME:
        return _mil.build(card, _with_head)
    if name in _backbone.LIBRARIES:
        return _backbone.build(card)
    if name not in _NAMED:
        raise CardError(f"model {card.name}: architecture.name must be one of {', '.join(ARCHITECTURES)}")
    try:
        return _NAMED[name](len(card.classes), **arguments)
    except (TypeError, ValueError) as e:
        raise CardError(f"model {card.name}: architecture: {e}") from e


def _with_head(card: Card) -> tuple[nn.Module, str]:
    net = build(card)
    return net, _backbone.last_linear(net, len(card.classes), card.name)


def load(card: Card, folder: Path, device: str) -> TileClassifier:
    """The trained model of a folder, on a device."""
    net = load_weights(build(card), card, folder)
    if isinstance(net, _mil.MilNet):
        return _mil.MilClassifier(card, net, device)
    return Classifier(card, net, _backbone.last_linear(net, len(card.classes), card.name), device)
