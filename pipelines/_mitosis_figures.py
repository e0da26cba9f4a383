"""How good is a mitosis detector? By MIDOG's rule (7.5 µm), with intervals over cases, on fields whose mitoses are all known."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _mitosis_data import rgb

from wsikit.aggregate.mitosis import merge
from wsikit.metrics import DetectionScore, balanced_accuracy, bootstrap, confusion, match_detections
from wsikit.models.mitosis import Detector
from wsikit.train.compose import NO_POINTS, Composition, Motion, Piece, Tissue, compose, lay, soft_rectangle

HOTSPOT_PER_MM2 = 60  # figures per mm² of a hot field; the threshold is the best there
SIDE, WHOLE_PX, OVERLAP_PX = 512, 1024, 64


@dataclass(frozen=True)
class Found:
    """What a model finds in a field: positions float64 (M, 2) x, y px, scores, probabilities of being atypical."""

    field: Piece
    position: np.ndarray
    score: np.ndarray
    atypical: np.ndarray

    def above(self, threshold: float) -> np.ndarray:
        """The counted positions."""
        return self.position[self.score >= threshold]

    def hits(self, threshold: float) -> DetectionScore:
        """Against the field's mitoses."""
        return match_detections(self.above(threshold) * self.field.mpp, self.field.objects * self.field.mpp)


