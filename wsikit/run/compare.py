"""Why do two runs differ? What went into each beside the other, and then which slides' results moved, and by how much."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wsikit.errors import StoreMismatchError
from wsikit.run.job import read_run
from wsikit.run.results import TABLES

_APART = ("models", "slides")  # of a job; these have lines of their own


class Cause(NamedTuple):
    """Something that went into the runs and is not the same: ``kind`` is input, model, parameter, software or machine; None where it is missing."""

    kind: str
    name: str
    a: Any
    b: Any


class Moved(NamedTuple):
    """A column of ``slides.csv`` that is not the same for a slide; ``by`` is b − a where both are numbers."""

    slide_id: str
    column: str
    a: str | None
    b: str | None
    by: float | None


def causes(a: Path, b: Path) -> Iterator[Cause]:
    """All that went into the two runs and differs.

    Raises
    ------
    StoreMismatchError, DamagedStoreError
        A folder holds no run, or its ``run.json`` is damaged.
    """
    one, other = read_run(a), read_run(b)
    yield from _differences("input", _inputs(one), _inputs(other))
    models = [{name: f"{ref['name']} {ref['digest'][:12]}" for name, ref in run["job"]["models"].items()} for run in (one, other)]
    yield from _differences("model", *models)
    yield from _differences("parameter", *(_flat({k: v for k, v in run["job"].items() if k not in _APART}) for run in (one, other)))
    yield from _differences("software", *({"wsikit": run["wsikit"], **run["software"]} for run in (one, other)))
    yield from _differences("machine", one["machine"], other["machine"])


def moved(a: Path, b: Path) -> Iterator[Moved]:
    """What came out otherwise, slide by slide, column by column; paths aside.

    Raises
    ------
    StoreMismatchError
        A run has no table of slides yet.
    """
    one, other = _rows(a), _rows(b)
    for slide_id in sorted(one.keys() | other.keys()):
        was, now = one.get(slide_id, {}), other.get(slide_id, {})
        for column in dict.fromkeys([*was, *now]):
            if column != "path" and was.get(column) != now.get(column):
                yield Moved(slide_id, column, was.get(column), now.get(column), _step(was.get(column), now.get(column)))


def _inputs(run: Mapping[str, Any]) -> dict[str, str]:
    """What is known of each slide: the digest of its bytes, and an mpp given for it. Where it lay does not matter."""
    digests = run.get("slide_digests", {})
    return {c["slide_id"]: f"{digests.get(c['slide_id'], 'not read')[:16]}{f', mpp {m:g}' if (m := c['mpp']) else ''}" for c in run["job"]["slides"]}


def _flat(values: Mapping[str, Any], lead: str = "") -> dict[str, Any]:
    """Nested values by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{lead}{name}.") if isinstance(value, Mapping) else {f"{lead}{name}": value}
    return found


def _differences(kind: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Cause]:
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            yield Cause(kind, name, a.get(name), b.get(name))


def _rows(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / TABLES[0]
    if not path.is_file():
        raise StoreMismatchError(f"{path}: not there, so there is nothing to compare; let the run finish first")
    with path.open(encoding="utf-8", newline="") as f:
        return {row["slide_id"]: row for row in csv.DictReader(f)}


def _step(a: str | None, b: str | None) -> float | None:
    try:
        return float(b or "") - float(a or "")
    except ValueError:
        return None
