"""What a classifier's network sees of a tile before it has forgotten all but its classes: the means of its largest maps, taken as it runs.

Its last features hold what tells its classes apart, so that tissue of another kind lies among them. Earlier maps tell it by colour and texture. They are
there whenever the network runs, by any engine: what is added is their mean and a distance, 4 % of the time of an EfficientNet-Lite0 on tiles of 64 px.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsikit.errors import CardError
from wsikit.models._cam import layout
from wsikit.models._distance import Known
from wsikit.models._engine import probe_tiles
from wsikit.models._network import Network, TileClassifier

SCALES = 2


@torch.inference_mode()
def map_layers(model: TileClassifier) -> list[str]:
    """The last layers of the two largest sizes of map in a model's network, by name.

    Larger maps tell foreign tissue better than smaller ones, in networks that were trained as in those that were not (figures in ``docs/concepts/doubt.md``).
    None where there are not several sizes, as in vision transformers: their only maps are the cut of the tile into patches.
    """
    if not any(True for _ in model.body.parameters()):
        return []
    seen: list[tuple[str, tuple[int, ...]]] = []

    def look(name: str, out: Any) -> None:
        seen.append((name, tuple(out.shape) if isinstance(out, Tensor) else ()))

    parts = [(name, m) for name, m in model.body.named_modules() if name and not isinstance(m, nn.Dropout)]  # attention between tokens, which is no map
    handles = [m.register_forward_hook(lambda _, __, out, name=name: look(name, out)) for name, m in parts]
    try:
        model.body(model._scaled(torch.from_numpy(probe_tiles(model.card.tile_px, 2))))
    finally:
        for handle in handles:
            handle.remove()
    calls, last = Counter(name for name, _ in seen), dict[int, str]()
    for name, shape in seen:
        if calls[name] == 1 and shape[:1] == (2,) and (read := layout(shape)) is not None:
            last[read(torch.empty(shape)).shape[2]] = name
    return list(last.values())[:SCALES] if len(last) >= SCALES else []


def watch(body: nn.Module, layers: Sequence[str]) -> None:
    """Let a network from now on give the means of these layers' maps after its features: (B, D) becomes (B, D + their channels).

    Raises
    ------
    AttributeError
        It has no such layer.
    """
    kept: dict[tuple[int, str], Tensor] = {}  # by thread and layer

    def keep(name: str, out: Tensor) -> None:
        read = layout(tuple(out.shape))
        assert read is not None
        kept[get_ident(), name] = read(out).float().mean((2, 3))

    def give(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        return torch.cat([out.float(), *(kept.pop((get_ident(), name)) for name in layers)], 1)

    for name, module in [(name, body.get_submodule(name)) for name in layers]:
        module.register_forward_hook(lambda _, __, out, name=name: keep(name, out))
    body.register_forward_hook(give)


def means(model: TileClassifier, images: np.ndarray) -> np.ndarray:
    """What a watched network gives of uint8 (B, H, W, 3) tiles after its features: float32 (B, D)."""
    with torch.inference_mode():
        parts = [model._forward(batch)[1][:real, model.feature_size :].float().cpu() for batch, real in model._batches(images)]
    return torch.cat(parts).numpy()


def recognise(model: Network, folder: Path) -> None:
    """Let a model say of each tile whether it looks like anything it knows, where its card has rules about its network's maps.

    Raises
    ------
    CardError
        The network has no such layers.
    WeightsMismatchError
        The file of the rules is missing or is not the one that the card names.
    """
    found = model.card.calibration
    if found is None or found.outliers is None or not found.outliers.layers or not isinstance(model, TileClassifier):
        return
    known = Known.read(found.outliers, folder)
    try:
        watch(model.body, found.outliers.layers)
    except AttributeError as e:
        raise CardError(f"model {model.card.name}: its rules for outlying tiles are about a layer that its network has not ({e}); calibrate it again") from e
    model.known = known
