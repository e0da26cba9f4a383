"""ONNX files of detectors, whose output layout the card names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsikit.errors import CardError, ModelError, UsageError
from wsikit.models._boxes import LAYOUTS, decode
from wsikit.models._card import Card, check_weights
from wsikit.models.exchange.detectors import detector_fields


class OnnxBoxes(nn.Module):
    """float32 (B, 3, side, side) → float32 (B, N, 6) as `wsikit.models._boxes` has it.

    The card's ``architecture`` has the ``layout`` of the outputs, and ``class_index``, which of the file's classes is counted.
    """

    def __init__(self, card: Card, session: Any) -> None:
        super().__init__()
        self.card, self.session = card, session
        self.layout = str(card.architecture.get("layout"))
        self.class_index = int(card.architecture.get("class_index", 0))

    def forward(self, x: Tensor) -> Tensor:
        """Boxes of a batch; a file that takes one tile at a time gets them so."""
        fixed = self.session.inputs[0].shape[0]
        parts = x.split(fixed) if isinstance(fixed, int) else [x]
        return _stack([self._run(part.contiguous()) for part in parts])

    def _run(self, x: Tensor) -> Tensor:
        try:
            out = self.session(x)
        except Exception as e:  # the runtime's errors have no common type
            raise ModelError(f"model {self.card.name}: ONNX Runtime stopped: {' '.join(str(e).split())[-200:]}") from e
        return decode(self.layout, out, x.shape[-1], self.class_index)


def _stack(parts: list[Tensor]) -> Tensor:
    """Batches of different numbers of boxes as one, filled up with boxes of score 0."""
    most = max(p.shape[1] for p in parts)
    return torch.cat([nn.functional.pad(p, (0, 0, 0, most - p.shape[1])) for p in parts])


def load_boxes(card: Card, folder: Path, device: str) -> OnnxBoxes:
    """The network of a folder with a detector's ONNX file, once a tile went through it.

    Raises
    ------
    CardError, WeightsMismatchError
        Card or file are wrong, or the outputs not of the card's layout.
    """
    from wsikit.models.exchange.onnx import Session

    net = OnnxBoxes(card, Session(check_weights(card, folder), device))
    fixed = net.session.inputs[0].shape[0]
    if isinstance(fixed, int) and card.batch % fixed:
        raise CardError(f"model {card.name}: the file takes {fixed} tiles at a time, of which the card's batch of {card.batch} is no multiple")
    try:
        net(torch.zeros(card.batch, 3, card.tile_px, card.tile_px))
    except ModelError as e:
        raise CardError(f"{e}; is {card.tile_px} px the side of its tiles?") from e
    return net


def detector_folder(path: Path, session: Any, known: dict[str, Any], told: dict[str, Any]) -> Path:
    """The model folder of a detector's ONNX file.

    Raises
    ------
    UsageError
        The layout or the µm/px was not told.
    CardError
        The file takes no tiles.
    """
    from wsikit.models.exchange.onnx import NAME, keep

    shape = session.inputs[0].shape
    if len(session.inputs) != 1 or len(shape) != 4 or shape[1] not in (3, None) or session.inputs[0].type != "tensor(float)":
        raise CardError(f"{path}: a detector takes one float32 input (B, 3, H, W); this file takes {[(i.name, i.shape, i.type) for i in session.inputs]}")
    layout = told.get("layout") or known.get("architecture", {}).get("layout")
    if layout not in LAYOUTS:
        found = [(o.name, o.shape) for o in session.outputs]
        raise UsageError(f"{path}: say how its outputs {found} are laid out, with wsikit models add {path} --layout …; there are: {', '.join(LAYOUTS)}")
    known = {"name": path.stem} | known | ({"tile_px": shape[2]} if isinstance(shape[2], int) else {})
    known |= {"batch": shape[0]} if isinstance(shape[0], int) else {}
    if not told.get("tile_px", known.get("tile_px")):
        raise UsageError(f"{path}: takes tiles of any side; say which with --tile")
    architecture = {"name": NAME, "layout": layout, "class_index": known.get("architecture", {}).get("class_index", 0)}
    return keep(path, detector_fields(str(path), known, told, architecture))
