"""InceptionV3 (torchvision's), whole or with narrower layers, with its auxiliary classifier while it is trained."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models import inception as tv

FEATURES, AUXILIARY_FEATURES = 2048, 768
WIDTHS = (2, 4, 8, 16)
AUXILIARY = "AuxLogits."


class _SlimConv(nn.Module):
    """torchvision's BasicConv2d with 1/width of the channels; RGB stays RGB."""

    def __init__(self, in_channels: int, out_channels: int, *, width: int, **conv: Any) -> None:
        super().__init__()
        self.basic = tv.BasicConv2d(in_channels if in_channels == 3 else in_channels // width, out_channels // width, **conv)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.basic(x)
        return out


def inception(classes: int) -> nn.Module:
    """InceptionV3 as it is used: without the auxiliary classifier."""
    return tv.Inception3(num_classes=classes, aux_logits=False, init_weights=False)


def slim_inception(classes: int, width: int) -> nn.Module:
    """InceptionV3 with every layer 1/width as wide, for small tasks and tests.

    Raises
    ------
    TypeError
        The width is not one of 2, 4, 8, 16, which divide all layers.
    """
    if width not in WIDTHS:
        raise TypeError(f"width {width} must be one of {', '.join(map(str, WIDTHS))}")
    conv = partial(_SlimConv, width=width)
    cells = [partial(cell, conv_block=conv) for cell in (tv.InceptionA, tv.InceptionB, tv.InceptionC, tv.InceptionD, tv.InceptionE)]
    net = tv.Inception3(num_classes=classes, aux_logits=False, init_weights=False, inception_blocks=[conv, *cells, tv.InceptionAux])
    net.fc = nn.Linear(FEATURES // width, classes)
    return net


def add_auxiliary(net: tv.Inception3, width: int = 1) -> None:
    """Give an InceptionV3 its auxiliary classifier, so that in training it returns both logits; see `AUXILIARY` for its weights' names."""
    classes = net.fc.out_features
    net.aux_logits = True
    if width == 1:
        net.AuxLogits = tv.InceptionAux(AUXILIARY_FEATURES, classes)
        return
    net.AuxLogits = tv.InceptionAux(AUXILIARY_FEATURES, classes, conv_block=partial(_SlimConv, width=width))
    net.AuxLogits.fc = nn.Linear(AUXILIARY_FEATURES // width, classes)
