"""Patients to train a survival model on: their follow-up, clinical columns, and what a run found of their slides, joined by name."""

from __future__ import annotations

import csv
import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsikit.aggregate.counting import Counting
from wsikit.aggregate.features import all_names, bag, measured, together
from wsikit.errors import LabelsError
from wsikit.resolution import parse_number
from wsikit.store import SlideStore
from wsikit.survival.columns import read_columns
from wsikit.survival.follow_up import RESERVED, FollowUp, Joined, join_patients, read_follow_up
from wsikit.survival.recipe import Patients
from wsikit.train.labels import read_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Study:
    """Everything of the patients that are in all tables, in the order of their names.

    Attributes
    ----------
    image : names of the columns that come from slides
    clinical : those of the labels; ``elsewhere`` those of other tables
    models : digest of the model of each pipeline of the run; ``calls`` the class of each patient by pipeline, empty where it was withheld
    counting : how the run counted mitoses
    notes : what was left out, in sentences; ``left_out`` how many patients
    """

    patients: Patients
    image: list[str]
    clinical: list[str]
    elsewhere: list[str]
    models: dict[str, str]
    calls: dict[str, dict[str, str]]
    notes: list[str] = field(default_factory=list)
    left_out: int = 0
    counting: Counting = field(default_factory=Counting)


def read_study(
    labels: Path,
    run: Path | None,
    features: Sequence[str],
    endpoint: str = "",
    *,
    clinical: Sequence[str] | None = None,
    columns: Path | None = None,
    tiles_of: str = "",
    outcome: str = "",
) -> Study:
    """Read and join.

    Parameters
    ----------
    labels : CSV of `read_follow_up`; of a yes/no ``outcome``, ``patient`` and that column (1, 0)
    run : a run's folder; without it there are no image features
    features : names or patterns such as ``pathomics.*``
    clinical : columns of the labels; all others that are there by default
    columns : a CSV of ``patient`` and columns from elsewhere (radiomics, expression)
    tiles_of : also read the tile features of this pipeline

    Raises
    ------
    LabelsError
        A table cannot be read or joined, or a column is not there.
    """
    found = _RunFeatures(run) if run is not None else None
    rows = read_table(labels, ["patient"])
    follow, text = read_outcome(labels, rows, outcome) if outcome else read_follow_up(labels, rows, endpoint)
    tables = {"clinical": read_columns(text, clinical)}
    if columns is not None:
        tables["elsewhere"] = read_columns(_other(columns))
    if found is not None:
        tables["image"] = found.table(features)
    names = {"labels": follow.patient.tolist()} | {k: list(t.index) for k, t in tables.items() if k != "clinical"}
    joined = _joined(labels, run, names)
    where = {p: i for i, p in enumerate(follow.patient.tolist())}
    patients = Patients(_together(tables, joined.patients), follow.take(np.array([where[p] for p in joined.patients])))
    if tiles_of:
        patients = replace(patients, bags=_bags(found, tiles_of, joined.patients))
    lists = {k: [str(c) for c in t.columns] for k, t in tables.items()}
    columns_of = (lists.get("image", []), lists["clinical"], lists.get("elsewhere", []))
    gone = len(set().union(*joined.missing.values()))
    return Study(
        patients, *columns_of, *((found.models, found.calls()) if found else ({}, {})), joined.sentences(), gone, found.counting if found else Counting()
    )


def _joined(labels: Path, run: Path | None, names: dict[str, list[str]]) -> Joined:
    try:
        return join_patients(**names)
    except LabelsError as e:
        raise LabelsError(f"{labels}{f' and {run}' if run else ''}: {e}") from e


def _together(tables: dict[str, pd.DataFrame], patients: list[str]) -> pd.DataFrame:
    import pandas as pd

    whole = pd.concat([t.loc[patients] for t in tables.values()], axis=1)
    twice = whole.columns[whole.columns.duplicated()]
    if len(twice):
        raise LabelsError(f"column {twice[0]} is in two tables; name them differently")
    return whole


def read_outcome(path: Path, rows: Sequence[Mapping[str, str]], outcome: str) -> tuple[FollowUp, pd.DataFrame]:
    """A yes/no column as follow-up, and all other columns as text by patient.

    Raises
    ------
    LabelsError
        The column is not there or holds something else, or a patient is there twice.
    """
    import pandas as pd

    from wsikit.survival.logistic import yes_or_no

    if outcome not in rows[0]:
        raise LabelsError(f"{path}: no column is called {outcome}; there are {', '.join(rows[0])}")
    if odd := [r for r in rows if r[outcome] not in ("0", "1", "0.0", "1.0")]:
        raise LabelsError(f"{path}: {outcome} '{odd[0][outcome]}' of patient {odd[0]['patient']} must be 1 (yes) or 0 (no)")
    names = [r["patient"] for r in rows]
    if len(set(names)) < len(names) or "" in names:
        raise LabelsError(f"{path}: each patient must be named, and be in one row; a patient is in more than one row, or has no name")
    site = np.array([r.get("site", "") for r in rows])
    follow = yes_or_no(np.array(names), np.array([r[outcome] in ("1", "1.0") for r in rows]), outcome, site if any(site) else None)
    others = [c for c in rows[0] if c not in RESERVED and c != outcome]
    return follow, pd.DataFrame([{c: r.get(c, "") for c in others} for r in rows], index=names, columns=others)


