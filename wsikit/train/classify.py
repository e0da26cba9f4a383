"""Train a tile classifier: tiles by slide labels, validation by patient, the best epoch is kept."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsikit import __version__
from wsikit.errors import LabelsError
from wsikit.models import family, read_card
from wsikit.models._backbone import last_linear
from wsikit.models._card import Card, Weights, write_model
from wsikit.models._inception import AUXILIARY
from wsikit.models._network import Classifier
from wsikit.store.durable import digest_of
from wsikit.train.acgan import check_side
from wsikit.train.calibrate import KnownTiles, calibrate_model
from wsikit.train.fit import STATE, fit
from wsikit.train.held import HeldOut
from wsikit.train.initial import initialise
from wsikit.train.known import known_tissue
from wsikit.train.labels import Labelled, outer_folds, split_by_patient
from wsikit.train.learner import TileLearner, Tiles, scaled, trainable
from wsikit.train.page import write_page
from wsikit.train.parallel import Group
from wsikit.train.presets import PLAIN
from wsikit.train.recipe import Recipe
from wsikit.train.synthetic import Synthesis, effect, read_facts, with_synthetic
from wsikit.train.tiles import Source, draw_to_disk, is_tile_image

_PLACEHOLDER = Weights(sha256="0" * 64)  # the card of a model that is still to be trained
TRAINING = "training"
VALIDATION_PATIENTS = "the validation patients of its training, who also chose its epoch"


@dataclass(frozen=True)
class Options:
    """How a training is done, apart from its recipe.

    Attributes
    ----------
    per_slide : tiles drawn from each slide
    folds : of a cross-validation before the final training; none when 0. ``by_site`` leaves out each site in turn instead
    tensorboard : also write TensorBoard's event files
    acgan : epochs of an ACGAN that makes as many tiles again, of each class, for training only; none when 0
    """

    per_slide: int = 200
    seed: int = 0
    device: str = "cpu"
    folds: int = 0
    by_site: bool = False
    tensorboard: bool = False
    log: Callable[[str], None] = print
    acgan: int = 0


@dataclass(frozen=True)
class _Trained:
    """One training: the best epoch's weights, where it started, the figures of its epochs, its answers for the validation tiles, and what was made up."""

    state: dict[str, Tensor]
    origin: str
    history: list[dict[str, Any]]
    held: HeldOut
    train: Sequence[Labelled]
    synthetic: dict[str, Any]


def train_classifier(
    items: Sequence[Labelled], out: Path, card_fields: dict[str, Any], recipe: Recipe = PLAIN, options: Options | None = None, group: Group | None = None
) -> Card:
    """Train from slides, kept stores or tile images, and write a model folder; returns its card.

    ``out/training`` gets the curves, the recipe with the source of each value, and what was predicted of the patients held out. A training that was
    cut off goes on where it was, to the same result.

    Parameters
    ----------
    items : slides with class and patient; those of split ``test`` are left alone
    card_fields : `Card` fields without ``weights``, ``metrics`` and ``training``: architecture, grid, classes, provenance
    group : the processes of ``torchrun`` that train together

    Raises
    ------
    SlideError
        A slide cannot be used.
    LabelsError
        There are too few patients to hold any out, or no tile with tissue of a class.
    StoreMismatchError
        ``out`` holds an unfinished training of something else.
    ModelError
        The recipe does not go with the network, or its steps lead nowhere.
    UsageError
        An ACGAN cannot make tiles of the recipe's side.
    """
    options = options or Options()
    group = group or Group(device=options.device)
    options = options if group.first else replace(options, log=lambda _: None)
    card = Card(**card_fields, weights=_PLACEHOLDER)
    if options.acgan:
        check_side(card.tile_px)
    folder = out / TRAINING

    def answer(rest: Sequence[Labelled], test: Sequence[Labelled], fold: Path) -> HeldOut | None:
        trained = _train(rest, fold, card, recipe, options, group)
        if not group.first:
            return None
        images, owner = draw_to_disk(_sources(test), card, options.per_slide, fold / "test.tiles")
        return answers(trained.state, card, test, images, owner, group.device)

    with nothing_left_of_refused(out):
        crossed = cross_validate(items, folder, options, group, answer) if options.folds or options.by_site else {}
        done = _train(items, folder, card, recipe, options, group)
        helped = _effect(items, done, folder, card, recipe, options, group) if done.synthetic.get("synthetic") else {}
    if group.first:
        training = {"recipe": recipe.model_dump(mode="json"), "started_from": done.origin, "seed": options.seed, "tiles_per_slide": options.per_slide}
        training |= {"acgan": done.synthetic} if options.acgan else {}
        fields = {**card_fields, "metrics": {"validation": done.held.figures(), **crossed, **helped}, "training": training | {"wsikit": __version__}}
        if all(is_tile_image(i.path) for i in done.train):  # then an image of as many tiles as those is enough for a call
            usual = max(1, int(np.median(np.bincount(done.held.owner))))
            fields |= {"decision": card.decision.model_dump() | {"min_tiles": min(card.decision.min_tiles, usual)}}
        fields |= {"trained_on": _told_of(card_fields["trained_on"], done.synthetic)}
        write_model(out, fields, done.state)
        tissue = known_tissue(out, done.held.items, group.device)
        card = calibrate_model(out, KnownTiles.of(done.held), VALIDATION_PATIENTS, tissue=tissue)
        done.held.write(folder / "validation.csv")
        write_page(folder, card, recipe, done.history, {"training": done.train, "validation": done.held.items})
        clear_up(folder)
    group.wait()
    return read_card(out)


