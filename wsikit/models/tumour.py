"""Where is tumour? A U-Net on any encoder of torchvision or timm, through segmentation-models-pytorch (MIT). The only module that knows that library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsikit.errors import CardError, ModelError
from wsikit.models._card import Card
from wsikit.models._network import Network, load_weights

PIPELINE = "tumour"
CLASSES = ("other", "tumour")
REGION = "tumour"


def build(card: Card) -> nn.Module:
    """The untrained network of a card: ``unet`` with ``encoder`` (``resnet18``, or ``tu-`` and a name of timm's), ``depth`` and ``decoder_channels``.

    Raises
    ------
    CardError
        The card names another architecture, encoder or arguments, or a tile that the network's depth does not divide.
    """
    arguments = dict(card.architecture)
    if arguments.pop("name", None) != "unet" or card.segmentation is None:
        raise CardError(f"model {card.name}: pipeline 'tumour' needs architecture.name 'unet' and 'segmentation'")
    depth = int(arguments.get("depth", 5))
    step = max(2**depth, card.segmentation.cell_px)
    if card.tile_px % step or card.overlap_px // 2 % card.segmentation.cell_px or (card.tile_px - card.overlap_px) % card.segmentation.cell_px:
        raise CardError(f"model {card.name}: tile_px must be a multiple of {step}, and half the overlap one of {card.segmentation.cell_px}")
    names = {"encoder": "encoder_name", "depth": "encoder_depth"}
    try:
        net: nn.Module = smp.Unet(encoder_weights=None, classes=len(card.classes), **{names.get(k, k): v for k, v in arguments.items()})
    except (TypeError, ValueError, KeyError, RuntimeError) as e:
        raise CardError(f"model {card.name}: architecture: {' '.join(str(e).split())[:200]}") from e
    return net


def encoder_weights(architecture: dict[str, Any]) -> dict[str, Tensor]:
    """ImageNet's weights of an encoder, from its hub or its cache, by their names in the network.

    Raises
    ------
    OSError, RuntimeError
        They cannot be fetched.
    """
    encoder = smp.encoders.get_encoder(architecture["encoder"], depth=int(architecture.get("depth", 5)), weights="imagenet")
    return {f"encoder.{k}": v for k, v in encoder.state_dict().items()}


class Segmenter(Network):
    """A network that gives each pixel the probabilities of classes."""

    @torch.inference_mode()
    def predict(self, images: np.ndarray | Tensor) -> dict[str, np.ndarray]:
        """What is where in the tiles' own cells, without the overlap.

        Returns ``probability`` float32 (B, K), the mean of each class over the cell, and ``map`` uint8 (B, S·S): the probability of the card's region
        in squares of ``cell_px``, row by row, 255 being 1.

        Raises
        ------
        ModelError
            The images are not uint8 (B, H, W, 3), or the network gives no numbers for one.
        """
        assert self.card.segmentation is not None
        cell, margin = self.card.segmentation.cell_px, self.card.overlap_px // 2
        region, side = self.card.classes.index(self.card.segmentation.region), self.card.tile_px - self.card.overlap_px
        means, maps = [], []
        for batch, real in self._batches(images):
            p = torch.softmax(self.net(batch).float(), 1)[:real, :, margin : margin + side, margin : margin + side]
            if torch.isnan(p).any():  # as a byte it would be 0, and pass for a tile without any of the region
                raise ModelError(f"model {self.card.name} gave no number for a tile: it is damaged, or its arithmetic overflows on this device")
            means.append(p.mean((2, 3)).cpu())
            maps.append((functional.avg_pool2d(p[:, region : region + 1], cell) * 255).round().to(torch.uint8).flatten(1).cpu())
        squares = (side // cell) ** 2
        if not means:
            return {"probability": np.empty((0, len(self.card.classes)), np.float32), "map": np.empty((0, squares), np.uint8)}
        return {"probability": torch.cat(means).numpy(), "map": torch.cat(maps).numpy()}


def load(card: Card, folder: Path, device: str) -> Segmenter:
    """The trained model of a folder, on a device."""
    return Segmenter(card, load_weights(build(card), card, folder), device)
