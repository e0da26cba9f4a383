"""Which parts of a tile speak for a class? Grad-CAM (Selvaraju et al., ICCV 2017). An explanation of the network, and no evidence about the tissue.

The map is ReLU(Σ αₖ Aᵏ), with A the last maps that all of the network's answer passes through, and αₖ the mean of ∂logit/∂Aᵏ over the map. A network
that ends in maps → mean → linear gives what each place adds to the logit, where that is more than nothing. Maps that the network rectifies next, as a
DenseNet does outside of its layers, are taken rectified: what is never let through says nothing, however negative it and its weight are.

Vision transformers of timm have no such maps: theirs are the tokens that the last block attends to, laid out on their grid. What a
token says also reaches the answer past that block, so that this is less of the whole than in a convolutional network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsikit.errors import ModelError, UsageError
from wsikit.models._engine import probe_tiles
from wsikit.models._network import Network, TileClassifier

_SAME = 1e-2  # of what two tiles' logits differ by: kernels add in other orders


class Maps(NamedTuple):
    """A module whose output are maps: its name in the network, how its output becomes (B, C, H, W), and whether only what is above 0 is let through."""

    name: str
    layer: nn.Module
    read: Callable[[Tensor], Tensor]
    shape: tuple[int, int]
    rectified: bool = False


class GradCam:
    """Grad-CAM of some classes of a model.

    Raises
    ------
    UsageError
        The model has no such class.
    ModelError
        It is no tile classifier, what runs it has no gradients, or its network has no maps.
    """

    def __init__(self, model: Network, classes: Sequence[str]) -> None:
        if not isinstance(model, TileClassifier):
            raise ModelError(f"model {model.card.name}: Grad-CAM is of tile classifiers, and this one has task '{model.card.task}'")
        if odd := [c for c in classes if c not in model.card.classes]:
            raise UsageError(f"model {model.card.name} has no class '{odd[0]}'; there are: {', '.join(model.card.classes)}")
        self._model, self._rows, self.batch = model, [model.card.classes.index(c) for c in classes], model.card.batch
        self.maps = last_maps(model)

    def __call__(self, images: np.ndarray | Tensor) -> np.ndarray:
        """float32 (B, K, h, w), 0 or more, in units of the classes' logits, on the network's own grid.

        Parameters
        ----------
        images : uint8 (B, H, W, 3) at the card's mpp

        Raises
        ------
        ModelError
            The images are not uint8 (B, H, W, 3).
        """
        found = []
        kept: list[Tensor] = []

        def keep(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            kept[:] = [out.detach().requires_grad_(True)]
            return kept[0].clone()  # what comes next may work in place

        handle = self.maps.layer.register_forward_hook(keep)
        try:
            with torch.enable_grad():
                for batch, real in self._model._batches(images):
                    found.append(self._of(self._model.logits(batch), kept[0])[:real].cpu())
        finally:
            handle.remove()
        return torch.cat(found).numpy() if found else np.empty((0, len(self._rows), *self.maps.shape), np.float32)

    def _of(self, logits: Tensor, out: Tensor) -> Tensor:
        maps, each = self.maps.read(out.detach()).float(), []
        counted = torch.full_like(maps[..., :1, :1], maps.shape[2] * maps.shape[3])
        if self.maps.rectified:
            counted = (maps > 0).sum((2, 3), keepdim=True).clamp(min=1)
            maps = functional.relu(maps)
        for k in self._rows:
            (gradient,) = torch.autograd.grad(logits[:, k].sum(), out, retain_graph=True)
            weight = self.maps.read(gradient).float().sum((2, 3), keepdim=True) / counted
            each.append(functional.relu((weight * maps).sum(1)))
        return torch.stack(each, 1)


def grad_cam(model: TileClassifier, images: np.ndarray | Tensor, name: str) -> np.ndarray:
    """Grad-CAM of a class in each tile, enlarged to the tile: float32 (B, H, W), 0 or more, in units of the class's logit.

    Parameters
    ----------
    images : uint8 (B, H, W, 3) at the card's mpp
    name : one of the card's classes

    Raises
    ------
    UsageError
        The model has no such class.
    ModelError
        As `GradCam`.

    Examples
    --------
    >>> model = load_model("phantom-sts-subtype")                        # doctest: +SKIP
    >>> grad_cam(model, tiles, "LMS").shape                              # doctest: +SKIP
    (8, 224, 224)
    """
    small = torch.from_numpy(GradCam(model, [name])(images))
    side = tuple(images.shape[1:3])
    if not len(small):
        return np.empty((0, *side), np.float32)
    return functional.interpolate(small, size=side, mode="bilinear", align_corners=False)[:, 0].numpy()


@torch.no_grad()
def last_maps(model: TileClassifier) -> Maps:
    """The last maps of more than one pixel that all of a network's answer passes through.

    That is tried: where two tiles' maps are swapped, their answers must be, and half of the layers with weights must lie before them.

    Raises
    ------
    ModelError
        There are none.
    """
    if not any(True for _ in model.net.parameters()):
        raise ModelError(f"model {model.card.name}: what runs it has no gradients; give the network's own weights (safetensors), and the engine torch")
    x = model._scaled(torch.from_numpy(probe_tiles(model.card.tile_px, 2)))
    seen, shapes, plain = _passed(model, x)
    if (tokens := _tokens(model.net, shapes)) is not None:
        return tokens
    calls, weighty = Counter(map(id, seen)), [isinstance(m, nn.Conv2d | nn.Linear) for m in seen]
    names = {id(m): name for name, m in model.net.named_modules()}
    for i in range(len(seen) - 1, -1, -1):
        read = layout(shapes[id(seen[i])])
        early = sum(weighty[: i + 1]) < sum(weighty[i + 1 :])
        if read is not None and not early and calls[id(seen[i])] == 1 and _carry_all(model, seen[i], x, plain):
            h, w = read(torch.empty(shapes[id(seen[i])])).shape[2:]
            return Maps(names[id(seen[i])], seen[i], read, (h, w), _rectified(model, seen[i], x))
    raise ModelError(
        f"model {model.card.name}: its network has no maps that its whole answer passes through, so Grad-CAM says nothing of it; "
        "convolutional networks have them, and timm's vision transformers tokens"
    )


def _passed(model: TileClassifier, x: Tensor) -> tuple[list[nn.Module], dict[int, tuple[int, ...]], Tensor]:
    """The modules in the order in which they are done, the last output's shape of each (by its id), and the logits."""
    seen: list[nn.Module] = []
    shapes: dict[int, tuple[int, ...]] = {}

    def look(module: nn.Module, _: Any, out: Any) -> None:
        seen.append(module)
        shapes[id(module)] = tuple(out.shape) if isinstance(out, Tensor) else ()

    handles = [m.register_forward_hook(look) for m in model.net.modules()]
    try:
        return seen, shapes, model.logits(x)
    finally:
        for handle in handles:
            handle.remove()


