"""Train a model of regions: tumour against everything else, from polygons or masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsikit import __version__
from wsikit.errors import LabelsError
from wsikit.metrics import bootstrap
from wsikit.models import family, read_card
from wsikit.models._card import Card, write_model
from wsikit.store.durable import digest_of, sha256_file
from wsikit.train.augment import augment, turn_and_flip
from wsikit.train.classify import _PLACEHOLDER, TRAINING, Options, clear_up, nothing_left_of_refused
from wsikit.train.fit import fit
from wsikit.train.initial import initialise
from wsikit.train.labels import split_by_patient
from wsikit.train.learner import scaled
from wsikit.train.page import write_page
from wsikit.train.parallel import Group
from wsikit.train.recipe import Recipe
from wsikit.train.regions import IGNORED, Marked, draw_marked
from wsikit.train.tiles import to_disk


def train_segmenter(
    slides: Sequence[Marked], out: Path, card_fields: dict[str, Any], recipe: Recipe, options: Options | None = None, group: Group | None = None
) -> Card:
    """Train from slides with regions and write a model folder; returns its card. Resumes, and runs on several processes, as classifiers do.

    Raises
    ------
    SlideError
        A slide cannot be used.
    LabelsError
        Regions cannot be used, or there are too few patients, or no tumour, or nothing else, to learn from.
    StoreMismatchError
        ``out`` holds an unfinished training of something else.
    """
    options = Options() if options is None else options
    group = group or Group(device=options.device)
    options = options if group.first else replace(options, log=lambda _: None)
    card, folder = Card(**card_fields, weights=_PLACEHOLDER), out / TRAINING
    train_items, val_items = split_by_patient([s.item for s in slides], recipe.validation_share, options.seed)
    parts = [[s for s in slides if s.item in items] for items in (train_items, val_items)]
    options.log(f"{len(parts[0])} slides to train on, {len(parts[1])} to validate on, no patient in both")
    facts = [[(str(s.item.path), s.item.patient, s.item.mpp, sha256_file(s.regions)) for s in part] for part in parts]
    key = digest_of([facts, card.model_dump(mode="json"), recipe.model_dump(mode="json"), options.per_slide, options.seed, __version__])
    with nothing_left_of_refused(out):
        (x, _), (vx, vowner) = (_tiles(part, card, options.per_slide, folder / f"{name}-{key}.tiles", group) for name, part in zip("tv", parts, strict=True))
        _require_both(x)
    torch.manual_seed(options.seed)
    net: Any = family(card.pipeline).build(card)
    head = list(net.segmentation_head.parameters()) + list(net.decoder.parameters())
    origin = initialise(net, head, card.architecture, recipe.initial, options.log)
    learner = RegionLearner(net.to(group.device).to(memory_format=torch.channels_last), head, card, recipe, x, vx)
    history = fit(learner, recipe, folder, key, group, seed=options.seed, log=options.log, tensorboard=options.tensorboard)
    if group.first:
        training = {"recipe": recipe.model_dump(mode="json"), "started_from": origin, "seed": options.seed, "tiles_per_slide": options.per_slide}
        metrics = {"validation": _figures(learner.overlaps(), vowner, [s.item.patient for s in parts[1]])}
        fields = {**card_fields, "metrics": metrics, "training": training | {"wsikit": __version__}}
        card = write_model(out, fields, {k: v.detach().cpu() for k, v in net.state_dict().items()})
        write_page(folder, card, recipe, history, {"training": train_items, "validation": val_items}, ["tumour"])
        clear_up(folder)
    group.wait()
    return read_card(out)


def _tiles(part: Sequence[Marked], card: Card, per_slide: int, path: Path, group: Group) -> tuple[np.ndarray, np.ndarray]:
    if not group.first:
        group.wait()
    found = to_disk(draw_marked(part, card, per_slide), len(part) * per_slide, (card.tile_px, card.tile_px, 4), path)
    if group.first:
        group.wait()
    return found


def _require_both(x: np.ndarray) -> None:
    there = {int(v) for tile in x for v in np.unique(tile[..., 3])}
    if not {0, 1} <= there:
        raise LabelsError(f"the tissue of the training slides holds no pixel of {'tumour' if 1 not in there else 'anything but tumour'}; draw both, see --help")


@dataclass(frozen=True)
class _Overlap:
    """Pixels in both, in what was found, and in what was drawn, of each tile: int64 (N,)."""

    both: np.ndarray
    found: np.ndarray
    drawn: np.ndarray

    def dice(self, rows: np.ndarray) -> float:
        """2 |A ∩ B| / (|A| + |B|) over some tiles; 1 where both are empty."""
        total = int(self.found[rows].sum() + self.drawn[rows].sum())
        return 2 * int(self.both[rows].sum()) / total if total else 1.0


def _figures(overlap: _Overlap, owner: np.ndarray, patients: Sequence[str]) -> dict[str, Any]:
    about = bootstrap(overlap.dice, [patients[i] for i in owner.tolist()])
    each = [overlap.dice(np.flatnonzero(owner == i)) for i in np.unique(owner)]
    return {
        "unit": "tiles",
        "n": len(owner),
        "patients": len({patients[i] for i in owner.tolist()}),
        "dice": round(about.value, 4),
        "dice_interval": [round(about.low, 4), round(about.high, 4)],
        "median_dice_of_slides": round(float(np.median(each)), 4),
    }


class RegionLearner:
    """A segmenter, its tiles with a fourth channel of labels, cross-entropy + soft Dice, and the Dice of tiles held out."""

    def __init__(self, net: nn.Module, head: list[nn.Parameter], card: Card, recipe: Recipe, tiles: np.ndarray, held: np.ndarray) -> None:
        assert card.segmentation is not None
        self.net, self.head, self.size = net, head, len(tiles)
        self._card, self._tiles, self._held = card, tiles, held
        self._region = card.classes.index(card.segmentation.region)
        self._threshold = card.segmentation.threshold
        still = {"turns": False, "flip": False, "rotate_deg": 0.0, "zoom": 0.0, "shift_px": 0.0, "holes": (0, 0)}  # the mask would have to follow
        self._turns, self._colour = recipe.augment.turns, recipe.augment.model_copy(update=still)

    def loss(self, net: nn.Module, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Mean cross-entropy over the pixels of which something is said, plus 1 − soft Dice of the region."""
        tiles = torch.from_numpy(np.ascontiguousarray(self._tiles[rows.numpy()]))
        tiles = turn_and_flip(tiles, generator) if self._turns else tiles
        images = augment(tiles[..., :3].contiguous(), self._colour, generator)
        device = next(self.net.parameters()).device
        said = tiles[..., 3].long().to(device)
        target = torch.where(said == IGNORED, IGNORED, torch.where(said == 1, self._region, 1 - self._region))
        logits = net(scaled(images, self._card).to(device))
        entropy = functional.cross_entropy(logits, target, ignore_index=IGNORED)
        known = (target != IGNORED).float()
        p, drawn = torch.softmax(logits.float(), 1)[:, self._region] * known, (said == 1).float()
        dice = (2 * (p * drawn).sum() + 1) / (p.sum() + drawn.sum() + 1)
        return torch.nan_to_num(entropy) + 1 - dice

    @torch.inference_mode()
    def overlaps(self, group: Group | None = None) -> _Overlap:
        """What of the tiles held out is tumour, as found and as drawn, each process doing its part of them."""
        group = group or Group()
        self.net.eval()
        device, out = next(self.net.parameters()).device, np.zeros((len(self._held), 3), np.int64)
        mine = np.arange(len(self._held))[group.rank :: group.size]
        for rows in (mine[i : i + self._card.batch] for i in range(0, len(mine), self._card.batch)):
            tiles = torch.from_numpy(np.ascontiguousarray(self._held[rows]))
            p = torch.softmax(self.net(scaled(tiles[..., :3], self._card).to(device)).float(), 1)[:, self._region].cpu()
            known, drawn = tiles[..., 3] != IGNORED, tiles[..., 3] == 1
            found = (p >= self._threshold) & known
            out[rows] = torch.stack([(found & drawn).sum((1, 2)), found.sum((1, 2)), drawn.sum((1, 2))], 1).numpy()
        return _Overlap(*group.total(out).T)

    def validate(self, group: Group) -> Mapping[str, float]:
        """The Dice over all tiles held out."""
        dice = self.overlaps(group).dice(np.arange(len(self._held)))
        return {"score": dice, "dice": dice}
