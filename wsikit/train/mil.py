"""Train gated attention over slides: features of every tile once, through a frozen encoder, then bags of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsikit import __version__
from wsikit.errors import UsageError
from wsikit.models import family, read_card
from wsikit.models._card import Card, write_model
from wsikit.models._mil import MilNet
from wsikit.store.durable import atomic_path, digest_of
from wsikit.train.calibrate import MOST_TILES, KnownTiles, calibrate_model
from wsikit.train.classify import _PLACEHOLDER, TRAINING, VALIDATION_PATIENTS, Options, clear_up, cross_validate, nothing_left_of_refused, require_classes
from wsikit.train.fit import fit
from wsikit.train.held import HeldOut, scores
from wsikit.train.initial import initialise
from wsikit.train.known import known_tissue
from wsikit.train.labels import Labelled, split_by_patient
from wsikit.train.learner import class_weights, scaled
from wsikit.train.page import write_page
from wsikit.train.parallel import Group
from wsikit.train.presets import MIL
from wsikit.train.recipe import Recipe
from wsikit.train.tiles import Source, drawn

BAG_TILES = 4096  # of a slide, drawn anew for each step; validation takes all
_ROWS = 65536


@dataclass(frozen=True)
class Bags:
    """Features float16 (N, D) of all tiles, on the disk; where each slide's begin, int64 (S + 1,); class, and number among all, of each slide, int64 (S,)."""

    feature: np.ndarray
    start: np.ndarray
    label: np.ndarray
    slide: np.ndarray

    def take(self, slide: int, rows: np.ndarray | None = None) -> Tensor:
        """A slide's features, or some rows of them: float32 (n, D)."""
        mine = self.feature[self.start[slide] : self.start[slide + 1]]
        return torch.from_numpy(np.asarray(mine if rows is None else mine[np.sort(rows)], np.float32))

    def tissue(self, items: Sequence[Labelled]) -> KnownTiles:
        """Tiles of known patients, at most `MOST_TILES` evenly spread over them all; ``probability`` has no column."""
        rows = np.unique(np.linspace(0, len(self.feature) - 1, min(MOST_TILES, len(self.feature))).astype(int))
        mine = np.searchsorted(self.start, rows, side="right") - 1
        patient = np.array([items[i].patient for i in self.slide.tolist()], dtype=str)[mine]
        return KnownTiles(np.empty((len(rows), 0)), np.asarray(self.feature[rows]), self.label[mine], patient, len(self.slide))


@dataclass(frozen=True)
class _Trained:
    """One training: its network, where it started, the figures of its epochs, its answers for the validation slides, and the tiles of these."""

    net: MilNet
    origin: str
    history: list[dict[str, Any]]
    held: HeldOut
    tissue: KnownTiles
    train: Sequence[Labelled]


def train_mil(
    items: Sequence[Labelled], out: Path, card_fields: dict[str, Any], recipe: Recipe, options: Options | None = None, group: Group | None = None
) -> Card:
    """Train from slides and write a model folder; returns its card. ``card_fields`` has the architecture ``mil`` with its ``encoder``.

    The encoder stays as it starts (``recipe.initial``); tiles pass through it once, into a file, so that slides of 100,000 tiles need the memory of a few
    thousand. Validation, folds and calibration are over slides and their patients; what looks like nothing known is told by tiles.

    Raises
    ------
    SlideError
        A slide cannot be used.
    LabelsError
        There are too few patients to hold any out, or no tile with tissue of a class.
    UsageError
        Several processes were started.
    StoreMismatchError
        ``out`` holds an unfinished training of something else.
    """
    options = Options() if options is None else options
    if group is not None and group.size > 1:
        raise UsageError("--mil trains in one process, since all that learns is small; start it without torchrun")
    card, folder, alone = Card(**card_fields, weights=_PLACEHOLDER), out / TRAINING, Group(device=options.device)

    def answer(rest: Sequence[Labelled], test: Sequence[Labelled], fold: Path) -> HeldOut:
        trained = _train(rest, fold, card, recipe, options, alone)
        bags = _bags(trained.net, test, card, options, fold / "test.tiles")
        return _answers(BagLearner(trained.net, card, recipe, bags, bags), bags, test, card, alone)

    with nothing_left_of_refused(out):
        crossed = cross_validate(items, folder, options, alone, answer) if options.folds or options.by_site else {}
        done = _train(items, folder, card, recipe, options, alone)
    training = {"recipe": recipe.model_dump(mode="json"), "started_from": done.origin, "seed": options.seed, "tiles_per_slide": options.per_slide}
    fields = {**card_fields, "metrics": {"validation": done.held.figures(), **crossed}, "training": training | {"wsikit": __version__}}
    write_model(out, fields, {k: v.cpu() for k, v in done.net.state_dict().items()})
    tissue = known_tissue(out, done.held.items, options.device) or done.tissue
    card = calibrate_model(out, KnownTiles.of(done.held), VALIDATION_PATIENTS, tissue=tissue)
    done.held.write(folder / "validation.csv")
    write_page(folder, card, recipe, done.history, {"training": done.train, "validation": done.held.items})
    clear_up(folder)
    return read_card(out)


