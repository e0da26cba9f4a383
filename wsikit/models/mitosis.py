"""Detectors of mitotic figures: our own, YOLOX, YOLOv9 and Darknet's networks through libreyolo (MIT), KongNet, and anybody's as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from libreyolo.models.yolox.nn import LibreYOLOXModel
from torch import Tensor, nn
from torchvision.ops import batched_nms

from wsikit.errors import CardError, ModelError
from wsikit.models import _darknet as darknet
from wsikit.models import _kongnet as kongnet
from wsikit.models._card import Card
from wsikit.models._centre import CentreNet
from wsikit.models._network import Detections, Network, load_weights
from wsikit.models._two_stage import TwoStage, verified
from wsikit.models._verifier import Verifier
from wsikit.models._yolo9 import SIZES, Yolo9

PIPELINE = "mitosis"
CLASSES = ("mitosis",)
TRAINED_HERE = ("yolox-n", "yolox-t", "yolox-s", "yolox-m", "yolox-l", "yolox-x", "yolox", "centre", *SIZES)
ARCHITECTURES = (*TRAINED_HERE, darknet.NAME, kongnet.NAME)
NMS_IOU = 0.5


def build(card: Card) -> nn.Module:
    """The untrained network of a card: ``yolox-n`` … ``yolox-x``, ``yolox`` with depth, width, depthwise, ``centre``, ``yolo9-t`` … ``yolo9-c``.

    Those may have a ``verifier`` (the arguments of `Verifier`), a second stage that looks at each detection again; the first then sees
    the image ``shrink`` × smaller. Not trained here, but run: ``darknet`` and ``kongnet``.

    Raises
    ------
    CardError
        The card names another architecture, or one that cannot be built.
    """
    name = str(card.architecture.get("name"))
    if name not in ARCHITECTURES:
        raise CardError(f"model {card.name}: architecture.name must be one of {', '.join(ARCHITECTURES)}")
    if len(card.classes) != 1:
        raise CardError(f"model {card.name}: a detector has one class here, because every detection is counted; the card has {', '.join(card.classes)}")
    arguments = {k: v for k, v in card.architecture.items() if k not in ("name", "nms_iou", "verifier", "shrink")}
    verifier, shrink = card.architecture.get("verifier"), card.architecture.get("shrink", 1)
    if shrink not in (1, 2, 4) or (shrink > 1 and verifier is None):
        raise CardError(f"model {card.name}: architecture.shrink must be 1, 2 or 4, and is for models with a verifier")
    if card.tile_px % (32 * shrink):
        raise CardError(f"model {card.name}: tile_px must be a multiple of 32 for YOLO, and of 32 × shrink")
    if verifier is not None and name not in TRAINED_HERE:
        raise CardError(f"model {card.name}: {name} has no verifier")
    if name == darknet.NAME:
        return _darknet(card)
    try:
        if name == kongnet.NAME:
            return kongnet.KongNet(**arguments)
        net = Yolo9(name, card.tile_px // shrink) if name in SIZES else _first_stage(name, len(card.classes), arguments)
        return net if verifier is None else TwoStage(net, Verifier(**verifier), shrink)
    except (TypeError, ValueError) as e:
        raise CardError(f"model {card.name}: architecture: {e}") from e


def _first_stage(name: str, classes: int, arguments: dict[str, Any]) -> nn.Module:
    if name == "centre":
        return CentreNet(**arguments)
    return custom_yolox(classes, **arguments) if name == "yolox" else LibreYOLOXModel(name.removeprefix("yolox-"), classes)


def custom_yolox(classes: int, depth: float, width: float, depthwise: bool = False) -> nn.Module:
    """A YOLOX of any depth and width: the same parts as the named sizes, for small tasks and tests."""

    class Sized(LibreYOLOXModel):
        CONFIGS = {"custom": {"depth": depth, "width": width, "depthwise": depthwise}}  # noqa: RUF012

    net: nn.Module = Sized("custom", classes)
    return net


def _darknet(card: Card) -> nn.Module:
    if card.architecture.get("side") != card.tile_px:
        raise CardError(f"model {card.name}: tile_px is {card.tile_px}, and its Darknet layers are for {card.architecture.get('side')}")
    return darknet.Darknet(card.architecture, f"model {card.name}")


class Detector(Network):
    """Boxes from a network, as `Detections`: non-maximum suppression at the IoU ``nms_iou`` of the card's architecture, or 0.5.

    Where there is a verifier, scores are its probability × the network's.
    """

    def __init__(self, card: Card, net: nn.Module, device: str = "cpu") -> None:
        super().__init__(card, net, device)
        if card.task != "detect":
            raise CardError(f"model {card.name}: pipeline '{card.pipeline}' needs task 'detect', the card says '{card.task}'")
        self._nms_iou = float(card.architecture.get("nms_iou", NMS_IOU))
        first = net.detector if isinstance(net, TwoStage) else net
        if isinstance(first, LibreYOLOXModel):
            head: Any = first.head
            head.export = True  # boxes decoded to pixels, scores as probabilities

    @torch.inference_mode()
    def predict(self, images: np.ndarray | Tensor) -> list[Detections]:
        """Objects above the card's ``keep_above`` in each uint8 (B, H, W, 3) image, best first.

        Raises
        ------
        ModelError
            The images are not uint8 (B, H, W, 3), or the network gives no numbers for one.
        """
        found: list[Detections] = []
        for batch, real in self._batches(images):
            first = [self._decode(out) for out in self.net(batch)[:real].float()]
            found += verified(self.net.verifier, batch, first, self.card) if isinstance(self.net, TwoStage) else first
        return found

    @torch.inference_mode()
    def candidates(self, images: np.ndarray | Tensor) -> list[Detections]:
        """What the first stage alone finds: what a verifier learns from."""
        return [self._decode(out) for batch, real in self._batches(images) for out in self.net(batch)[:real].float()]

    def _decode(self, out: Tensor) -> Detections:
        """One image's (A, 5 + K) centre, size, objectness, class probabilities → the kept, non-overlapping ones."""
        assert self.card.detection is not None
        probability, label = out[:, 5:].max(1)
        score = out[:, 4] * probability
        if torch.isnan(score).any():  # NaN is above no threshold, and would pass for a tile without mitoses
            raise ModelError(f"model {self.card.name} gave no number for a tile: it is damaged, or its arithmetic overflows on this device")
        keep = torch.nonzero(score > self.card.detection.keep_above).flatten()
        centre, size, score, label = out[keep, :2], out[keep, 2:4], score[keep], label[keep]
        best = batched_nms(torch.cat([centre - size / 2, centre + size / 2], 1), score, label, self._nms_iou)
        position, extent, scores, labels = (t[best].cpu().numpy() for t in (centre, size, score, label))
        return Detections(position, scores, labels, extent)


def load(card: Card, folder: Path, device: str) -> Detector:
    """The trained model of a folder, on a device.

    Raises
    ------
    CardError, WeightsMismatchError
        Card or weights are wrong.
    """
    if card.weights.file.endswith(".onnx"):
        from wsikit.models.exchange.onnx_detector import load_boxes

        return Detector(card, load_boxes(card, folder, device), "cpu")
    return Detector(card, load_weights(build(card), card, folder), device)
