"""As many synthetic tiles as real ones, in the training part of a split only; how near these come to real ones, and whether they help.

Each class gets the same share of them: where only rare classes have any, a network learns that what looks made up is rare.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from wsikit.metrics import bootstrap
from wsikit.models._card import Card
from wsikit.store.durable import atomic_path, write_atomic
from wsikit.train.acgan import synthesise, train_acgan
from wsikit.train.augment import apply_turn
from wsikit.train.held import HeldOut
from wsikit.train.learner import Tiles
from wsikit.train.tiles import to_disk

FACTS, SHEET, WEIGHTS = "acgan.json", "acgan.png", "acgan.safetensors"
SOURCE = "ACGAN (Odena et al., ICML 2017) of the training tiles"
_SHOWN, _COMPARED, _SMALL_PX = 10, 200, 16


@dataclass(frozen=True)
class Synthesis:
    """How synthetic tiles are made: ``epochs`` of the ACGAN, whether it may turn tiles, its seed and device, and where what is to be seen of it goes."""

    epochs: int
    turns: bool
    seed: int
    device: str
    folder: Path
    log: Any = print


def with_synthetic(tiles: Tiles, card: Card, how: Synthesis, path: Path) -> Tiles:
    """The tiles, and after them a synthetic one of the same class for each; made once, into a file that is mapped.

    ``how.folder`` gets the facts (`FACTS`), a sheet of real and synthetic tiles side by side (`SHEET`) and the generator's weights (`WEIGHTS`).

    Raises
    ------
    UsageError
        The tiles have a side that cannot be made.
    ModelError
        The generator's training leads nowhere.
    OutputError
        The disk has no room.
    """
    return Tiles(*to_disk(_real_then_made(tiles, card, how), 2 * len(tiles.label), (card.tile_px,) * 2 + (3,), path))


def _real_then_made(tiles: Tiles, card: Card, how: Synthesis) -> Iterator[tuple[int, np.ndarray]]:
    yield from zip(tiles.label.tolist(), tiles.images, strict=True)
    generator = train_acgan(tiles.images, tiles.label, len(card.classes), how.epochs, turns=how.turns, seed=how.seed, device=how.device, log=how.log)
    made = synthesise(generator, tiles.label, how.seed)
    facts: dict[str, Any] = {"source": SOURCE, "epochs": how.epochs, "synthetic": {}, "real": {}, "nearest": {}}
    for k in np.unique(tiles.label).tolist():
        name, rows = card.classes[k], np.flatnonzero(tiles.label == k)
        facts["synthetic"][name] = facts["real"][name] = len(rows)
        some = _some(rows, _COMPARED)
        facts["nearest"][name] = nearness(tiles.images[some], made[some])
    write_atomic(how.folder / FACTS, (json.dumps(facts, indent=1) + "\n").encode())
    with atomic_path(how.folder / WEIGHTS) as tmp:
        save_file({k: v.cpu().contiguous() for k, v in generator.state_dict().items()}, tmp)
    _sheet(how.folder / SHEET, tiles, made, card.classes)
    yield from zip(tiles.label.tolist(), made, strict=True)


def nearness(real: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """Are synthetic tiles copies of real ones, or all alike? Both numbers are about 1 for tiles that are neither, and 0 for copies.

    ``to_real``: median distance of a synthetic tile to the nearest real one, over that of a real tile to the nearest other; ``among``: the same for the
    nearest other synthetic tile. Distances are of colours at 16 × 16 px, to real tiles however turned or mirrored.

    Parameters
    ----------
    real, made : uint8 (N, side, side, 3)
    """
    small = [_reduced(x) for x in (real, made)]
    apart = _nearest(small[0], small[0], others=True)
    if not apart:
        return {}
    return {
        "to_real": round(_nearest(small[1], small[0]) / apart, 3),
        "among": round(_nearest(small[1], small[1], others=True) / apart, 3),
    }


def _some(rows: np.ndarray, count: int) -> np.ndarray:
    """At most so many of these rows, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]


