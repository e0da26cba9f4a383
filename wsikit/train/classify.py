"""Train a tile classifier: tiles by slide labels, validation by patient, the best epoch is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsikit.errors import LabelsError
from wsikit.metrics import balanced_accuracy, confusion
from wsikit.models import family
from wsikit.models._card import Card, Weights, write_model
from wsikit.train.augment import jitter, restain, turn_and_flip
from wsikit.train.labels import Labelled, split_by_patient
from wsikit.train.tiles import draw_tiles

_PLACEHOLDER = Weights(sha256="0" * 64)  # the card of a model that is still to be trained


def train_classifier(
    items: Sequence[Labelled],
    out: Path,
    card_fields: dict[str, Any],
    *,
    epochs: int = 12,
    per_slide: int = 60,
    learning_rate: float = 2e-3,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> Card:
    """Train from slides and write a model folder; returns its card.

    One-cycle AdamW, balanced class weights (n / (K · n_k), as Foersch et al.), turns, flips, more or less of each stain, other light.

    Parameters
    ----------
    items : slides with class and patient
    card_fields : `Card` fields without ``weights`` and ``metrics``: architecture, grid, classes, provenance

    Raises
    ------
    SlideError
        A slide cannot be used.
    LabelsError
        There are too few patients to hold any out, or no tile with tissue of a class.
    """
    card = Card(**card_fields, weights=_PLACEHOLDER)
    train, val = split_by_patient(items, seed=seed)
    log(f"{len(train)} slides to train on, {len(val)} to validate on, no patient in both")
    x, y = _load(train, card, per_slide)
    vx, vy = _load(val, card, per_slide)
    _require_tiles(card, y, vx)
    torch.manual_seed(seed)
    net = family(card.pipeline).build(card).to(device, memory_format=torch.channels_last)
    counts = torch.bincount(y, minlength=len(card.classes)).float().clamp(min=1)
    loss_of = nn.CrossEntropyLoss((len(y) / len(card.classes) / counts).to(device))
    best: tuple[float, dict[str, Tensor], np.ndarray] | None = None
    optimiser = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * -(-len(x) // card.batch))
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        net.train()
        total = 0.0
        for batch in torch.randperm(len(x), generator=generator).split(card.batch):
            if len(batch) < 2:
                continue  # batch normalisation needs two
            images = jitter(restain(turn_and_flip(x[batch], generator), generator), generator)
            loss = loss_of(net(scaled(images, card).to(device)), y[batch].to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        table = _validate(net, vx, vy, card, device)
        score = balanced_accuracy(table)
        log(f"epoch {epoch + 1}/{epochs}: loss {total / len(x):.3f}, validation balanced accuracy of tiles {score:.3f}")
        if best is None or score >= best[0]:
            best = (score, {k: v.detach().cpu().clone() for k, v in net.state_dict().items()}, table)
    assert best is not None
    patients = len({i.patient for i in val})
    found = {"unit": "tiles", "n": len(vx), "patients": patients, "balanced_accuracy": round(best[0], 4), "confusion": best[2].tolist()}
    return write_model(out, {**card_fields, "metrics": {"validation": found}}, best[1])


def _require_tiles(card: Card, y: Tensor, validation: Tensor) -> None:
    unseen = [c for i, c in enumerate(card.classes) if not (y == i).any()]
    if unseen or not len(validation):
        raise LabelsError(
            f"no tile with tissue to {'train on of class ' + ', '.join(unseen) if unseen else 'validate on'}; "
            "add slides, or train 'subtype' with the classes that there are"
        )


def scaled(images: Tensor, card: Card) -> Tensor:
    """uint8 (B, H, W, 3) as the card's network input, float32 (B, 3, H, W)."""
    mean, std = torch.tensor(card.scaling.mean).view(1, 3, 1, 1), torch.tensor(card.scaling.std).view(1, 3, 1, 1)
    return ((images.permute(0, 3, 1, 2).float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def _load(items: Sequence[Labelled], card: Card, per_slide: int) -> tuple[Tensor, Tensor]:
    images, owner = draw_tiles([(i.path, i.mpp) for i in items], card, per_slide)
    labels = np.array([card.classes.index(i.label) for i in items])
    return torch.from_numpy(images), torch.from_numpy(labels[owner])


@torch.inference_mode()
def _validate(net: nn.Module, x: Tensor, y: Tensor, card: Card, device: str) -> np.ndarray:
    net.eval()
    called = torch.cat([net(scaled(part, card).to(device)).argmax(1).cpu() for part in x.split(card.batch)])
    names = card.classes
    return confusion([names[i] for i in y.tolist()], [names[i] for i in called.tolist()], names)
