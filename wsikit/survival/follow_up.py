"""Who was followed for how long, and what happened? Read with its unit and endpoint named, and checked before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsikit.errors import LabelsError
from wsikit.resolution import is_ambiguous, parse_number

if TYPE_CHECKING:
    import pandas as pd

DAYS_PER_MONTH = 365.25 / 12
MONTHS = {"time_days": 1 / DAYS_PER_MONTH, "time_weeks": 7 / DAYS_PER_MONTH, "time_months": 1.0, "time_years": 12.0}
RESERVED = frozenset([*MONTHS, "patient", "event", "competing", "endpoint", "site", "path", "slide", "slide_id", "mpp", "label", "split"])
MISSING = frozenset(["", "na", "nan", "n/a", "null", "none", "unknown", "[not available]", "[not evaluated]", "[unknown]", "[not applicable]"])
EVENTS_PER_VARIABLE = 10
MANY_TIES = 0.25


@dataclass(frozen=True)
class FollowUp:
    """Follow-up of n patients, one row each.

    Attributes
    ----------
    patient : str (n,)
    time_months : float64 (n,), from the endpoint's origin to the event or to the last time the patient was known without it
    event : bool (n,), the endpoint happened at that time
    endpoint : its name, such as OS or DSS
    competing : bool (n,), at that time something else happened that makes the endpoint impossible (death of another cause)
    site : str (n,), where the patient was treated; empty when not known

    Examples
    --------
    >>> f = FollowUp(np.array(["A", "B"]), np.array([12.0, 30.0]), np.array([True, False]), "OS")
    >>> len(f), f.take(np.array([1])).patient.tolist()
    (2, ['B'])
    """

    patient: np.ndarray
    time_months: np.ndarray
    event: np.ndarray
    endpoint: str
    competing: np.ndarray | None = None
    site: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.patient)

    def take(self, rows: np.ndarray) -> FollowUp:
        """These rows, in this order."""
        more = (None if v is None else v[rows] for v in (self.competing, self.site))
        return FollowUp(self.patient[rows], self.time_months[rows], self.event[rows], self.endpoint, *more)


def read_follow_up(path: Path, rows: Sequence[Mapping[str, str]], endpoint: str = "") -> tuple[FollowUp, pd.DataFrame]:
    """Follow-up from the rows of a CSV, and all its other columns as text by patient.

    Columns: ``patient``; ``time_days``, ``time_weeks``, ``time_months`` or ``time_years``; ``event`` (1 it happened, 0 censored); optionally
    ``competing`` (1 another event made the endpoint impossible at that time), ``endpoint`` (needed where ``endpoint`` is not given), ``site``.

    Raises
    ------
    LabelsError
        A column is missing or twofold, the endpoint is not named, a patient is there twice, or a value is not what its column holds.
    """
    import pandas as pd

    chosen, name = _of_endpoint(path, rows, endpoint)
    units = [c for c in MONTHS if c in chosen[0]]
    if len(units) != 1 or "patient" not in chosen[0] or "event" not in chosen[0]:
        raise LabelsError(f"{path}: needs the columns patient, event, and one of {', '.join(MONTHS)}, so that the unit of time is known")
    patients = [row["patient"] for row in chosen]
    if not all(patients):
        raise LabelsError(f"{path}: line {patients.index('') + 2}: patient must not be empty")
    if len(set(patients)) < len(patients):
        twice = next(p for i, p in enumerate(patients) if p in patients[:i])
        raise LabelsError(f"{path}: a patient is in more than one row: {twice}; give one time and event for each")
    time = np.array([_number(path, row, units[0]) for row in chosen]) * MONTHS[units[0]]
    event, competing = (np.array([_flag(path, row, c) for row in chosen]) for c in ("event", "competing"))
    if (event & competing).any():
        raise LabelsError(
            f"{path}: patient {patients[int((event & competing).argmax())]} has both the event and a competing one; what came first is what counts"
        )
    site = np.array([row.get("site", "") for row in chosen])
    follow = FollowUp(np.array(patients), time, event, name, competing if competing.any() else None, site if any(site) else None)
    others = [c for c in chosen[0] if c not in RESERVED]
    return follow, pd.DataFrame([{c: row.get(c, "") for c in others} for row in chosen], index=patients, columns=others)


def _of_endpoint(path: Path, rows: Sequence[Mapping[str, str]], endpoint: str) -> tuple[list[Mapping[str, str]], str]:
    named = sorted({row.get("endpoint", "") for row in rows} - {""})
    if not endpoint and len(named) != 1:
        there = f"the column 'endpoint' has {', '.join(named)}" if named else "there is no column 'endpoint'"
        raise LabelsError(f"{path}: of what is 'event' the event? {there}; name one with --endpoint, such as OS, DSS or RFS")
    if named and endpoint and endpoint not in named:
        raise LabelsError(f"{path}: no row has the endpoint '{endpoint}'; there are {', '.join(named)}")
    name = endpoint or named[0]
    return [row for row in rows if not named or row.get("endpoint", "") == name], name


def _number(path: Path, row: Mapping[str, str], column: str) -> float:
    value = parse_number(row[column])
    if value is None:
        unclear = "; a comma before three digits parts thousands to some and decimals to others: write it without" if is_ambiguous(row[column]) else ""
        raise LabelsError(f"{path}: {column} '{row[column]}' of patient {row['patient']} is not a number{unclear}")
    return value


def _flag(path: Path, row: Mapping[str, str], column: str) -> bool:
    value = row.get(column, "0" if column == "competing" else "")
    if value not in ("0", "1", "0.0", "1.0") and not (column == "competing" and value == ""):
        raise LabelsError(f"{path}: {column} '{value}' must be 1 (it happened) or 0 (censored); patient {row['patient']}")
    return value in ("1", "1.0")


def check_follow_up(follow: FollowUp, variables: int = 1) -> list[str]:
    """What is doubtful of this follow-up for a model of so many variables; sentences, for people.

    Raises
    ------
    LabelsError
        A time is not above 0, there are fewer than two events, or all are at one time: nothing could be fitted.
    """
    time, event = follow.time_months, follow.event
    if (bad := ~(np.isfinite(time) & (time > 0))).any():
        i = int(bad.argmax())
        raise LabelsError(f"survival times must be above 0 months; that of patient {follow.patient[i]} is {time[i]:g}: give all from the same origin")
    n = int(event.sum())
    if n < 2:
        raise LabelsError(f"{n} events; a Cox model needs at least two, and about ten per feature to mean anything")
    happened = np.sort(time[event])
    if happened[0] == happened[-1]:
        raise LabelsError(f"all {n} events are at {happened[0]:g} months: these are no times to an event; train a yes/no outcome instead (--outcome)")
    found = []
    if n < EVENTS_PER_VARIABLE * variables:
        found.append(
            f"{n} events for {variables} variables: {n / variables:.1f} per variable, {EVENTS_PER_VARIABLE} are the rule; coefficients will be unstable"
        )
    tied = n - len(np.unique(happened))
    if tied > MANY_TIES * n:
        found.append(f"{tied} of {n} events share their time with another: times seem to be rounded; ties are handled by Efron's approximation")
    if follow.competing is not None:
        found.append(f"{int(follow.competing.sum())} competing events are censored in the model of {follow.endpoint}: its survival is no cumulative incidence")
    return found


def check_columns(table: pd.DataFrame, follow: FollowUp) -> None:
    """Refuse columns that no coefficient can be estimated of.

    Parameters
    ----------
    table : numbers (n, F), NaN where missing, rows as in ``follow``

    Raises
    ------
    LabelsError
        A column is constant, a copy of another, or orders the events perfectly.
    """
    values = table.to_numpy(np.float64)
    for name, column in zip(table.columns, values.T, strict=True):
        known = column[~np.isnan(column)]
        if not len(known):
            raise LabelsError(f"feature {name} has no value for any patient; leave it out")
        if np.ptp(known) < 1e-12 * max(1.0, float(np.abs(known).max())):
            raise LabelsError(f"feature {name} is the same for every patient; leave it out")
        _check_separation(str(name), column, follow)
    for i, j in _alike(values):
        raise LabelsError(f"features {table.columns[j]} and {table.columns[i]} are copies of each other; leave one out")


def _alike(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of columns of which one follows exactly from the other by a line, where both are known."""
    filled = np.where(np.isnan(values), np.nanmean(values, 0), values)
    z = (filled - filled.mean(0)) / filled.std(0)
    for i, j in np.argwhere(np.tril(np.abs(z.T @ z) / len(z) > 0.99, -1)):
        both = ~np.isnan(values[:, [i, j]]).any(1)
        if both.sum() > 2 and abs(np.corrcoef(values[both, i], values[both, j])[0, 1]) > 1 - 1e-10:
            yield int(i), int(j)