def _train(items: Sequence[Labelled], folder: Path, card: Card, recipe: Recipe, options: Options, group: Group) -> _Trained:
    train, val = split_by_patient(items, recipe.validation_share, options.seed)
    options.log(f"{len(train)} slides to train on, {len(val)} to validate on, no patient in both")
    torch.manual_seed(options.seed)
    net: MilNet = family(card.pipeline).build(card)
    origin = initialise(net.encoder, [], dict(card.architecture["encoder"]), recipe.initial, options.log)
    net.to(group.device).eval()
    facts = [[(str(i.path), i.label, i.patient, i.mpp) for i in part] for part in (train, val)]
    key = digest_of([facts, card.model_dump(mode="json"), recipe.model_dump(mode="json"), options.per_slide, options.seed, origin, __version__])
    bags, held = (_bags(net, part, card, options, folder / f"{name}-{key}.tiles") for name, part in (("train", train), ("validation", val)))
    require_classes(card, bags.label, held.label)
    learner = BagLearner(net, card, recipe, bags, held)
    history = fit(learner, recipe, folder, key, group, seed=options.seed, log=options.log, tensorboard=options.tensorboard)
    return _Trained(net, origin, history, _answers(learner, held, val, card, group), held.tissue(val), train)


def _answers(learner: BagLearner, held: Bags, items: Sequence[Labelled], card: Card, group: Group) -> HeldOut:
    """One row a slide that has tiles."""
    return HeldOut(items, held.slide, learner.answers(group), np.empty((len(held.slide), 0)), card.classes, "slides")


@torch.inference_mode()
def _bags(net: MilNet, items: Sequence[Labelled], card: Card, options: Options, path: Path) -> Bags:
    """The features of all tiles of some slides, written as they come; slides without a tile are left out."""
    owners, device = path.with_suffix(".npy"), next(net.parameters()).device
    width = net.mil.width
    if not owners.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        owner: list[int] = []
        with atomic_path(path) as tmp, tmp.open("wb") as f:
            pending: list[np.ndarray] = []

            def put() -> None:
                images = torch.from_numpy(np.stack(pending))
                f.write(net.encoder(scaled(images, card).to(device)).half().cpu().numpy().tobytes())
                pending.clear()

            for i, tile in drawn([Source(i.path, i.mpp, f"{i.patient} {i.site}") for i in items], card, options.per_slide, options.log):
                owner.append(i)
                pending.append(tile)
                if len(pending) == card.batch:
                    put()
            if pending:
                put()
        with atomic_path(owners) as tmp, tmp.open("wb") as f:
            np.save(f, np.array(owner, np.int64))
    owned = np.load(owners)
    there = np.unique(owned)
    start = np.searchsorted(owned, [*there.tolist(), len(items)])
    feature = np.memmap(path, np.float16, "r", shape=(len(owned), width)) if len(owned) else np.empty((0, width), np.float16)
    return Bags(feature, start, np.array([card.classes.index(items[i].label) for i in there], np.int64), there)


class BagLearner:
    """Gated attention, bags of features, cross-entropy over slides, and how good it is on the slides held out."""

    def __init__(self, net: MilNet, card: Card, recipe: Recipe, bags: Bags, held: Bags) -> None:
        self.net: nn.Module = net.mil
        self.head = list(net.mil.parameters())
        self.size = len(bags.label)
        self._card, self._recipe, self._bags, self._held = card, recipe, bags, held
        self._weight = class_weights(bags.label, len(card.classes), recipe.loss)

    def loss(self, net: nn.Module, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Mean cross-entropy of some slides, each by up to `BAG_TILES` of its tiles."""
        device = next(self.net.parameters()).device
        logits = []
        for slide in rows.tolist():
            n = int(self._bags.start[slide + 1] - self._bags.start[slide])
            some = torch.randperm(n, generator=generator)[:BAG_TILES].numpy()
            tile, attention = net(self._bags.take(slide, some).to(device))
            logits.append(torch.softmax(attention, 0) @ torch.log_softmax(tile, 1))
        label = torch.from_numpy(self._bags.label[rows.numpy()]).to(device)
        smoothing = self._recipe.loss.label_smoothing
        return functional.cross_entropy(torch.stack(logits), label, self._weight.to(device), label_smoothing=smoothing)

    @torch.inference_mode()
    def answers(self, group: Group) -> np.ndarray:
        """The probabilities of the slides held out, over all of their tiles, some at a time: float32 (S, K)."""
        self.net.eval()
        out, device = np.zeros((len(self._held.label), len(self._card.classes)), np.float32), next(self.net.parameters()).device
        for slide in range(group.rank, len(out), group.size):
            top, weight, total = -np.inf, 0.0, np.zeros(out.shape[1])
            for part in self._held.take(slide).split(_ROWS):
                tile, attention = (t.double().cpu().numpy() for t in self.net(part.to(device)))
                high = max(top, float(attention.max()))
                a = np.exp(attention - high)
                shrink = np.exp(top - high)
                logp = tile - np.logaddexp.reduce(tile, 1)[:, None]
                top, weight, total = high, weight * shrink + a.sum(), total * shrink + a @ logp
            p = np.exp(total / weight - (total / weight).max())
            out[slide] = p / p.sum()
        return group.total(out)

    def validate(self, group: Group) -> Mapping[str, float]:
        """Figures over the slides held out."""
        return scores(self._held.label, self.answers(group), self._recipe.keep)


def mil_recipe(recipe: Recipe) -> Recipe:
    """The recipe of gated attention over the tiles and the network of another, which becomes the encoder."""
    kept = {k: getattr(recipe, k) for k in ("tile_px", "mpp", "stain", "initial", "validation_share")}
    sources = {k: v for k, v in recipe.sources.items() if k in kept}
    return MIL.model_copy(update={"architecture": {"name": "mil", "encoder": recipe.architecture}, "sources": sources, **kept})
