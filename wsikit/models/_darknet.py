"""Darknet networks (YOLOv3, YOLOv4) from their ``.cfg``: read with bounds, built by libreyolo, their heads decoded to pixels.

A cfg is text that anybody can have written, so what it may ask for is listed here, and everything else is refused by name.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from libreyolo.models.darknet.cfg import CfgLayer, parse_cfg_text
from libreyolo.models.darknet.net import DarknetNet
from torch import Tensor, nn

from wsikit.errors import CardError

NAME = "darknet"
MAX_CFG_BYTES = 256 * 1024
MAX_LAYERS = 400
MAX_PARAMETERS = 400_000_000  # YOLOv4 has 64 million
MAX_ACTIVATIONS = 2_000_000_000  # numbers of all layers of one tile
_ACTIVATIONS = ("linear", "leaky", "mish", "relu", "logistic")
_TRAINING = {"stopbackward", "dontload", "onlyforward", "learning_rate"}
_KEYS: dict[str, set[str]] = {
    "convolutional": {"batch_normalize", "filters", "size", "stride", "pad", "activation"},
    "maxpool": {"size", "stride"},
    "upsample": {"stride"},
    "route": {"layers", "groups", "group_id"},
    "shortcut": {"from", "activation"},
    "yolo": {
        *("mask", "anchors", "classes", "num", "scale_x_y", "jitter", "ignore_thresh", "truth_thresh", "random", "resize", "max"),
        *("iou_thresh", "cls_normalizer", "iou_normalizer", "obj_normalizer", "iou_loss", "nms_kind", "beta_nms", "max_delta", "objectness_smooth"),
    },
}
_Layers = list[list[Any]]


def parse_cfg(text: str, where: str) -> dict[str, Any]:
    """The ``architecture`` of a card from the text of a cfg: ``side``, ``classes``, and ``layers`` as [type, {option: text}].

    Raises
    ------
    CardError
        It is none, asks for something that is not known here, or for more than any detector needs.
    """
    if len(text) > MAX_CFG_BYTES:
        raise CardError(f"{where}: a cfg of more than {MAX_CFG_BYTES // 1024} KiB is none of a detector")
    net, parsed = parse_cfg_text(text)
    if not net or not parsed:
        raise CardError(f"{where}: is no Darknet cfg: no [net] with layers after it")
    side = _whole(net.get("width", "416"), where, "[net] width", 32, 4096)
    if net.get("height", str(side)) != str(side) or net.get("channels", "3") != "3":
        raise CardError(f"{where}: [net] must be square with 3 channels, not {net.get('width')} × {net.get('height')} with {net.get('channels', 3)}")
    used: _Layers = [[layer.type, {k: v for k, v in layer.options.items() if k not in _TRAINING}] for layer in parsed]
    architecture = {"name": NAME, "side": side, "layers": used}
    check_layers(architecture, where)
    classes = {options.get("classes", "80") for kind, options in used if kind == "yolo"}
    if len(classes) != 1:
        raise CardError(f"{where}: needs [yolo] heads of the same classes, and has {len(classes)} kinds")
    return architecture | {"classes": _whole(classes.pop(), where, "[yolo] classes", 1, 1000)}


def check_layers(architecture: dict[str, Any], where: str) -> None:
    """Refuse what a cfg, or a card made of one, must not ask for, before anything is built.

    Raises
    ------
    CardError
        A layer or option is not known, a number out of its range, a reference outside, or the whole too large.
    """
    layers, side = architecture.get("layers"), architecture.get("side")
    if not isinstance(layers, list) or not 1 <= len(layers) <= MAX_LAYERS or type(side) is not int or not 32 <= side <= 4096:
        raise CardError(f"{where}: a Darknet architecture has a 'side' of 32 to 4096 px and 1 to {MAX_LAYERS} 'layers'")
    shapes: list[tuple[int, int]] = []  # channels and side of each layer's output
    parameters = activations = 0
    for i, entry in enumerate(layers):
        kind, options = _entry(entry, f"{where}: layer {i}")
        before = shapes[-1] if shapes else (3, side)
        shape, weights = _grown(kind, options, before, shapes, f"{where}: layer {i} [{kind}]")
        shapes.append(shape)
        parameters += weights
        activations += shape[0] * shape[1] ** 2
        if parameters > MAX_PARAMETERS or activations > MAX_ACTIVATIONS:
            raise CardError(f"{where}: larger than any detector is: over {MAX_PARAMETERS:,} weights or {MAX_ACTIVATIONS:,} numbers a tile at layer {i}")
    if not any(kind == "yolo" for kind, _ in layers):
        raise CardError(f"{where}: has no [yolo] head, so it finds nothing")


def _entry(entry: Any, where: str) -> tuple[str, dict[str, str]]:
    if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], dict)):
        raise CardError(f"{where} is not [type, options]")
    kind, options = entry
    if kind not in _KEYS:
        raise CardError(f"{where}: [{kind[:40]}] is not known here; known are {', '.join(_KEYS)}")
    odd = [str(k)[:40] for k in options if k not in _KEYS[kind]]
    if odd or not all(isinstance(v, str) and len(v) < 1000 for v in options.values()):
        raise CardError(f"{where} [{kind}]: '{odd[0] if odd else 'a value'}' is not known here, so what the layer computes is not either")
    return kind, options


def _grown(kind: str, o: dict[str, str], before: tuple[int, int], shapes: list[tuple[int, int]], where: str) -> tuple[tuple[int, int], int]:
    """Channels and side after a layer, and how many weights it has."""
    channels, side = before
    if kind == "convolutional":
        size, stride = _whole(o.get("size", "1"), where, "size", 1, 15), _whole(o.get("stride", "1"), where, "stride", 1, 8)
        filters = _whole(o.get("filters", ""), where, "filters", 1, 8192)
        _activation(o, _ACTIVATIONS, where)
        pad = size // 2 if o.get("pad", "0") != "0" or size == 1 else 0
        return (filters, _side((side + 2 * pad - size) // stride + 1, where)), filters * (channels * size * size + 4)
    if kind == "maxpool":
        size, stride = _whole(o.get("size", "2"), where, "size", 1, 31), _whole(o.get("stride", "2"), where, "stride", 1, 8)
        if size % 2 == 0 and size != 2:
            raise CardError(f"{where}: size {size} is even; Darknet pads that in its own way")
        out = side if (size, stride) == (2, 1) else (side + 2 * ((size - 1) // 2) - size) // stride + 1
        return (channels, _side(out, where)), 0
    if kind == "upsample":
        return (channels, _side(side * _whole(o.get("stride", "2"), where, "stride", 1, 8), where)), 0
    if kind == "route":
        sources = [shapes[_reference(r, len(shapes), where)] for r in o.get("layers", "").split(",")]
        groups = _whole(o.get("groups", "1"), where, "groups", 1, 64)
        _whole(o.get("group_id", "0"), where, "group_id", 0, groups - 1)
        total = sum(c for c, _ in sources)
        if len({s for _, s in sources}) > 1 or total % groups:
            raise CardError(f"{where}: joins layers of different sizes, or does not divide into its groups")
        return (total // groups, sources[0][1]), 0
    if kind == "shortcut":
        _activation(o, ("linear",), where)
        if shapes[_reference(o.get("from", ""), len(shapes), where)] != before:
            raise CardError(f"{where}: adds layers of different shapes")
        return before, 0
    _head(o, channels, where)
    return before, 0


def _head(o: dict[str, str], channels: int, where: str) -> None:
    numbers = o.get("anchors", "").split(",")
    anchors, classes = len(numbers) // 2, _whole(o.get("classes", "80"), where, "classes", 1, 1000)
    try:
        believable = all(0 < float(a) < 1e5 for a in numbers) and 0.5 < float(o.get("scale_x_y", "1")) < 3
    except ValueError:
        believable = False
    masks = [_whole(m, where, "mask", 0, anchors - 1) for m in o.get("mask", ",".join(map(str, range(anchors)))).split(",")] if anchors else []
    if not believable or len(numbers) % 2 or channels != len(masks) * (5 + classes):
        raise CardError(f"{where}: its {channels} channels are not its anchors × (5 + classes), or its anchors are no sizes")


def _activation(o: dict[str, str], known: tuple[str, ...], where: str) -> None:
    if o.get("activation", "linear") not in known:
        raise CardError(f"{where}: activation '{o['activation'][:40]}' is not known here; known are {', '.join(known)}")


def _reference(text: str, here: int, where: str) -> int:
    n = _whole(text, where, "a reference", -MAX_LAYERS, MAX_LAYERS)
    n = n if n >= 0 else here + n
    if not 0 <= n < here:
        raise CardError(f"{where}: refers to layer {n}, which is not before it")
    return n


def _side(side: int, where: str) -> int:
    if not 1 <= side <= 4096:
        raise CardError(f"{where}: its output would be {side} px")
    return side


def _whole(text: str, where: str, what: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise CardError(f"{where}: {what} '{str(text).strip()[:40]}' is no whole number from {least} to {most}")
    return value


class Darknet(nn.Module):
    """float32 (B, 3, side, side) → (B, N, 5 + K): centre x, y, width, height in px, objectness, class probabilities."""

    def __init__(self, architecture: dict[str, Any], where: str = "darknet") -> None:
        super().__init__()
        check_layers(architecture, where)
        self.side: int = architecture["side"]
        layers = [CfgLayer(kind, dict(options)) for kind, options in architecture["layers"]]
        self.net: Any = DarknetNet({"width": self.side, "height": self.side, "channels": 3}, layers)

    def forward(self, x: Tensor) -> Tensor:
        """Decode every head."""
        return torch.cat([_decoded(raw.float(), spec, self.side) for raw, spec in zip(self.net(x), self.net.detections, strict=True)], 1)


def _decoded(raw: Tensor, spec: Any, side: int) -> Tensor:
    """One head (B, A · (5 + K), H, W), as Darknet's ``yolo_layer`` reads it; a stretched size is kept below the tile's."""
    b, _, h, w = raw.shape
    x = raw.view(b, len(spec.anchors), 5 + spec.num_classes, h, w).permute(0, 1, 3, 4, 2)
    column, row = torch.arange(w, device=raw.device), torch.arange(h, device=raw.device)
    cell = torch.stack(torch.meshgrid(column, row, indexing="xy"), -1)
    s = float(spec.scale_x_y)
    centre = (torch.sigmoid(x[..., :2]) * s - (s - 1) / 2 + cell) * torch.tensor([side / w, side / h], device=raw.device)
    anchors = torch.tensor(spec.anchors, device=raw.device).view(1, -1, 1, 1, 2)
    size = torch.exp(x[..., 2:4].clamp(max=math.log(1e4))) * anchors
    return torch.cat([centre, size, torch.sigmoid(x[..., 4:])], -1).reshape(b, -1, 5 + spec.num_classes)
