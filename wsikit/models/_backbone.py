"""Classification networks by library and name: torchvision, timm, fastai's head on torchvision, TIAToolbox's head on torchvision.

A card's ``architecture`` is ``{"name": LIBRARY, "model": NAME, …}`` with the builder's other arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from wsikit.errors import CardError
from wsikit.models._card import Card
from wsikit.models._network import Classifier, load_weights

MLP_LAYERS = ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")


class ConcatPool(nn.Module):
    """Maximum and mean over the picture, side by side: fastai's AdaptiveConcatPool2d, without its keys."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 2 C)."""
        return torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)


class Pooled(nn.Module):
    """TIAToolbox's ``CNNModel``: features, mean over the picture, a linear layer (with no ReLU after a DenseNet's features)."""

    def __init__(self, body: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.feat_extract = body
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        out: Tensor = self.classifier(self.feat_extract(x).mean((2, 3)))
        return out


def _torchvision(model: str, classes: int, **arguments: Any) -> nn.Module:
    if model not in torchvision.models.list_models(module=torchvision.models):
        raise CardError(f"torchvision has no classification model '{model}'")
    if model in ("inception_v3", "googlenet"):  # their auxiliary heads are of training only
        arguments = {"aux_logits": False, "init_weights": False} | arguments
    net: nn.Module = torchvision.models.get_model(model, weights=None, num_classes=classes, **arguments)
    return net


def _timm(model: str, classes: int, weights_of: str = "", **arguments: Any) -> nn.Module:
    """``weights_of`` is of the card's readers: whose encoder it started as. Layers that a network is made with are named as in `timm.layers`."""
    import timm

    if not timm.is_model(model):  # also an address, which would be fetched
        raise CardError(f"timm has no model '{model}'")
    if files := [k for k in arguments if k.startswith(("pretrained", "checkpoint", "cache"))]:  # timm would open what these name
        raise CardError(f"argument '{files[0]}' is not of the network; weights are those of the folder")
    if isinstance(layer := arguments.get("mlp_layer"), str):
        if layer not in MLP_LAYERS:
            raise CardError(f"mlp_layer '{layer}': there are {', '.join(MLP_LAYERS)}")
        arguments["mlp_layer"] = getattr(timm.layers, layer)
    return timm.create_model(model, pretrained=False, num_classes=classes, **arguments)


def _body(model: str) -> tuple[list[nn.Module], int]:
    """The convolutional part of a torchvision network, as children, and its channels."""
    net: Any = _torchvision(model, 1000)
    if isinstance(net, torchvision.models.ResNet):
        return list(net.children())[:-2], net.fc.in_features
    if isinstance(net, torchvision.models.DenseNet):
        return [net.features], net.classifier.in_features
    if isinstance(net, torchvision.models.MobileNetV2):
        return [net.features], net.last_channel
    raise CardError(f"of '{model}' the convolutional part is not known here; ResNets, DenseNets and MobileNetV2 are")


def _fastai(model: str, classes: int, bias: bool = True, hidden: int = 512) -> nn.Module:
    """``cnn_learner(model)``: its head is concat pool → BN → Dropout .25 → Linear → ReLU → BN → Dropout .5 → Linear.

    ``bias``: of the linear layers; fastai 1 has it, fastai 2 has not. Keys are those of ``learner.model.state_dict()``.
    """
    children, width = _body(model)
    head = [ConcatPool(), nn.Flatten(), nn.BatchNorm1d(2 * width), nn.Dropout(0.25), nn.Linear(2 * width, hidden, bias=bias), nn.ReLU()]
    head += [nn.BatchNorm1d(hidden), nn.Dropout(0.5), nn.Linear(hidden, classes, bias=bias)]
    return nn.Sequential(nn.Sequential(*children), nn.Sequential(*head))


def _tiatoolbox(model: str, classes: int) -> nn.Module:
    children, width = _body(model)
    return Pooled(children[0] if len(children) == 1 else nn.Sequential(*children), width, classes)


LIBRARIES: dict[str, Callable[..., nn.Module]] = {"torchvision": _torchvision, "timm": _timm, "fastai": _fastai, "tiatoolbox": _tiatoolbox}


def build(card: Card) -> nn.Module:
    """The untrained network of a card whose ``architecture`` names one of the `LIBRARIES`.

    Raises
    ------
    CardError
        The library is another, or has no such model, or not these arguments.
    """
    arguments = dict(card.architecture)
    library = LIBRARIES.get(str(arguments.pop("name", "")))
    if library is None or not arguments.get("model"):
        raise CardError(f"model {card.name}: architecture needs 'name', one of {', '.join(LIBRARIES)}, and 'model'")
    try:
        return library(classes=len(card.classes), **arguments)
    except CardError as e:
        raise CardError(f"model {card.name}: architecture: {e}") from e
    except (TypeError, ValueError, RuntimeError, AssertionError) as e:
        raise CardError(f"model {card.name}: architecture: {' '.join(str(e).split())[:200]}") from e


def last_linear(net: nn.Module, classes: int, name: str = "") -> str:
    """The name of the layer that turns features into scores: the last linear one with that many outputs.

    Raises
    ------
    CardError
        There is none.

    Examples
    --------
    >>> last_linear(torchvision.models.resnet18(num_classes=5), 5)
    'fc'
    """
    found = [path for path, module in net.named_modules() if isinstance(module, nn.Linear) and module.out_features == classes]
    if not found:
        raise CardError(f"model {name}: its network ends in no linear layer with {classes} outputs, so it has no features here")
    return found[-1]


def load(card: Card, folder: Path, device: str) -> Classifier:
    """The trained model of a folder, on a device.

    Raises
    ------
    CardError, WeightsMismatchError
        Its card or weights are wrong.
    """
    net = load_weights(build(card), card, folder)
    return Classifier(card, net, last_linear(net, len(card.classes), card.name), device)
