"""Output layouts of detectors, each turned into the same rows: centre x, y, width, height in px of the tile, objectness, class probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from wsikit.errors import CardError

Outputs = Mapping[str, Tensor]


def _ultralytics(out: Outputs, side: int) -> Tensor:
    """(B, 4 + K, N): centre, size, class probabilities. YOLOv8, 9, 11, 12 as Ultralytics exports them."""
    x = next(iter(out.values())).transpose(1, 2)
    return torch.cat([x[..., :4], torch.ones_like(x[..., :1]), x[..., 4:]], -1)


def _end_to_end(out: Outputs, side: int) -> Tensor:
    """(B, N, 6): corners, score, class; empty rows have score 0. YOLOv10, and exports with their own suppression."""
    x = next(iter(out.values()))
    classes = 1 + int(x[..., 5].max().clamp(min=0)) if x.numel() else 1
    one_hot = torch.nn.functional.one_hot(x[..., 5].long().clamp(min=0), classes).float()
    return torch.cat([_centred(x[..., :4]), x[..., 4:5], one_hot], -1)


def _objectness(out: Outputs, side: int) -> Tensor:
    """(B, N, 5 + K): centre, size, objectness, class probabilities. YOLOv5 and 7, and YOLOX decoded in the file."""
    return next(iter(out.values()))


def _grid(out: Outputs, side: int) -> Tensor:
    """(B, N, 5 + K) on the grids of strides 8, 16 and 32: offset, log of size in strides. YOLOX as its own tool exports it."""
    x = next(iter(out.values()))
    cells, strides = [], []
    for stride in (8, 16, 32):
        n = side // stride
        row, column = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        cells.append(torch.stack([column, row], -1).reshape(-1, 2))
        strides.append(torch.full((n * n, 1), float(stride)))
    cell, step = torch.cat(cells), torch.cat(strides)
    if len(cell) != x.shape[1]:
        raise CardError(f"{x.shape[1]} rows are not those of strides 8, 16 and 32 on a tile of {side} px, which has {len(cell)}")
    return torch.cat([(x[..., :2] + cell) * step, torch.exp(x[..., 2:4].clamp(max=10)) * step, x[..., 4:]], -1)


def _corners(out: Outputs, side: int) -> Tensor:
    """(B, 4 + K, N): corners, class probabilities. YOLOv9 of the MIT release."""
    x = next(iter(out.values())).transpose(1, 2)
    return torch.cat([_centred(x[..., :4]), torch.ones_like(x[..., :1]), x[..., 4:]], -1)


def _torchvision(out: Outputs, side: int) -> Tensor:
    """``boxes`` (N, 4) corners, ``scores`` (N,) and ``labels`` (N,) from 1 of one tile, in this order or by these names. torchvision's detectors."""
    values = list(out.values())
    boxes = out.get("boxes", values[0])
    flat = [v for k, v in out.items() if v is not boxes]
    scores = out.get("scores", next((v for v in flat if v.is_floating_point()), None))
    labels = out.get("labels", next((v for v in flat if not v.is_floating_point()), None))
    if scores is None or labels is None or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise CardError("layout torchvision needs outputs boxes (N, 4), scores (N,) and labels (N,)")
    classes = 1 + int((labels.long() - 1).clamp(min=0).max()) if labels.numel() else 1
    one_hot = torch.nn.functional.one_hot((labels.long() - 1).clamp(min=0), classes).float()
    return torch.cat([_centred(boxes), scores[:, None], one_hot], -1)[None]


def _centred(corners: Tensor) -> Tensor:
    return torch.cat([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1)


LAYOUTS: dict[str, Callable[[Outputs, int], Tensor]] = {
    "ultralytics": _ultralytics,
    "ultralytics-end-to-end": _end_to_end,
    "objectness": _objectness,
    "yolox": _grid,
    "corners": _corners,
    "torchvision": _torchvision,
}


def decode(layout: str, out: Outputs, side: int, class_index: int = 0) -> Tensor:
    """Rows of one class: float32 (B, N, 6).

    Raises
    ------
    CardError
        There is no such layout, or the outputs are not of it.

    Examples
    --------
    >>> rows = decode("ultralytics", {"output0": torch.tensor([[[10.0], [20.0], [4.0], [6.0], [0.9]]])}, 64)
    >>> [round(v, 3) for v in rows[0, 0].tolist()]
    [10.0, 20.0, 4.0, 6.0, 1.0, 0.9]
    """
    if layout not in LAYOUTS:
        raise CardError(f"no output layout is called '{layout}'; there are: {', '.join(LAYOUTS)}")
    try:
        rows = LAYOUTS[layout]({k: v.float() if v.is_floating_point() else v for k, v in out.items()}, side)
    except (RuntimeError, IndexError, StopIteration) as e:
        raise CardError(f"outputs {[(k, tuple(v.shape)) for k, v in out.items()]} are not of layout '{layout}'") from e
    if rows.ndim != 3 or rows.shape[2] < 6:
        raise CardError(f"outputs {[(k, tuple(v.shape)) for k, v in out.items()]} are not of layout '{layout}'")
    score = rows[..., 5 + class_index : 6 + class_index] if rows.shape[2] > 5 + class_index else torch.zeros_like(rows[..., :1])
    return torch.cat([rows[..., :5], score], -1)