def _other(path: Path) -> pd.DataFrame:
    import pandas as pd

    rows = read_table(path, ["patient"])
    names = [r["patient"] for r in rows]
    if len(set(names)) < len(names):
        raise LabelsError(f"{path}: a patient is in more than one row; give one row for each")
    return pd.DataFrame([{k: v for k, v in r.items() if k != "patient"} for r in rows], index=names)


class _RunFeatures:
    """What a run found of its patients."""

    def __init__(self, run: Path) -> None:
        self.run = run
        try:
            with (run / "patients.csv").open(encoding="utf-8", newline="") as f:
                rows = list(csv.DictReader(f))
            job = json.loads((run / "run.json").read_bytes())["job"]
            self.models = {k: v["digest"] for k, v in job["models"].items()}
            self.counting = Counting.model_validate(job.get("counting", {}))
        except (OSError, ValueError, KeyError) as e:
            raise LabelsError(f"{run}: needs run.json and patients.csv of a run with a patient column ({e})") from e
        self.rows = {row["patient"].removeprefix("'"): row for row in rows}
        self._slides: dict[str, list[dict[str, str]]] | None = None

    def calls(self) -> dict[str, dict[str, str]]:
        """The class of each patient, by pipeline."""
        return {name: {p: row.get(f"{name}.call", "") for p, row in self.rows.items()} for name in self.models}

    def slides(self) -> dict[str, list[dict[str, str]]]:
        """The usable slides of each patient, as rows of slides.csv."""
        if self._slides is None:
            try:
                with (self.run / "slides.csv").open(encoding="utf-8", newline="") as f:
                    rows = [r for r in csv.DictReader(f) if r["status"] == "ok"]
            except (OSError, KeyError) as e:
                raise LabelsError(f"{self.run}: needs slides.csv of a run ({e})") from e
            self._slides = {}
            for row in rows:
                self._slides.setdefault(row["patient"].removeprefix("'"), []).append(row)
        return self._slides

    def stores(self, patient: str) -> list[SlideStore]:
        """The stores of a patient's usable slides."""
        return [SlideStore(self.run / "slides" / f"{row['slide_id']}.zarr") for row in self.slides().get(patient, [])]

    def table(self, wanted: Sequence[str]) -> pd.DataFrame:
        """Numbers of each patient by name, NaN where there is none."""
        import pandas as pd

        found: dict[str, dict[str, float]] = {}
        for patient, row in self.rows.items():
            models = {k: v for k, v in row.items() if k != "patient" and "reviewed_" not in k}  # what people said is not there of a new patient
            numbers = {k: parse_number(v) for k, v in models.items() if v}
            found[patient] = {k: v for k, v in numbers.items() if v is not None}
        flat = sorted({k for values in found.values() for k in values})
        deep = self._deep_names(wanted, flat)
        for patient, values in found.items():
            if deep:
                values |= together([measured(s, deep) for s in self.stores(patient)]).features
                values |= self._shares(patient, deep)
        names = _matching(wanted, [*flat, *deep])
        return pd.DataFrame([{n: v.get(n, np.nan) for n in names} for v in found.values()], index=list(found), columns=names, dtype=np.float64)

    def _deep_names(self, wanted: Sequence[str], flat: Sequence[str]) -> list[str]:
        """Names that are not in patients.csv, and have to be measured in the stores."""
        missing = [w for w in wanted if not fnmatch.filter(flat, w)]
        if not missing:
            return []
        first = next((s for patient in self.slides() for s in self.stores(patient)), None)
        if first is None:
            raise LabelsError(f"{self.run}: no slide of a patient could be used")
        shares = [f"{n}.share_{c}" for n, r in first.result["pipelines"].items() for c in r.get("tile_share", {})]
        return _matching(missing, [*all_names(first), *shares])

    def _shares(self, patient: str, names: Sequence[str]) -> dict[str, float]:
        """Shares of the tiles of all slides together that each class wins."""
        out = {}
        results = [s.result["pipelines"] for s in self.stores(patient)]
        for name in names:
            pipeline, _, kind = name.partition(".share_")
            answers = [r[pipeline] for r in results if kind and r.get(pipeline, {}).get("probability")]
            weight = sum(a["n_tiles"] for a in answers)
            if weight:
                out[name] = sum(a["n_tiles"] * a["tile_share"][kind] for a in answers) / weight
        return out


def _matching(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    out: dict[str, None] = {}
    for pattern in wanted:
        hits = [pattern] if pattern in known else fnmatch.filter(known, pattern)
        if not hits:
            raise LabelsError(f"the run has no feature '{pattern}'; there are, among others: {', '.join(list(known)[:12])}")
        out |= dict.fromkeys(hits)
    return list(out)


def _bags(found: _RunFeatures | None, pipeline: str, patients: Sequence[str]) -> list[np.ndarray]:
    if found is None:
        raise LabelsError("attention needs the tile features of a run; give its folder with --features")
    bags: list[Any] = []
    for patient in patients:
        parts = [b for b in (bag(s, pipeline) for s in found.stores(patient)) if len(b)]
        if not parts:
            raise LabelsError(f"patient {patient} has no tile of pipeline '{pipeline}'; leave the patient out of the labels, or score that pipeline")
        bags.append(np.concatenate(parts))
    return bags
