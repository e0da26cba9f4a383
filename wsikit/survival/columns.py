"""Clinical columns and features as numbers: categories coded, gaps imputed, all on one scale. What it knows, it knows from its training patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsikit.errors import LabelsError
from wsikit.resolution import is_ambiguous, parse_number
from wsikit.survival.follow_up import MISSING

if TYPE_CHECKING:
    import pandas as pd

MOST_LEVELS = 10
MOST_MISSING = 0.4
NEIGHBOURS = 5


def read_columns(text: pd.DataFrame, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Columns of text as numbers (float64, NaN where missing) or categories (str, None where missing), by what they hold.

    Parameters
    ----------
    text : str, rows by patient
    names : the wanted columns; all by default

    Raises
    ------
    LabelsError
        A column is not there, holds no value, or is text of more than ten kinds.
    """
    import pandas as pd

    if lost := [n for n in names or () if n not in text]:
        raise LabelsError(f"no column is called {lost[0]}; there are {', '.join(map(str, text)) or '(none)'}")
    found: dict[str, Any] = {}
    for name in names if names is not None else text.columns:
        values = [None if str(v).strip().lower() in MISSING else str(v).strip() for v in text[name]]
        numbers = [None if v is None else parse_number(v) for v in values]
        known = {v for v in values if v is not None}
        if unclear := next((v for v in values if is_ambiguous(v)), None):
            raise LabelsError(f"column {name}: '{unclear}' is {unclear.replace(',', '')} to some and {unclear.replace(',', '.')} to others; write one of these")
        if not known:
            raise LabelsError(f"column {name} has no value for any patient; leave it out")
        if all((v is None) == (n is None) for v, n in zip(values, numbers, strict=True)):
            found[name] = np.array([np.nan if n is None else n for n in numbers], np.float64)
        elif len(known) > MOST_LEVELS:
            raise LabelsError(f"column {name} is text of {len(known)} kinds, {MOST_LEVELS} at most are coded; choose the wanted columns with --clinical NAME")
        else:
            found[name] = np.array(values, object)
    return pd.DataFrame(found, index=text.index)


def is_category(column: pd.Series) -> bool:
    """Whether a column of `read_columns` holds kinds and not numbers."""
    return column.dtype == object


@dataclass(frozen=True)
class Encoder:
    """From columns to standardised numbers.

    A category becomes one column ``name=level`` of 0 and 1 for each level but the most frequent. Numbers in ``log1p`` enter as log(1 + x). Where values
    were missing, a column ``name missing`` says so (0, 1), and the gap is filled by the mean of the five nearest training patients (Euclidean
    over the standardised columns that both have; Troyanskaya et al. 2001). Columns of which more than 40 % are missing, and those that
    do not vary among the training patients, are left out, and ``left_out`` says why.

    Attributes
    ----------
    names : of the coded columns
    mean, sd : float64 (F,), of the training patients
    """

    columns: list[str]
    levels: dict[str, list[str]]
    log1p: list[str]
    indicators: list[str]
    names: list[str]
    mean: np.ndarray
    sd: np.ndarray
    left_out: dict[str, str]
    _imputer: Any = None

    def raw(self, table: pd.DataFrame) -> np.ndarray:
        """The coded columns before scaling, NaN where missing: float64 (n, F)."""
        return coded(table[self.columns], self.levels, self.log1p, self.indicators).reindex(columns=self.names).to_numpy(np.float64)

    def transform(self, table: pd.DataFrame) -> np.ndarray:
        """Standardised and without gaps: float64 (n, F)."""
        z = (self.raw(table) - self.mean) / self.sd
        return np.asarray(self._imputer.transform(z)) if self._imputer is not None and z.size else z


def coded(table: pd.DataFrame, levels: Mapping[str, Sequence[str]], log1p: Sequence[str], indicators: Sequence[str]) -> pd.DataFrame:
    """Columns as numbers; a level that is not in ``levels`` is missing."""
    import pandas as pd

    out: dict[str, np.ndarray] = {}
    for name in table.columns:
        if name in levels:
            known = table[str(name)].isin(levels[name]).to_numpy()
            out |= {f"{name}={level}": np.where(known, (table[name] == level).to_numpy(float), np.nan) for level in levels[name][1:]}
        else:
            values = table[str(name)].to_numpy(np.float64)
            out[str(name)] = np.log1p(values) if name in log1p else values
    for name in indicators:
        out[f"{name} missing"] = table[name].isna().to_numpy(float)
    return pd.DataFrame(out, index=table.index)


def fit_encoder(table: pd.DataFrame, log1p: Sequence[str] = ()) -> Encoder:
    """An encoder that knows these patients and no others.

    Examples
    --------
    >>> import pandas as pd
    >>> e = fit_encoder(pd.DataFrame({"age": [50.0, 60, 70, float("nan")], "depth": ["deep", "deep", "superficial", "deep"]}))
    >>> e.names
    ['age', 'depth=superficial', 'age missing']
    >>> bool((abs(e.transform(pd.DataFrame({"age": [60.0], "depth": ["deep"]}))[0, 0]) < 1e-12))
    True
    """
    from sklearn.impute import KNNImputer

    missing = table.isna().mean()
    left_out = {str(c): f"{m:.0%} of its values are missing" for c, m in missing.items() if m > MOST_MISSING}
    kept = table.drop(columns=list(left_out))
    columns = [str(c) for c in kept.columns]
    levels = {c: _levels(kept[c]) for c in columns if is_category(kept[c])}
    indicators = [c for c in columns if missing[c] > 0]
    numbers = coded(kept, levels, log1p, indicators)
    x = numbers.to_numpy(np.float64)
    mean, sd = np.nanmean(x, 0), np.nanstd(x, 0)
    varies = sd > 1e-12
    left_out |= {str(c): "it does not vary among the training patients" for c in numbers.columns[~varies]}
    imputer = KNNImputer(n_neighbors=NEIGHBOURS).fit((x[:, varies] - mean[varies]) / sd[varies]) if varies.any() else None
    names = [str(c) for c in numbers.columns[varies]]
    return Encoder(columns, levels, list(log1p), indicators, names, mean[varies], sd[varies], left_out, imputer)


def _levels(column: pd.Series) -> list[str]:
    """The most frequent first, which is the reference; the others by name."""
    counts = column.value_counts()
    first = min(counts.index[counts == counts.max()])
    return [first, *sorted(v for v in counts.index if v != first)]
