"""Train a detector of point-like objects: squares around labelled points, or fields composed of them, look-alikes as background."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsikit.errors import LabelsError
from wsikit.metrics import DetectionScore, match_detections
from wsikit.models import family, load_model
from wsikit.models._card import Card, write_model
from wsikit.models._two_stage import TwoStage
from wsikit.models.mitosis import Detector
from wsikit.train.augment import apply_turn, draw_turn, jitter, restain, turn_points
from wsikit.train.classify import _PLACEHOLDER
from wsikit.train.compose import FIGURE_UM, Composition, Piece, Tissue, compose
from wsikit.train.labels import Labelled, split_by_patient
from wsikit.train.learner import scaled
from wsikit.train.tiles import Look
from wsikit.train.verify import Patches, false_finds, fit_verifier, gather

_LEARNING_RATE = 1.5e-3
_HIDDEN_UM = 8.0  # beyond an edge, where a part of an object may still be seen
_MORE_TISSUE = 60  # squares of each slide among which false finds are looked for
_STILL_TAKEN = 0.1  # probability above which a verifier is shown a false find again
_CANDIDATE = 0.03  # score above which the first stage's finds are looked at again, in training
Log = Callable[[str], None]


@dataclass(frozen=True)
class Points:
    """A slide with its points: ``objects`` to find and ``lookalikes`` not to, float64 (M, 2) x, y in level-0 px, and its tumour type where it is told."""

    item: Labelled
    objects: np.ndarray
    lookalikes: np.ndarray
    tumour: str = ""


@dataclass(frozen=True)
class Course:
    """How a detector is trained on composed fields.

    Attributes
    ----------
    composition : how the fields are composed
    fields : composed for each round, and as many again looked through for what is taken for an object
    rounds : of looking for false finds, whose fields are then trained on too; 0 is none
    epochs : over the fields of the first round; each later one takes half as many
    verifier_steps : batches of the verifier, in each round
    """

    composition: Composition = field(default_factory=Composition)
    fields: int = 1000
    rounds: int = 1
    epochs: int = 12
    verifier_steps: int = 1000
    seed: int = 0
    device: str = "cpu"

    def compose(self, tissue: Tissue, card: Card, rng: np.random.Generator) -> list[Piece]:
        """Fresh fields for one round."""
        return [compose(tissue, card.tile_px, card.mpp, self.composition, rng) for _ in range(self.fields)]


def train_on_tissue(tissue: Tissue, net: Any, card: Card, course: Course, log: Log = print, keep: Callable[[], object] = lambda: None) -> None:
    """Train a network in place on fields composed of pieces, with rounds of false finds, and its verifier where it has one.

    ``keep`` is called after every round of either, to save what there is.
    """
    rng = np.random.default_rng(course.seed)
    hard: list[Piece] = []
    for n in range(course.rounds + 1):
        fields = [*course.compose(tissue, card, rng), *hard]
        fit(net, fields, card, course.epochs if n == 0 else math.ceil(course.epochs / 2), course.seed + n, course.device, log)
        keep()
        if n < course.rounds:
            looked_through = [*course.compose(tissue, card, rng), *hard]
            hard = with_false_finds(first_stage(net, card, course.device), looked_through, course.fields // 2)
            log(f"round {n + 1}: {len(hard)} fields in which something is taken for an object")
    if isinstance(net, TwoStage):
        train_verifier(tissue, net, card, course, hard, log, keep)


def train_verifier(
    tissue: Tissue, net: TwoStage, card: Card, course: Course, hard: Sequence[Piece] = (), log: Log = print, keep: Callable[[], object] = lambda: None
) -> None:
    """Train the second stage of a network in place on what the first finds in fresh fields, and in ``hard`` ones."""
    rng = np.random.default_rng(course.seed + 1)
    for n, patches in enumerate(_candidates(tissue, net, card, course, hard, rng)):
        log(f"verifier, round {n + 1}: {int(patches.object.sum())} objects and {int((~patches.object).sum())} others")
        fit_verifier(net.verifier, patches, card, course.verifier_steps, seed=course.seed + n, device=course.device, log=log)
        keep()


def _candidates(tissue: Tissue, net: TwoStage, card: Card, course: Course, hard: Sequence[Piece], rng: np.random.Generator) -> Iterator[Patches]:
    """What the first stage finds, for each round of the verifier; in later ones more of what the verifier still takes for an object."""
    verifier: Any = net.verifier
    patches = gather(first_stage(net, card, course.device), [*course.compose(tissue, card, rng), *hard], verifier.side_px)
    yield patches
    for _ in range(course.rounds):
        found = gather(first_stage(net, card, course.device), course.compose(tissue, card, rng), verifier.side_px)
        still = found.object | (_probability(verifier, found.image, card) > _STILL_TAKEN)
        patches = patches + found.chosen(torch.nonzero(still).flatten())
        yield patches


def _probability(verifier: Any, images: Tensor, card: Card) -> Tensor:
    edge = (images.shape[1] - verifier.side_px) // 2
    inner = images[:, edge : edge + verifier.side_px, edge : edge + verifier.side_px]
    return torch.cat([verifier.verdict(scaled(part, card)).probability for part in inner.split(512)])


def first_stage(net: Any, card: Card, device: str) -> Detector:
    """The network as a model that keeps much."""
    detection = card.detection.model_copy(update={"keep_above": _CANDIDATE}) if card.detection else None
    return Detector(card.model_copy(update={"detection": detection}), net, device)


def with_false_finds(model: Detector, fields: Sequence[Piece], most: int) -> list[Piece]:
    """The fields with the highest-scored false finds, those marked as look-alikes; at most ``most``, worst first."""
    scored = []
    for start in range(0, len(fields), 64):
        part = fields[start : start + 64]
        for piece, found in zip(part, model.candidates(np.stack([f.image for f in part])), strict=True):
            wrong = false_finds(found.position, piece)
            if wrong.any():
                scored.append((float(found.score[wrong].max()), replace(piece, lookalikes=found.position[wrong].astype(float))))
    return [piece for _, piece in sorted(scored, key=lambda s: -s[0])[:most]]


def train_detector(
    slides: Sequence[Points],
    out: Path,
    card_fields: dict[str, Any],
    *,
    epochs: int = 12,
    seed: int = 0,
    device: str = "cpu",
    log: Log = print,
    course: Course | None = None,
) -> Card:
    """Train from slides with points and write a model folder; returns its card, the threshold frozen at the best validation F1.

    Without a ``course``: on squares around the points as they are. With one, which then says for how long: on fields composed of them.

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
    train = [c for s in slides if s.item in train_items for c in _crops(s, card, rng, _MORE_TISSUE if course else 0)]
    val = [c for s in slides if s.item in val_items for c in _crops(s, card, rng)]
    if not (any(len(c.objects) for c in train) and any(len(c.objects) for c in val)):
        raise LabelsError("training and validation slides must each have labelled objects; label more slides, or give a column 'split'")
    log(f"{len(train)} squares to train on, {len(val)} to validate on, no patient in both")
    torch.manual_seed(seed)
    net: Any = family(card.pipeline).build(card).to(device, memory_format=torch.channels_last)
    net.init_weights()
    if course is None:
        fit(net, train, card, epochs, seed, device, log)
    else:
        empty = [c for c in train if not len(c.objects) and not len(c.hidden)]
        train_on_tissue(Tissue([c for c in train if len(c.objects)], empty), net, card, course, log)
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


