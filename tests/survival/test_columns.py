"""Columns as numbers: nothing is learnt from patients that were not trained on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import KNNImputer

from wsikit.errors import LabelsError
from wsikit.survival.columns import fit_encoder, is_category, read_columns


def text(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=[f"P{i}" for i in range(len(next(iter(columns.values()))))])


def test_columns_are_numbers_or_kinds() -> None:
    table = read_columns(text(age=["50", "", "61.5"], depth=["deep", "[Not Available]", "superficial"], note=["x", "y", "z"]), ["age", "depth"])
    assert list(table) == ["age", "depth"]
    assert (is_category(table["age"]), is_category(table["depth"])) == (False, True)
    assert table["age"].tolist() == pytest.approx([50, np.nan, 61.5], nan_ok=True)
    assert table["depth"].isna().tolist() == [False, True, False]


def test_columns_that_are_no_variables_are_refused() -> None:
    with pytest.raises(LabelsError, match="no column is called grade; there are age"):
        read_columns(text(age=["1"]), ["grade"])
    with pytest.raises(LabelsError, match="column age has no value"):
        read_columns(text(age=["", "NA"]))
    with pytest.raises(LabelsError, match="column note is text of 12 kinds"):
        read_columns(text(note=[f"free text {i}" for i in range(12)]))


def mixed(n: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    size = rng.gamma(2, 3, n)
    age = 60 + 2 * size + rng.normal(0, 3, n)
    age[::7] = np.nan
    depth = np.where(rng.uniform(size=n) < 0.7, "deep", "superficial").astype(object)
    depth[3] = None
    return pd.DataFrame({"age": age, "size": size, "depth": depth})


def test_gaps_are_filled_by_the_nearest_training_patients() -> None:
    table = mixed()
    encoder = fit_encoder(table, log1p=["size"])
    assert encoder.names == ["age", "size", "depth=superficial", "age missing", "depth missing"]
    z = encoder.transform(table)
    assert np.isfinite(z).all()
    raw = encoder.raw(table)
    assert raw[:, 1] == pytest.approx(np.log1p(table["size"]))
    known = ~np.isnan(raw[:, 0])
    assert z[known, 0] == pytest.approx((raw[known, 0] - np.nanmean(raw[:, 0])) / np.nanstd(raw[:, 0]))
    standard = (raw - np.nanmean(raw, 0)) / np.nanstd(raw, 0)
    assert z == pytest.approx(KNNImputer(n_neighbors=5).fit_transform(standard))
    assert (z[:, 3] > 0).tolist() == table["age"].isna().tolist()


def test_a_patient_does_not_change_how_others_are_coded() -> None:
    """Leakage: with any test patients, whatever their values, the training patients' coding and a third patient's are the same."""
    table, other = mixed(), mixed(5, seed=1)
    encoder = fit_encoder(table)
    wild = pd.DataFrame({"age": [9e9], "size": [1e6], "depth": ["deep"]})
    alone = encoder.transform(other)
    assert encoder.transform(pd.concat([other, wild]))[:5] == pytest.approx(alone)
    assert encoder.mean[0] == pytest.approx(np.nanmean(table["age"]))


def test_a_kind_that_was_never_seen_is_missing_and_not_the_reference() -> None:
    encoder = fit_encoder(mixed())
    row = encoder.raw(pd.DataFrame({"age": [60.0], "size": [5.0], "depth": ["intermuscular"]}))
    assert np.isnan(row[0, 2])
    assert np.isfinite(encoder.transform(pd.DataFrame({"age": [60.0], "size": [5.0], "depth": ["intermuscular"]}))).all()


def test_what_is_mostly_missing_or_constant_is_left_out_and_said() -> None:
    table = mixed().assign(grade=[1.0, 2.0] + [np.nan] * 38, centre="A")
    encoder = fit_encoder(table)
    assert encoder.left_out == {"grade": "95% of its values are missing"}
    assert not any(n.startswith(("grade", "centre")) for n in encoder.names)
    still = fit_encoder(mixed().assign(same=3.0))
    assert still.left_out == {"same": "it does not vary among the training patients"}
