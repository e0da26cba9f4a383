"""Train a detector of point-like objects: squares around labelled points, look-alikes as background."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsikit.errors import LabelsError
from wsikit.metrics import DetectionScore, match_detections
from wsikit.models import family, load_model
from wsikit.models._card import Card, write_model
from wsikit.train.augment import apply_turn, draw_turn, jitter, restain, turn_points
from wsikit.train.classify import _PLACEHOLDER, scaled
from wsikit.train.labels import Labelled, split_by_patient
from wsikit.train.tiles import Look

BOX_UM = 12.5  # MIDOG's 50 px at 0.25 µm/px
_LEARNING_RATE = 1.5e-3


@dataclass(frozen=True)
class Points:
    """A slide with its points: ``objects`` to find and ``lookalikes`` not to, float64 (M, 2) x, y in level-0 px, and its tumour type where it is told."""

    item: Labelled
    objects: np.ndarray
    lookalikes: np.ndarray
    tumour: str = ""


@dataclass(frozen=True)
class _Crop:
    image: Tensor
    points: Tensor  # (M, 2) x, y px
    mpp: float


def train_detector(
    slides: Sequence[Points],
    out: Path,
    card_fields: dict[str, Any],
    *,
    epochs: int = 12,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> Card:
    """Train from slides with points and write a model folder; returns its card, the threshold frozen at the best validation F1.

    Raises
    ------
    SlideError
        A slide cannot be used.
    LabelsError
        There are too few patients or objects to hold any out, or a point lies outside of its slide.
    """
    card = Card(**card_fields, weights=_PLACEHOLDER)
    train_items, val_items = split_by_patient([s.item for s in slides], seed=seed)
    rng = np.random.default_rng(seed)
    train = [c for s in slides if s.item in train_items for c in _crops(s, card, rng)]
    val = [c for s in slides if s.item in val_items for c in _crops(s, card, rng)]
    if not (any(len(c.points) for c in train) and any(len(c.points) for c in val)):
        raise LabelsError("training and validation slides must each have labelled objects; label more slides, or give a column 'split'")
    log(f"{len(train)} squares to train on, {len(val)} to validate on, no patient in both")
    torch.manual_seed(seed)
    net: Any = family(card.pipeline).build(card).to(device, memory_format=torch.channels_last)
    net.init_weights()
    _fit(net, train, card, epochs, seed, device, log)
    state = {k: v.detach().cpu() for k, v in net.state_dict().items()}
    write_model(out, card_fields, state)
    threshold, score = _choose_threshold(out, val, card, log)
    metrics = {
        "validation": {
            "unit": "squares",
            "n": len(val),
            "patients": len({i.patient for i in val_items}),
            **{k: round(v, 4) if math.isfinite(v := getattr(score, k)) else None for k in ("precision", "recall", "f1")},
        }
    }
    detection = {**card_fields["detection"], "threshold": threshold}
    return write_model(out, {**card_fields, "detection": detection, "metrics": metrics}, state)


def _crops(slide: Points, card: Card, rng: np.random.Generator) -> list[_Crop]:
    """A square around each point, shifted at random, and as many again where there is only tissue."""
    look = Look.at(slide.item.path, card, slide.item.mpp)
    side = card.tile_px
    for x, y in np.concatenate([slide.objects, slide.lookalikes]).tolist():
        if not (0 <= x <= look.slide.size.w and 0 <= y <= look.slide.size.h):
            w, h = look.slide.size
            raise LabelsError(f"{slide.item.path}: the point {x:g}, {y:g} is outside of the slide of {w} × {h} px; points are in level-0 px")
    objects, lookalikes = (p / np.array(look.raster.downsample) for p in (slide.objects, slide.lookalikes))
    tissue = np.argwhere(look.survey.mask.tissue)[:, ::-1] * np.array(look.survey.raster.downsample) / np.array(look.raster.downsample)
    anywhere = tissue[rng.integers(0, len(tissue), max(4, len(objects) // 2))] if len(tissue) else np.empty((0, 2))
    crops = []
    for at in np.concatenate([objects, lookalikes[::2], anywhere]):
        corner = np.rint(at - side / 2 + rng.uniform(-0.4, 0.4, 2) * side).astype(int)
        inside = ((objects > corner + 4) & (objects < corner + side - 4)).all(1)
        image = torch.from_numpy(look.read(int(corner[0]), int(corner[1]), side))
        crops.append(_Crop(image, torch.from_numpy(objects[inside] - corner).float(), look.raster.mpp[0]))
    look.slide.close()
    return crops


def _fit(net: Any, crops: Sequence[_Crop], card: Card, epochs: int, seed: int, device: str, log: Callable[[str], None]) -> None:
    steps = -(-len(crops) // card.batch)
    optimiser = torch.optim.AdamW(net.parameters(), lr=_LEARNING_RATE, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=epochs * steps)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        net.train()
        total = 0.0
        for batch in torch.randperm(len(crops), generator=generator).split(card.batch):
            images, targets = _batch([crops[i] for i in batch.tolist()], card, generator)
            loss = net(scaled(jitter(restain(images, generator), generator), card).to(device), targets.to(device))["total_loss"]
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        log(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.3f}")


def _batch(crops: Sequence[_Crop], card: Card, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turned images uint8 (B, H, W, 3) and targets (B, M, 5): class, centre x, y, width, height; empty rows are 0."""
    images, rows = [], []
    for crop in crops:
        k, flip = draw_turn(generator)
        images.append(apply_turn(crop.image, k, flip))
        points = turn_points(crop.points, card.tile_px, k, flip)
        side = torch.full((len(points), 2), BOX_UM / crop.mpp)
        rows.append(torch.cat([torch.zeros(len(points), 1), points, side], 1))
    most = max(1, *(len(r) for r in rows))
    return torch.stack(images), torch.stack([torch.cat([r, torch.zeros(most - len(r), 5)]) for r in rows])


def _choose_threshold(folder: Path, crops: Sequence[_Crop], card: Card, log: Callable[[str], None]) -> tuple[float, DetectionScore]:
    """The threshold with the best F1 on validation squares; of equal ones, the middle."""
    model = load_model(folder)
    found = model.predict(torch.stack([c.image for c in crops]))
    scores = {}
    for threshold in np.arange(0.2, 0.91, 0.05).round(2).tolist():
        parts = [match_detections(d.position[d.score >= threshold] * c.mpp, c.points.numpy() * c.mpp) for d, c in zip(found, crops, strict=True)]
        scores[threshold] = sum(parts, DetectionScore(0, 0, 0))
    best = max(s.f1 for s in scores.values())
    equal = [t for t, s in scores.items() if s.f1 >= best - 1e-9]
    threshold = equal[len(equal) // 2]
    log(f"threshold {threshold}: precision {scores[threshold].precision:.3f}, recall {scores[threshold].recall:.3f} on validation squares")
    return threshold, scores[threshold]
