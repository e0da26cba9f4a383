"""Labelled tissue for the mitosis detector: AMi-Br crops (MIT), fields without mitoses (MIT), and the public CC0 slide, split by slide."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

import wsikit as wk
from wsikit.train.compose import NO_POINTS, Piece, Tissue

CROP_MPP = 0.25  # AMi-Br: scanned at ×40, about 0.25 µm/px
MIRRORED_PX = 40
SHARES = {"train": 0.70, "val": 0.12}  # of slides; the rest are tested on


def rgb(path: Path) -> np.ndarray:
    """A picture as uint8 (H, W, 3)."""
    Image.MAX_IMAGE_PIXELS = 2**28
    return np.asarray(Image.open(path).convert("RGB"))


def part_of(slide: str) -> str:
    """``train``, ``val`` or ``test``, the same for a slide whenever it is asked."""
    at = int(hashlib.sha256(slide.encode()).hexdigest()[:8], 16) / 2**32
    return "train" if at < SHARES["train"] else "val" if at < SHARES["train"] + SHARES["val"] else "test"


def boxes(path: Path, size: tuple[int, int], wanted: str) -> np.ndarray:
    """Centres of YOLO boxes of a class, float64 (M, 2) x, y px."""
    rows = [line.split() for line in path.read_text().splitlines() if line.split()]
    return np.array([[float(x) * size[0], float(y) * size[1]] for c, x, y, *_ in rows if c == wanted]).reshape(-1, 2)


def crops(ami: Path) -> list[Piece]:
    """Every crop of AMi-Br; the figure in the middle is known to be typical or atypical."""
    found = []
    with (ami / "labels.csv").open(newline="") as f:
        for row in csv.DictReader(f):
            image = rgb(ami / "patches" / row["label"] / row["file"])
            labels = ami / "yolo_labels" / f"{Path(row['file']).stem}.txt"
            objects, lookalikes = (boxes(labels, (image.shape[1], image.shape[0]), c) for c in "01")
            middle = np.hypot(*(objects - 64).T) < 3
            kind = np.where(middle, float(row["label"] == "atypical"), np.nan)
            if (image.max(2) > 4).mean() > 0.99:  # the rest were cut at the edge of a scan, and end in black
                found.append(Piece(image, objects, CROP_MPP, row["group"], lookalikes, kind))
    return found


def widened(piece: Piece) -> Piece:
    """A crop mirrored at its edges, as far as its figure is not mirrored in; as it is where a figure lies near an edge."""
    side = piece.image.shape[0]
    far = np.concatenate([piece.objects, side - piece.objects]).min()
    if far < MIRRORED_PX + 12:
        return piece
    image = np.pad(piece.image, ((MIRRORED_PX,) * 2, (MIRRORED_PX,) * 2, (0, 0)), mode="reflect")
    return Piece(image, piece.objects + MIRRORED_PX, piece.mpp, piece.source, piece.lookalikes + MIRRORED_PX, piece.kind)


def hard_negative_fields(folder: Path) -> list[Piece]:
    """The two fields without mitoses, their look-alikes marked, in the order of their names."""
    found = []
    for path in sorted((folder / "images").glob("*.jpg")):
        image = rgb(path)
        found.append(Piece(image, NO_POINTS, CROP_MPP, path.stem, boxes(folder / "labels" / f"{path.stem}.txt", (image.shape[1], image.shape[0]), "1")))
    return found


def part(piece: Piece, x0: float, x1: float) -> Piece:
    """A vertical strip of a piece, ends as shares of its width."""
    w = piece.image.shape[1]
    a, b = round(x0 * w), round(x1 * w)
    lookalikes = piece.lookalikes[(piece.lookalikes[:, 0] >= a) & (piece.lookalikes[:, 0] < b)] - (a, 0)
    return Piece(piece.image[:, a:b], NO_POINTS, piece.mpp, piece.source, lookalikes)


def load(labelled: Path, public_slide: Path) -> dict[str, Tissue]:
    """The three parts. Of the fields without mitoses the second is for testing, the right quarter of the first for validation."""
    first, second = hard_negative_fields(labelled / "cmc_hardneg_fields")
    slide = wk.open_slide(public_slide)
    cmu = Piece(slide.read((0, 0, slide.size.w, slide.size.h)), NO_POINTS, slide.require_mpp()[0], "CMU-1-Small-Region")
    empty = {"train": [part(first, 0, 0.75), part(cmu, 0, 0.5)], "val": [part(first, 0.75, 1)], "test": [second, part(cmu, 0.5, 1)]}
    figures = crops(labelled / "ami_br")
    return {name: Tissue([widened(p) if name == "train" else p for p in figures if part_of(p.source) == name], e) for name, e in empty.items()}