def cross_validate(
    items: Sequence[Labelled], folder: Path, options: Options, group: Group, answer: Callable[[Sequence[Labelled], Sequence[Labelled], Path], HeldOut | None]
) -> dict[str, Any]:
    """How good are models of this recipe on patients that they never saw? Nested: other patients choose the epoch within each fold.

    ``answer(rest, test, fold)`` trains on the rest, in the folder of the fold, and gives its answers for the patients held out; None in all processes but
    the first. Returns the figures over all patients held out, for the card; ``cross_validation.csv`` gets their probabilities.
    """
    parts, names = [], []
    items = [i for i in items if i.split != "test"]
    for name, test in outer_folds(items, options.folds, by_site=options.by_site, seed=options.seed):
        options.log(f"{'site' if options.by_site else 'fold'} {name}: {len({i.patient for i in test})} patients held out")
        names.append(name)
        fold = folder / f"fold-{len(names)}"
        if not (fold / "test.npz").exists():
            held = answer([replace(i, split="") for i in items if i not in test], test, fold)
            if held is not None:
                np.savez(fold / "test.npz", owner=held.owner, probability=held.probability, classes=held.classes, unit=held.unit)
                clear_up(fold)
            group.wait()
        saved = np.load(fold / "test.npz")
        none = np.empty((len(saved["owner"]), 0))
        parts.append(HeldOut(test, saved["owner"], saved["probability"], none, saved["classes"].tolist(), str(saved["unit"])))
    whole = _together(parts)
    if group.first:
        whole.write(folder / "cross_validation.csv")
    each = [{"held_out": n} | {k: p.figures()[k] for k in ("patients", "n", "balanced_accuracy")} for n, p in zip(names, parts, strict=True)]
    return {"cross_validation": whole.figures() | {"by": "site" if options.by_site else "patient", "folds": each}}


def _together(parts: Sequence[HeldOut]) -> HeldOut:
    starts = np.cumsum([0, *(len(p.items) for p in parts)])
    owner = np.concatenate([p.owner + s for p, s in zip(parts, starts[:-1], strict=True)])
    items = [i for p in parts for i in p.items]
    return HeldOut(items, owner, np.concatenate([p.probability for p in parts]), np.empty((len(owner), 0)), parts[0].classes, parts[0].unit)


def _train(items: Sequence[Labelled], folder: Path, card: Card, recipe: Recipe, options: Options, group: Group) -> _Trained:
    train, val = split_by_patient(items, recipe.validation_share, options.seed)
    options.log(f"{len(train)} slides to train on, {len(val)} to validate on, no patient in both")
    facts = [[(str(i.path), i.label, i.patient, i.mpp) for i in part] for part in (train, val)]
    key = digest_of([facts, card.model_dump(mode="json"), recipe.model_dump(mode="json"), options.per_slide, options.seed, options.acgan, __version__])
    if not group.first:
        group.wait()  # until the first process has drawn the tiles
    x, owner = draw_to_disk(_sources(train), card, options.per_slide, folder / f"train-{key}.tiles", options.log)
    vx, vowner = draw_to_disk(_sources(val), card, options.per_slide, folder / f"validation-{key}.tiles", options.log)
    if group.first:
        group.wait()
    tiles, held = Tiles(x, _labels(train, card)[owner]), Tiles(vx, _labels(val, card)[vowner])
    require_classes(card, tiles.label, held.label)
    if options.acgan:
        if not group.first:
            group.wait()
        how = Synthesis(options.acgan, recipe.augment.turns, options.seed, group.device, folder, options.log)
        tiles = with_synthetic(tiles, card, how, folder / f"mixed-{key}.tiles")
        if group.first:
            group.wait()
    torch.manual_seed(options.seed)
    net, head = trainable(card, recipe.loss.auxiliary)
    origin = initialise(net, head, card.architecture, recipe.initial, options.log)
    learner = TileLearner(net.to(group.device).to(memory_format=torch.channels_last), head, card, recipe, tiles, held)
    history = fit(learner, recipe, folder, key, group, seed=options.seed, log=options.log, tensorboard=options.tensorboard)
    state = {k: v.detach().cpu() for k, v in net.state_dict().items() if not k.startswith(AUXILIARY)}
    held_out = answers(state, card, val, vx, vowner, group.device)
    return _Trained(state, origin, history, held_out, train, read_facts(folder) if options.acgan else {})