def _check_separation(name: str, column: np.ndarray, follow: FollowUp) -> None:
    """A coefficient without a finite estimate: the column puts every patient with an event before (or after) all that were at risk then."""
    known = ~np.isnan(column)
    x, time, event = column[known], follow.time_months[known], follow.event[known]
    if not event.any():
        raise LabelsError(f"feature {name} is known only of patients without the event; leave it out")
    order = np.argsort(-time, kind="stable")
    x, time, event = x[order], time[order], event[order]
    last = np.searchsorted(-time, -time, side="right") - 1  # a patient at risk has at least this time
    highest, lowest = np.maximum.accumulate(x)[last], np.minimum.accumulate(x)[last]
    varies = (highest > lowest) & event
    if varies.any() and ((x == highest)[varies].all() or (x == lowest)[varies].all()):
        raise LabelsError(
            f"feature {name} separates perfectly: of all at risk, each event has the {'highest' if (x == highest)[varies].all() else 'lowest'} value, "
            "so its hazard ratio has no finite estimate; was it known before the event? leave it out, or merge its rare values"
        )


@dataclass(frozen=True)
class Joined:
    """Patients that are in every table, and how many are not.

    ``missing`` names, for each table, the patients that others have and it has not.
    """

    patients: list[str]
    missing: dict[str, list[str]]

    def sentences(self) -> list[str]:
        """What to tell people of those left out."""
        return [f"{len(who)} patients are left out, as {name} does not have them: {_some(who)}" for name, who in self.missing.items() if who]


def join_patients(**tables: Sequence[str]) -> Joined:
    """The patients of whom every table has a row; nobody is dropped without being named.

    Raises
    ------
    LabelsError
        None is in all tables.

    Examples
    --------
    >>> join_patients(labels=["A", "B"], features=["B", "C"]).sentences()[0]
    '1 patients are left out, as labels does not have them: C'
    """
    sets = {name: set(names) for name, names in tables.items()}
    both, either = set.intersection(*sets.values()), set.union(*sets.values())
    if not both:
        shown = "; ".join(f"{re.sub('_', ' ', name)}: {_some(sorted(s))}" for name, s in sets.items())
        raise LabelsError(f"none of its patients is in every table, so nothing joins ({shown}); patient names must be spelt alike")
    return Joined(sorted(both), {name: sorted(either - s) for name, s in sets.items()})


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
