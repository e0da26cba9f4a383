"""Follow-up that cannot be used is refused before anything is trained, by name and with what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wsikit.errors import LabelsError
from wsikit.survival.columns import read_columns
from wsikit.survival.follow_up import FollowUp, check_columns, check_follow_up, join_patients, read_follow_up

FILE = Path("labels.csv")


def rows(*lines: str, header: str = "patient,time_months,event") -> list[dict[str, str]]:
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


def test_the_unit_is_in_the_columns_name() -> None:
    for unit, value in (("days", "730.5"), ("weeks", "104.357142857"), ("months", "24"), ("years", "2")):
        follow, _ = read_follow_up(FILE, rows(f"A,{value},1", header=f"patient,time_{unit},event"), "OS")
        assert follow.time_months[0] == pytest.approx(24.0), unit


def test_a_number_that_is_a_thousand_times_larger_to_some_is_refused() -> None:
    """1,234 days are three years, or one day."""
    ambiguous = [{"patient": "A", "time_days": "1,234", "event": "1"}]
    with pytest.raises(LabelsError, match="'1,234' of patient A is not a number; a comma before three digits"):
        read_follow_up(FILE, ambiguous, "OS")
    assert read_follow_up(FILE, [{"patient": "A", "time_days": "1234,5", "event": "1"}], "OS")[0].time_months[0] == pytest.approx(1234.5 / 365.25 * 12)
    with pytest.raises(LabelsError, match=r"column volume: '1,234' is 1234 to some and 1\.234 to others"):
        read_columns(pd.DataFrame({"volume": ["987", "1,234"]}))


def test_other_columns_are_kept_by_patient() -> None:
    header = "patient,time_months,event,competing,site,age,depth"
    follow, others = read_follow_up(FILE, rows("B,12,0,1,X,60,deep", "A,24,1,0,Y,,superficial", header=header), "DSS")
    assert (follow.endpoint, follow.patient.tolist(), follow.event.tolist()) == ("DSS", ["B", "A"], [False, True])
    assert follow.competing is not None
    assert follow.site is not None
    assert (follow.competing.tolist(), follow.site.tolist()) == ([True, False], ["X", "Y"])
    assert others.loc["A"].to_dict() == {"age": "", "depth": "superficial"}


def test_rows_of_the_endpoint_are_taken() -> None:
    both = rows("A,12,1,RFS", "A,24,0,OS", "B,6,1,RFS", "B,8,1,OS", header="patient,time_months,event,endpoint")
    follow, _ = read_follow_up(FILE, both, "OS")
    assert (follow.time_months.tolist(), follow.endpoint) == ([24, 8], "OS")
    only, _ = read_follow_up(FILE, both[::2])
    assert only.endpoint == "RFS"


@pytest.mark.parametrize(
    ("table", "endpoint", "words"),
    [
        (rows("A,1,1"), "", "of what is 'event' the event"),
        (rows("A,1,1,OS", "A,1,1,RFS", header="patient,time_months,event,endpoint"), "", "the column 'endpoint' has OS, RFS"),
        (rows("A,1,1,OS", header="patient,time_months,event,endpoint"), "DSS", "no row has the endpoint 'DSS'; there are OS"),
        (rows("A,1,1", header="patient,time,event"), "OS", "so that the unit of time is known"),
        (rows("A,1,1,1", header="patient,time_months,time_days,event"), "OS", "one of time_days"),
        (rows("A,1,1", "B,2,1", "A,3,0"), "OS", "a patient is in more than one row: A"),
        (rows("A,1,1", ",2,1"), "OS", "line 3: patient must not be empty"),
        (rows("A,one,1"), "OS", "time_months 'one' of patient A is not a number"),
        (rows("A,1,2"), "OS", r"event '2' must be 1 .*; patient A"),
        (rows("A,1,1,1", header="patient,time_months,event,competing"), "OS", "patient A has both the event and a competing one"),
        (rows("A,1,1,dead", header="patient,time_months,event,competing"), "OS", "competing 'dead' must be 1"),
    ],
)
def test_unreadable_follow_up_is_refused(table: list[dict[str, str]], endpoint: str, words: str) -> None:
    with pytest.raises(LabelsError, match=words):
        read_follow_up(FILE, table, endpoint)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time_months": 0.0}, "above 0 months; that of patient P000 is 0"),
        ({"time_months": -3.0}, "is -3"),
        ({"time_months": np.nan}, "is nan"),
        ({"time_months": np.inf}, "is inf"),
    ],
)
def test_impossible_times_are_refused(train: FollowUp, change: dict[str, float], words: str) -> None:
    time = np.r_[change["time_months"], train.time_months[1:]]
    with pytest.raises(LabelsError, match=words):
        check_follow_up(replace(train, time_months=time))


def test_too_few_events_are_refused(train: FollowUp) -> None:
    with pytest.raises(LabelsError, match=r"^0 events"):
        check_follow_up(replace(train, event=np.zeros(len(train), bool)))
    with pytest.raises(LabelsError, match=r"^1 events"):
        check_follow_up(replace(train, event=np.arange(len(train)) == 7))
    with pytest.raises(LabelsError, match=r"all 220 events are at 60 months.*--outcome"):
        check_follow_up(replace(train, time_months=np.full(220, 60.0), event=np.ones(220, bool)))


def test_doubts_are_said(train: FollowUp) -> None:
    assert check_follow_up(train, 2) == []
    (few,) = check_follow_up(train, 40)
    assert "variables" in few
    (ties,) = check_follow_up(replace(train, time_months=np.ceil(train.time_months / 12) * 12), 2)
    assert "share their time" in ties
    (competing,) = check_follow_up(replace(train, competing=~train.event), 2)
    assert "no cumulative incidence" in competing


def table(train: FollowUp, **columns: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"noise": np.random.default_rng(0).normal(size=len(train)), **columns})


def test_columns_without_an_estimate_are_refused(train: FollowUp) -> None:
    n = len(train)
    noise = table(train)["noise"].to_numpy()
    check_columns(table(train, other=np.where(np.arange(n) % 4 == 0, np.nan, noise[::-1])), train)
    wrong = {
        "x is the same for every patient": np.full(n, 3.0),
        "x has no value for any patient": np.full(n, np.nan),
        "noise and x are copies": -2 * noise + 5,
        "x separates perfectly: .* highest": -train.time_months,
        "x separates perfectly: .* lowest": np.where(train.event, 0.0, 1.0),
        "x is known only of patients without the event": np.where(train.event, np.nan, noise**2),
    }
    for words, column in wrong.items():
        with pytest.raises(LabelsError, match=words):
            check_columns(table(train, x=column), train)


def test_a_rare_value_that_nobody_died_with_is_separation(train: FollowUp) -> None:
    rare = np.zeros(len(train))
    rare[np.flatnonzero(~train.event)[:6]] = 1
    with pytest.raises(LabelsError, match="merge its rare values"):
        check_columns(table(train, x=rare), train)


def test_nobody_is_dropped_unnamed() -> None:
    joined = join_patients(labels=["A", "B", "C"], features=["B", "C", "D"], radiomics=["B", "C", "A"])
    assert joined.patients == ["B", "C"]
    assert joined.missing == {"labels": ["D"], "features": ["A"], "radiomics": ["D"]}
    assert joined.sentences()[1] == "1 patients are left out, as features does not have them: A"
    with pytest.raises(LabelsError, match=r"none of its patients is in every table.*labels: A; features: a"):
        join_patients(labels=["A"], features=["a"])
    assert len(join_patients(labels=[str(i) for i in range(20)], features=["0"]).sentences()[0]) < 120