def check_inside(slide: Points, size: tuple[int, int]) -> None:
    """All points lie on a slide of this width and height in level-0 px.

    Raises
    ------
    LabelsError
        One lies outside.
    """
    w, h = size
    for x, y in np.concatenate([slide.objects, slide.lookalikes]).tolist():
        if not (0 <= x <= w and 0 <= y <= h):
            raise LabelsError(f"{slide.item.path}: the point {x:g}, {y:g} is outside of the slide of {w} × {h} px; points are in level-0 px")


def _crops(slide: Points, card: Card, rng: np.random.Generator, more: int = 0) -> list[Piece]:
    """A square around each point, shifted at random, and half as many, and ``more``, anywhere on tissue."""
    look = Look.at(slide.item.path, card, slide.item.mpp)
    side = card.tile_px
    check_inside(slide, look.slide.size)
    objects, lookalikes = (p / np.array(look.raster.downsample) for p in (slide.objects, slide.lookalikes))
    tissue = np.argwhere(look.survey.mask.tissue)[:, ::-1] * np.array(look.survey.raster.downsample) / np.array(look.raster.downsample)
    anywhere = tissue[rng.integers(0, len(tissue), max(4, len(objects) // 2) + more)] if len(tissue) else np.empty((0, 2))
    crops = []
    for at in np.concatenate([objects, lookalikes[::2], anywhere]):
        corner = np.rint(at - side / 2 + rng.uniform(-0.4, 0.4, 2) * side).astype(int)
        inside = ((objects > corner + 4) & (objects < corner + side - 4)).all(1)
        near = ((objects > corner - _HIDDEN_UM / look.raster.mpp[0]) & (objects < corner + side + _HIDDEN_UM / look.raster.mpp[0])).all(1) & ~inside
        image = look.read(int(corner[0]), int(corner[1]), side)
        crops.append(Piece(image, objects[inside] - corner, look.raster.mpp[0], str(slide.item.path), hidden=objects[near] - corner))
    look.slide.close()
    return crops


def fit(net: Any, crops: Sequence[Piece], card: Card, epochs: int, seed: int, device: str, log: Log) -> None:
    """Train the network in place on images of one size, with their points."""
    net.train().requires_grad_(True)
    if (head := getattr(net, "head", None)) is not None:  # YOLOX gives losses, not boxes; YOLOv9 both, as it is asked
        head.export = False
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


def _batch(crops: Sequence[Piece], card: Card, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turned images uint8 (B, H, W, 3) and targets (B, M, 5): class, centre x, y, width, height; empty rows are 0."""
    images, rows = [], []
    for crop in crops:
        k, flip = draw_turn(generator)
        images.append(apply_turn(torch.from_numpy(crop.image), k, flip))
        points = turn_points(torch.from_numpy(crop.objects).float(), card.tile_px, k, flip)
        side = torch.full((len(points), 2), FIGURE_UM / crop.mpp)
        rows.append(torch.cat([torch.zeros(len(points), 1), points, side], 1))
    most = max(1, *(len(r) for r in rows))
    return torch.stack(images), torch.stack([torch.cat([r, torch.zeros(most - len(r), 5)]) for r in rows])


def _choose_threshold(folder: Path, crops: Sequence[Piece], card: Card, log: Log) -> tuple[float, DetectionScore]:
    """The threshold with the best F1 on validation squares; of equal ones, the middle."""
    model = load_model(folder)
    found = model.predict(np.stack([c.image for c in crops]))
    scores = {}
    for threshold in np.arange(0.2, 0.91, 0.05).round(2).tolist():
        parts = [match_detections(d.position[d.score >= threshold] * c.mpp, c.objects * c.mpp) for d, c in zip(found, crops, strict=True)]
        scores[threshold] = sum(parts, DetectionScore(0, 0, 0))
    best = max(s.f1 for s in scores.values())
    equal = [t for t, s in scores.items() if s.f1 >= best - 1e-9]
    threshold = equal[len(equal) // 2]
    log(f"threshold {threshold}: precision {scores[threshold].precision:.3f}, recall {scores[threshold].recall:.3f} on validation squares")
    return threshold, scores[threshold]