def _reduced(images: np.ndarray) -> torch.Tensor:
    """float32 (N, 16, 16, 3)"""
    small = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float(), _SMALL_PX)
    return small.permute(0, 2, 3, 1)


def _nearest(these: torch.Tensor, those: torch.Tensor, *, others: bool = False) -> float:
    """The median distance of these to the nearest of those, in any of eight positions; to another than itself."""
    best = torch.full((len(these),), torch.inf)
    for turn in range(8):
        turned = torch.stack([apply_turn(image, turn % 4, turn > 3) for image in those])
        distance = torch.cdist(these.flatten(1), turned.flatten(1))
        if others:
            distance.fill_diagonal_(torch.inf)
        best = torch.minimum(best, distance.min(1).values)
    return float(best.median()) if torch.isfinite(best).all() else 0.0


def _sheet(path: Path, tiles: Tiles, made: np.ndarray, classes: Sequence[str]) -> None:
    """Of each class a row of real and a row of synthetic tiles."""
    from matplotlib.figure import Figure

    there = np.unique(tiles.label).tolist()
    figure = Figure(figsize=(_SHOWN, 2 * len(there) + 0.5), layout="constrained")
    axes = figure.subplots(2 * len(there), _SHOWN, squeeze=False)
    for k, (above, below) in zip(there, axes.reshape(-1, 2, _SHOWN), strict=True):
        some = _some(np.flatnonzero(tiles.label == k), _SHOWN)
        for row, images, what in ((above, tiles.images[some], "real"), (below, made[some], "synthetic")):
            for ax in row:
                ax.set_axis_off()
            for ax, image in zip(row, images, strict=False):
                ax.imshow(image)
            row[0].set_title(f"{classes[k]}: {what}", fontsize=9, loc="left")
    with atomic_path(path) as tmp:
        figure.savefig(tmp, format="png", dpi=100, metadata={"Software": None, "Comment": "rows named synthetic were made by an ACGAN"})


def read_facts(folder: Path) -> dict[str, Any]:
    """What `with_synthetic` wrote of the tiles that it made."""
    found: dict[str, Any] = json.loads((folder / FACTS).read_bytes())
    return found


def effect(mixed: HeldOut, plain: HeldOut, whose: str) -> dict[str, Any]:
    """Did it help? Balanced accuracy over held-out tiles of the model that saw synthetic tiles, less that of one that did not.

    The interval is of the difference, patients resampled; the same tiles are called by both.
    """
    label, k = mixed.label, len(mixed.classes)
    right = [(h.probability.argmax(1) == label).astype(np.float64) for h in (mixed, plain)]

    def recalls(which: int, rows: np.ndarray) -> np.ndarray:
        n = np.bincount(label[rows], minlength=k)
        return np.divide(np.bincount(label[rows], right[which][rows], k), n, out=np.full(k, np.nan), where=n > 0)

    def balanced(which: int, rows: np.ndarray) -> float:
        return float(np.nanmean(recalls(which, rows)))

    patients = np.array([i.patient for i in mixed.items], dtype=str)[mixed.owner]
    about = bootstrap(lambda rows: balanced(0, rows) - balanced(1, rows), patients.tolist())
    every = np.arange(len(label))
    by_class = zip(mixed.classes, recalls(0, every), recalls(1, every), strict=True)
    return {
        "held_out": whose,
        "unit": "tiles",
        "n": len(label),
        "patients": len(set(patients.tolist())),
        "balanced_accuracy_with": round(balanced(0, every), 4),
        "balanced_accuracy_without": round(balanced(1, every), 4),
        "difference": [round(v, 4) for v in (about.value, about.low, about.high)],
        "recall_with_and_without": {c: [round(float(a), 4), round(float(b), 4)] for c, a, b in by_class},
    }