def find(model: Detector, field: Piece) -> Found:
    """Run over a field: whole up to 1024 px, else in overlapping tiles as a slide is, each detection from the tile in whose own cell it lies."""
    h, w = field.image.shape[:2]
    whole = max(h, w) <= WHOLE_PX
    side, overlap = (64 * math.ceil(max(h, w) / 64), 0) if whole else (WHOLE_PX, OVERLAP_PX)
    starts = [range(1) if whole else range(-overlap // 2, n - overlap // 2, side - overlap) for n in (h, w)]
    padded = np.pad(field.image, ((overlap, side), (overlap, side), (0, 0)), mode="symmetric")
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [(NO_POINTS, np.empty(0), np.empty(0))]
    for y, x in itertools.product(*starts):
        (d,) = model.predict(padded[None, y + overlap : y + overlap + side, x + overlap : x + overlap + side])
        own = ((d.position >= overlap / 2) & (d.position < side - overlap / 2)).all(1)
        assert d.atypical is not None
        parts.append((d.position[own] + (x, y), d.score[own], d.atypical[own]))
    position, score, atypical = (np.concatenate(p) for p in zip(*parts, strict=True))
    inside = ((position >= 0) & (position < (w, h))).all(1)
    position, score, atypical = position[inside], score[inside], atypical[inside]
    kept = merge(position, score, (field.mpp, field.mpp), 7.5)
    return Found(field, position[kept], score[kept], atypical[kept])


def fields_with(tissue: Tissue, each: int = 2, seed: int = 0) -> list[Piece]:
    """Each crop once, two or four in a window of tissue without mitoses, turned and soft at the edges; ``hidden`` holds the crops' middles."""
    rng = np.random.default_rng(seed)
    still = Composition(scale=(0.25, 0.25), coarse=0, paste=0, empty=1)
    found, places = [], [np.array(p) for p in ((140.0, 140.0), (370.0, 370.0), (140.0, 370.0), (370.0, 140.0))]
    for first in range(0, len(tissue.figures), each):
        field = compose(tissue, SIDE, 0.25, still, rng)
        few = tissue.figures[first : first + each]
        for crop, place in zip(few, places, strict=False):
            place = place + rng.uniform(-45, 45, 2)
            motion = Motion.about(np.full(2, crop.image.shape[0] / 2), place, float(rng.integers(4)) * np.pi / 2, 1.0, bool(rng.integers(2)))
            field = lay(field, crop, motion, soft_rectangle(SIDE, *(place - 63), *(place + 63), 4))
            field = replace(field, hidden=np.concatenate([field.hidden, place[None]]), source=crop.source)
        found.append(field)
    return found


def best_threshold(found: Sequence[Found]) -> tuple[float, dict[str, float]]:
    """The threshold with the best F1 to be expected in a hot spot, from figures and from false finds in the tumour tissue around them."""
    area = sum(len(f.field.hidden) for f in found) * (126 * 0.25e-3) ** 2
    best = (0.0, 0.5, {})
    for threshold in np.arange(0.1, 0.96, 0.01).round(2).tolist():
        hits = sum((f.hits(threshold) for f in found), DetectionScore(0, 0, 0))
        false = sum(_false_in_crops(f, threshold) for f in found) / area
        tp = hits.recall * HOTSPOT_PER_MM2
        f1 = 2 * tp / (tp + false + HOTSPOT_PER_MM2)
        if f1 > best[0]:
            best = (f1, threshold, {"recall": hits.recall, "false_per_mm2_of_tumour": false, "f1_at_60_per_mm2": f1})
    return best[1], best[2]


def _false_in_crops(found: Found, threshold: float) -> int:
    at = found.above(threshold)
    inside = (np.abs(at[:, None] - found.field.hidden[None]).max(2) < 63).any(1)
    return match_detections(at[inside] * 0.25, found.field.objects * 0.25).fp


def pooled(found: Sequence[Found], threshold: float, draws: int = 2000) -> dict[str, Any]:
    """Counts, precision, recall and F1 with 95 % intervals over cases."""
    hits = [f.hits(threshold) for f in found]

    def of(rows: np.ndarray) -> DetectionScore:
        return sum((hits[i] for i in rows), DetectionScore(0, 0, 0))

    total = of(np.arange(len(hits)))
    facts: dict[str, Any] = {"fields": len(found), "cases": len({f.field.source for f in found}), "tp": total.tp, "fp": total.fp, "fn": total.fn}
    for name in ("precision", "recall", "f1"):
        i = bootstrap(lambda rows, name=name: getattr(of(rows), name), [f.field.source for f in found], draws=draws)
        facts[name] = [round(float(v), 3) for v in (i.value, i.low, i.high)]
    return facts


def false_per_mm2(found: Found, threshold: float) -> dict[str, float]:
    """On tissue without mitoses."""
    coloured = cv2.blur(np.ptp(found.field.image[::8, ::8].astype(np.int16), axis=2).astype(np.float32), (9, 9)) > 12
    area = float(coloured.mean()) * found.field.image.shape[0] * found.field.image.shape[1] * (found.field.mpp * 1e-3) ** 2
    count = len(found.above(threshold))
    return {"found": count, "tissue_mm2": round(area, 3), "per_mm2": round(count / area, 1)}


def typing(found: Sequence[Found], threshold: float = 0.0, call: float = 0.5) -> dict[str, Any]:
    """Balanced accuracy of typical against atypical on the figures that were detected, with its interval over slides."""
    truth, said, cases = [], [], []
    for f in found:
        for point, kind in zip(f.field.objects, f.field.kinds, strict=True):
            at = np.flatnonzero(f.score >= threshold)
            distance = np.hypot(*(f.position[at] - point).T) if len(at) else np.array([np.inf])
            if np.isfinite(kind) and distance.min() * f.field.mpp <= 7.5:
                truth.append("atypical" if kind else "typical")
                said.append("atypical" if f.atypical[at[distance.argmin()]] >= call else "typical")
                cases.append(f.field.source)
    names = ("typical", "atypical")
    i = bootstrap(lambda rows: balanced_accuracy(confusion([truth[r] for r in rows], [said[r] for r in rows], names)), cases, draws=1000)
    return {"n": len(truth), "atypical": truth.count("atypical"), "balanced_accuracy": [round(float(v), 3) for v in (i.value, i.low, i.high)]}


def coarser(field: Piece, factor: float) -> Piece:
    """The field as a slide of ``factor`` × the µm/px gives it, enlarged again to 0.25 µm/px, as ``--upsample`` does."""
    h, w = field.image.shape[:2]
    small = cv2.resize(field.image, (round(w / factor), round(h / factor)), interpolation=cv2.INTER_AREA)
    return replace(field, image=cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR))


def enlarged(piece: Piece, mpp: float) -> Piece:
    """A piece at a finer µm/px."""
    h, w = piece.image.shape[:2]
    times = piece.mpp / mpp
    image = cv2.resize(piece.image, (round(w * times), round(h * times)), interpolation=cv2.INTER_LINEAR)
    return Piece(image, piece.objects * times, mpp, piece.source, piece.lookalikes * times)


def midesec(folder: Path) -> list[Piece]:
    """26 fields of another lab at ×40; their µm/px is not stated, and taken as 0.25."""
    coco = json.loads((folder / "coco.json").read_text())
    found = []
    for image in coco["images"]:
        marks = [a["bbox"] for a in coco["annotations"] if a["image_id"] == image["id"]]
        points = np.array([[x + w / 2, y + h / 2] for x, y, w, h in marks]).reshape(-1, 2)
        path = next((folder / "images").glob(f"{Path(image['file_name']).stem}.*"))
        found.append(Piece(rgb(path), points, 0.25, path.stem))
    return found


def icpr12(folder: Path) -> list[Piece]:
    """Patches of 256 px of four fields of ICPR 2012 (Aperio, 0.2456 µm/px), some of them overlapping; on the whole field the mitoses are painted over."""
    found = []
    for path in sorted((folder / "patches256/img").glob("*.jpg")):
        mask = rgb(folder / "patches256/mask" / path.name)[..., 0] > 127
        count, _, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        points = np.array([centres[i] + 0.5 for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= 60]).reshape(-1, 2)
        found.append(Piece(rgb(path), points, 0.2456, path.stem[:6]))
    return found
