"""With which weights does training start? ImageNet's, those of a file or another model, or random ones."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from wsikit.errors import UnknownModelError, WeightsMismatchError
from wsikit.models import find_model, read_card
from wsikit.models._card import check_weights
from wsikit.models.exchange.encoders import encoder_weights

_SECONDS = 30
LITE, _TIMM_LITE = "lite", "efficientnet_lite0"
_ENOUGH = 0.9  # of the tensors of the body must be found in a file, else it is of another network


class _Offered(NamedTuple):
    """Weights from elsewhere: tensors by the names there, and what to call their origin."""

    tensors: dict[str, Tensor]
    origin: str


def initialise(net: nn.Module, head: list[nn.Parameter], architecture: dict[str, Any], initial: str, log: Callable[[str], None]) -> str:
    """Put weights into a network before training; returns where they are from, for the card.

    Parameters
    ----------
    head : parameters that always stay random, since their classes are others
    initial : ``imagenet``, ``none``, ``hf:owner/name`` of an encoder, a file (safetensors, or a state dict of ``torch.save``), a model's folder or the
        name of one at hand

    Raises
    ------
    WeightsMismatchError
        A file or model does not fit the network.
    UnknownModelError
        There is no such file or model.
    LicenceError
        An encoder's terms were not accepted here.
    """
    if initial == "none":
        return "random"
    if initial == "imagenet":
        offered = _imagenet(architecture)
        if isinstance(offered, str):
            log(f"WARNING: training starts from random weights: {offered}. Expect to need many more slides; give --init FILE to start from weights you have")
            return f"random ({offered})"
    elif initial.startswith("hf:"):
        offered = _Offered(*encoder_weights(initial))
    else:
        offered = _given(initial)
    if architecture.get("name") == LITE:
        offered = offered._replace(tensors=_named_as_lite(offered.tensors, net))
    last = {id(p) for p in head}
    body = {name for name, p in net.named_parameters() if id(p) not in last}
    fitting = _fitting(net, offered.tensors, {n for n, p in net.named_parameters() if id(p) in last})
    found = len(body & set(fitting))
    if found < _ENOUGH * len(body):
        raise WeightsMismatchError(f"{initial}: only {found} of {len(body)} tensors fit network {architecture.get('name')}; choose weights of that")
    net.load_state_dict(fitting, strict=False)
    log(f"starting from {offered.origin}: {len(fitting)} tensors")
    return offered.origin


def _fitting(net: nn.Module, tensors: dict[str, Tensor], head: set[str]) -> dict[str, Tensor]:
    """The tensors that the network has, by name and shape; fastai's ``0.0`` is what torchvision calls ``features``."""
    own = net.state_dict()
    found = {}
    for name, value in tensors.items():
        for mine in (name, name.replace("features.", "0.0.", 1)):
            if mine in own and mine not in head and own[mine].shape == value.shape:
                found[mine] = value
    return found


def _named_as_lite(tensors: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """EfficientNet-Lite0 of timm, and the second stage of a detector, by the names that `LiteNet` has for the same layers."""
    import timm

    ours = [k for k in net.state_dict() if k.startswith("trunk.")]
    theirs = dict(zip(timm.create_model(_TIMM_LITE).state_dict(), ours, strict=False))  # the same layers in the same order
    return {theirs.get(k, k.removeprefix("verifier.")): v for k, v in tensors.items()}


def _imagenet(architecture: dict[str, Any]) -> _Offered | str:
    """ImageNet's weights from their hub (or its cache here), or why there are none."""
    library, model = str(architecture.get("name")), str(architecture.get("model", ""))
    library, model = ("timm", _TIMM_LITE) if library == LITE else (library, model)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    try:
        if library == "timm":
            import timm

            return _Offered(timm.create_model(model, pretrained=True).state_dict(), f"timm's pretrained weights of {model}")
        if library == "unet":
            from wsikit.models.tumour import encoder_weights

            return _Offered(encoder_weights(architecture), f"the pretrained weights of encoder {architecture['encoder']}")
        known = model if library in ("torchvision", "fastai") else library if library in ("densenet121", "inception_v3") else ""
        if not known:
            return f"there are no ImageNet weights of network {library}"
        weights = get_model_weights(known)["IMAGENET1K_V1"]
        return _Offered(weights.get_state_dict(progress=False, check_hash=True), f"torchvision's {known} IMAGENET1K_V1")
    except (OSError, RuntimeError, KeyError, ValueError) as e:  # hubs raise their own kinds of these
        return f"ImageNet weights of {model or library} cannot be fetched ({' '.join(str(e).split())[:120] or type(e).__name__})"
    finally:
        socket.setdefaulttimeout(before)


def _given(initial: str) -> _Offered:
    path = Path(initial)
    if path.is_file():
        try:
            tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True, map_location="cpu")
        except (SafetensorError, RuntimeError, OSError, ValueError, EOFError) as e:
            raise WeightsMismatchError(f"{path}: not safetensors and not a plain state dict ({str(e).strip().splitlines()[0][:120]})") from e
        except Exception as e:  # the safe unpickler's own error is not exported everywhere
            raise WeightsMismatchError(f"{path}: holds more than tensors, so it is not opened; save its state dict as safetensors") from e
        state = tensors.get("state_dict", tensors) if isinstance(tensors, dict) else {}
        if not state or not all(isinstance(v, Tensor) for v in state.values()):
            raise WeightsMismatchError(f"{path}: not a state dict, which is tensors by name; save net.state_dict() as safetensors")
        return _Offered(state, f"the file {path.name}")
    try:
        folder = find_model(initial)
    except UnknownModelError as e:
        raise UnknownModelError(f"--init {initial}: neither 'imagenet' nor 'none', nor a file of weights, nor a model") from e
    card = read_card(folder)
    return _Offered(load_file(check_weights(card, folder)), f"model {card.name} ({card.digest[:12]})")