def layout(shape: tuple[int, ...]) -> Callable[[Tensor], Tensor] | None:
    """How an output becomes (B, C, H, W): as it is, from channels last, or not at all."""
    if len(shape) != 4:
        return None
    if shape[2] == shape[3] > 1:
        return lambda out: out
    if shape[1] == shape[2] > 1:
        return lambda out: out.permute(0, 3, 1, 2)
    return None


def _carry_all(model: TileClassifier, layer: nn.Module, x: Tensor, plain: Tensor) -> bool:
    handle = layer.register_forward_hook(lambda _, __, out: out.flip(0))
    try:
        swapped = model.logits(x)
    except RuntimeError:
        return False
    finally:
        handle.remove()
    apart = float((plain[0] - plain[1]).abs().max())
    return bool((swapped - plain.flip(0)).abs().max() <= _SAME * apart)


@torch.enable_grad()
def _rectified(model: TileClassifier, layer: nn.Module, x: Tensor) -> bool:
    """Whether nothing below 0 is let through: no answer changes with it."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        kept[:] = [out.detach().requires_grad_(True)]
        return kept[0].clone()

    handle = layer.register_forward_hook(keep)
    try:
        (gradient,) = torch.autograd.grad(model.logits(x).square().sum(), kept[0])
    finally:
        handle.remove()
    below = kept[0] < 0
    return bool(below.any() and not gradient[below].any())


def _tokens(net: nn.Module, shapes: dict[int, tuple[int, ...]]) -> Maps | None:
    """The tokens that go into the last block of a vision transformer of timm; None for another network."""
    for name, module in net.named_modules():
        blocks, grid, first = (getattr(module, k, None) for k in ("blocks", "patch_embed", "num_prefix_tokens"))
        size = getattr(grid, "grid_size", None)
        if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not isinstance(first, int) or size is None:
            continue
        layer = getattr(blocks[-1], "norm1", None)
        h, w = size
        if isinstance(layer, nn.Module) and len(shape := shapes.get(id(layer), ())) == 3 and shape[1] == first + h * w:
            return Maps(f"{name}.blocks.{len(blocks) - 1}.norm1".lstrip("."), layer, partial(_on_grid, first=first, h=h, w=w), (h, w))
    return None


def _on_grid(tokens: Tensor, first: int, h: int, w: int) -> Tensor:
    """(B, first + h · w, C) → (B, C, h, w)."""
    return tokens[:, first:].unflatten(1, (h, w)).permute(0, 3, 1, 2)
