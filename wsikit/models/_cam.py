"""Which parts of a tile speak for a class? Grad-CAM (Selvaraju et al., ICCV 2017). An explanation of the network, and no evidence about the tissue."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsikit.errors import ModelError, UsageError
from wsikit.models._network import Classifier


def grad_cam(model: Classifier, images: np.ndarray | Tensor, name: str) -> np.ndarray:
    """Grad-CAM of a class in each tile: float32 (B, H, W), 0 or more, in units of the class's logit.

    The map is ReLU(Σ αₖ Aᵏ), enlarged to the tile, with A the maps of the network's last convolutional part and αₖ the mean of ∂logit/∂Aᵏ over the map.

    Parameters
    ----------
    images : uint8 (B, H, W, 3) at the card's mpp
    name : one of the card's classes

    Raises
    ------
    UsageError
        The model has no such class.
    ModelError
        The images are not uint8 (B, H, W, 3), or the network has no maps (a transformer, say).

    Examples
    --------
    >>> model = load_model("phantom-sts-subtype")                        # doctest: +SKIP
    >>> grad_cam(model, tiles, "LMS").shape                              # doctest: +SKIP
    (8, 224, 224)
    """
    if name not in model.card.classes:
        raise UsageError(f"model {model.card.name} has no class '{name}'; there are: {', '.join(model.card.classes)}")
    layer = last_maps(model, images)
    found, k = [], model.card.classes.index(name)
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        kept[:] = [out.detach().requires_grad_(True)]
        return kept[0].clone()  # what comes next may work in place

    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            for batch, real in model._batches(images):
                logit = model._head(model.net(batch))[:, k].sum()
                (gradient,) = torch.autograd.grad(logit, kept[0])
                weight = gradient.mean((2, 3), keepdim=True)
                maps = functional.relu((weight * kept[0].detach()).sum(1, keepdim=True))
                large = functional.interpolate(maps.float(), size=batch.shape[2:], mode="bilinear", align_corners=False)
                found.append(large[:real, 0].cpu())
    finally:
        handle.remove()
    side = model.card.tile_px
    return torch.cat(found).numpy() if found else np.empty((0, side, side), np.float32)


@torch.no_grad()
def last_maps(model: Classifier, images: np.ndarray | Tensor) -> nn.Module:
    """The last part of a network that gives maps (B, C, H, W) of more than one pixel.

    Raises
    ------
    ModelError
        There is none.
    """
    seen: list[nn.Module] = []

    def look(module: nn.Module, _: Any, out: Any) -> None:
        if isinstance(out, Tensor) and out.ndim == 4 and min(out.shape[2:]) > 1 and not list(module.children()):
            seen.append(module)

    handles = [m.register_forward_hook(look) for m in model.net.modules()]
    try:
        side = model.card.tile_px
        for batch, _ in model._batches(torch.zeros(1, side, side, 3, dtype=torch.uint8) if not len(images) else images[:1]):
            model.net(batch)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise ModelError(f"model {model.card.name}: its network has no maps, so Grad-CAM says nothing of it; convolutional networks have them")
    return seen[-1]
