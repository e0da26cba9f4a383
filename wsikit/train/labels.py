"""Labels as CSV: which slide, which class, whose. And splits that never put a patient on both sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from wsikit.errors import LabelsError
from wsikit.resolution import parse_number
from wsikit.spreadsheet import Row, read_rows


@dataclass(frozen=True)
class Labelled:
    """A slide, store or tile image with its class and patient.

    ``split`` is ``train``, ``val``, ``test`` or empty (to be drawn); ``site`` is where it was made; ``fold`` is the fold of a cross-validation that
    its patient is held out in.
    """

    path: Path
    label: str
    patient: str
    mpp: float | None = None
    split: str = ""
    site: str = ""
    fold: str = ""


def read_table(path: Path, needed: Sequence[str]) -> list[Row]:
    """The rows of a CSV that has these columns.

    Raises
    ------
    LabelsError
        See `read_rows`; or it is empty, or lacks a column.
    """
    found, rows = read_rows(path)
    if found and (missing := [c for c in needed if c not in found]):
        raise LabelsError(f"{path}: needs the columns {', '.join(needed)}; missing: {', '.join(missing)} (it has {', '.join(found)})")
    if not rows:
        raise LabelsError(f"{path}: {'has columns, but no rows' if found else 'is empty'}")
    return rows


def read_labels(path: Path, classes: Sequence[str] | None = None) -> list[Labelled]:
    """Slides with labels from a CSV with columns path, label, patient and optionally mpp, site, split, fold.

    Raises
    ------
    LabelsError
        A column or value is missing or wrong, a slide does not exist or is named twice, a label is not one of ``classes``, or a patient is in two
        splits.
    """
    found = []
    for row in read_table(path, ["path", "label", "patient"]):
        number, slide = row.line, path.parent / row["path"]
        if not row["path"] or not slide.exists():
            raise LabelsError(f"{path}: line {number}: no slide at {slide}")
        if not row["label"] or not row["patient"]:
            raise LabelsError(f"{path}: line {number}: label and patient must not be empty")
        if classes and row["label"] not in classes:
            raise LabelsError(f"{path}: line {number}: label '{row['label']}' is none of {', '.join(classes)}")
        if row.get("split", "") not in ("", "train", "val", "test"):
            raise LabelsError(f"{path}: line {number}: split '{row['split']}' must be train, val or test")
        more = {k: row.get(k, "") for k in ("split", "site", "fold")}
        found.append(Labelled(slide, row["label"], row["patient"], read_mpp(row, f"{path}: line {number}"), **more))
    check_patients(found, path)
    return found


def read_mpp(row: Mapping[str, str], where: str) -> float | None:
    """The mpp of a row, None where it gives none.

    Raises
    ------
    LabelsError
        It gives something else.
    """
    if not row.get("mpp"):
        return None
    mpp = parse_number(row["mpp"])
    if mpp is None:
        raise LabelsError(f"{where}: mpp '{row['mpp']}' is not a number")
    return mpp


def check_patients(items: Sequence[Labelled], where: Path) -> None:
    """A patient belongs to one split and fold, and a slide to one patient.

    Raises
    ------
    LabelsError
        A patient is in two splits, or a slide is named twice.
    """
    seen: set[Path] = set()
    for item in items:
        if item.path.resolve() in seen:
            raise LabelsError(f"{where}: slide {item.path} is named twice; give each slide once, or it could be on both sides of a split")
        seen.add(item.path.resolve())
    for kind in ("split", "fold"):
        splits: dict[str, set[str]] = defaultdict(set)
        for item in items:
            splits[item.patient].add(getattr(item, kind))
        both = [p for p, s in splits.items() if len(s) > 1]
        if both:
            raise LabelsError(f"{where}: patient {both[0]} is in more than one {kind}; a patient belongs to one")


def of_several_classes(patients: Sequence[str], labels: Sequence[str]) -> str:
    """What figures of patients are worth where a patient has labels of several classes, in words; empty where none has.

    >>> of_several_classes(["P1", "P2", "P2"], ["A", "A", "B"])[:52]
    '1 of 2 patients have labels of several classes and c'
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for patient, label in zip(patients, labels, strict=True):
        classes[patient].add(label)
    several = sum(len(found) > 1 for found in classes.values())
    if not several:
        return ""
    return (
        f"{several} of {len(classes)} patients have labels of several classes and count once for each, their tiles sorted by the very label: "
        "figures, sets and temperature of patients are too good; go by those of tiles"
    )


def split_by_patient(items: Sequence[Labelled], share: float = 0.2, seed: int = 0) -> tuple[list[Labelled], list[Labelled]]:
    """Training and validation slides: the CSV's splits, else a share of each class's patients is drawn. Slides of split ``test`` are in neither.

    Raises
    ------
    LabelsError
        There are too few patients to hold any out.
    """
    items = [i for i in items if i.split != "test"]
    if any(i.split for i in items):
        train, val = [i for i in items if i.split != "val"], [i for i in items if i.split == "val"]
    else:
        rng = np.random.default_rng(seed)
        held: set[str] = set()
        by_class: dict[str, set[str]] = defaultdict(set)
        for item in items:
            by_class[item.label].add(item.patient)
        for patients in by_class.values():
            names = sorted(patients)
            wanted = max(1, round(share * len(names))) - len(held & patients) if len(names) > 1 else 0  # a patient of several classes is held out for each
            held |= set([n for n in rng.permutation(names).tolist() if n not in held][: max(0, wanted)])
        train, val = [i for i in items if i.patient not in held], [i for i in items if i.patient in held]
    if not train or not val:
        raise LabelsError("too few patients to hold some out for validation: at least two per class are needed, or a column 'split'")
    return train, val


def outer_folds(items: Sequence[Labelled], folds: int, *, by_site: bool = False, seed: int = 0) -> list[tuple[str, list[Labelled]]]:
    """The slides that each fold of a cross-validation holds out, with the fold's name.

    Those of the CSV's column ``fold``; with ``by_site`` each site in turn; else ``folds`` of about the same mix of classes, patients kept whole.

    Raises
    ------
    LabelsError
        There are too few patients or sites, a site is not named, or a patient was seen at two sites.
    """
    if by_site:
        return _by_site(items)
    if any(i.fold for i in items):
        names = sorted({i.fold for i in items})
        if "" in names or len(names) < 2:
            raise LabelsError("column 'fold' must name at least two folds, and one for every slide")
        return [(name, [i for i in items if i.fold == name]) for name in names]
    patients = [i.patient for i in items]
    fewest = min(len({i.patient for i in items if i.label == c}) for c in {i.label for i in items})
    if folds < 2 or fewest < folds:
        raise LabelsError(f"{folds} folds need as many patients of each class; the rarest has {fewest}")
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(items, [i.label for i in items], patients)
    return [(str(n), [items[i] for i in held]) for n, (_, held) in enumerate(split, 1)]


def _by_site(items: Sequence[Labelled]) -> list[tuple[str, list[Labelled]]]:
    sites = sorted({i.site for i in items})
    if "" in sites or len(sites) < 2:
        raise LabelsError("to leave out each site in turn, column 'site' must name at least two, and one for every slide")
    whose: dict[str, set[str]] = defaultdict(set)
    for item in items:
        whose[item.patient].add(item.site)
    if both := [p for p, s in whose.items() if len(s) > 1]:
        raise LabelsError(f"patient {both[0]} was seen at more than one site, so leaving one out would leave the patient on both sides")
    return [(site, [i for i in items if i.site == site]) for site in sites]