def _effect(items: Sequence[Labelled], done: _Trained, folder: Path, card: Card, recipe: Recipe, options: Options, group: Group) -> dict[str, dict[str, Any]]:
    """Trains once more without synthetic tiles: were they any good for patients of split ``test``, or where there are none, of the validation?"""
    options.log("once more without synthetic tiles, to see what they are worth")
    again = folder / "without-acgan"
    plain = _train(items, again, card, recipe, replace(options, acgan=0), group)
    if not group.first:
        return {}
    mixed, other, whose = done.held, plain.held, "the validation patients, who also chose both models' epochs"
    if test := [i for i in items if i.split == "test"]:
        images, owner = draw_to_disk(_sources(test), card, options.per_slide, again / "test.tiles")
        mixed, other = (answers(t.state, card, test, images, owner, group.device) for t in (done, plain))
        whose = "the patients of split test, who decided nothing"
    clear_up(again)
    found = effect(mixed, other, whose)
    difference, low, high = found["difference"]
    options.log(f"balanced accuracy with synthetic tiles less without: {difference:+.3f} ({low:+.3f} to {high:+.3f}), of {whose}")
    return {"acgan": found}


def _told_of(about: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """What the model has seen, with the tiles that were made up."""
    counts = made.get("synthetic", {})
    said = ", ".join(f"{n} of {c}" for c, n in counts.items())
    return about | {"description": f"{about['description']}; and synthetic tiles made by an ACGAN from them: {said}"} if counts else about


def answers(state: dict[str, Tensor], card: Card, items: Sequence[Labelled], images: np.ndarray, owner: np.ndarray, device: str) -> HeldOut:
    """What a model with these weights says of tiles: the same numbers as when it is loaded from its folder."""
    net = family(card.pipeline).build(card)
    net.load_state_dict(state)
    model = Classifier(card, net, last_linear(net, len(card.classes), card.name), device)
    step = 16 * card.batch
    parts = [model.predict(np.asarray(images[i : i + step])) for i in range(0, max(1, len(images)), step)]
    probability, feature = (np.concatenate([p[k] for p in parts]) for k in ("probability", "feature"))
    return HeldOut(items, owner, probability, feature, card.classes)


def _sources(items: Sequence[Labelled]) -> list[Source]:
    return [Source(i.path, i.mpp, f"{i.patient} {i.site}") for i in items]


def _labels(items: Sequence[Labelled], card: Card) -> np.ndarray:
    return np.array([card.classes.index(i.label) for i in items], np.int64)


def require_classes(card: Card, label: np.ndarray, held: np.ndarray) -> None:
    """There is something of each class to learn from, and something to validate on.

    Raises
    ------
    LabelsError
        There is not.
    """
    unseen = [c for i, c in enumerate(card.classes) if not (label == i).any()]
    if unseen or not len(held):
        raise LabelsError(
            f"no tile with tissue to {'train on of class ' + ', '.join(unseen) if unseen else 'validate on'}; "
            "add slides, or train 'subtype' with the classes that there are"
        )


@contextlib.contextmanager
def nothing_left_of_refused(out: Path) -> Iterator[None]:
    """Labels that cannot be used leave no folder behind."""
    try:
        yield
    except LabelsError:
        shutil.rmtree(out / TRAINING, ignore_errors=True)
        with contextlib.suppress(OSError):
            out.rmdir()
        raise


def clear_up(folder: Path) -> None:
    """Remove what only an unfinished training needs."""
    for name in (STATE, "*.tiles", "*.npy"):
        for path in folder.glob(name):
            path.unlink()


__all__ = ["TRAINING", "Options", "answers", "clear_up", "cross_validate", "nothing_left_of_refused", "require_classes", "scaled", "train_classifier"]
