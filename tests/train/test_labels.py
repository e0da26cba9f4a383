"""Labels: what is wrong is named by file and line, and no patient is ever on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import LabelsError
from wsikit.train.labels import Labelled, read_labels, split_by_patient
from wsikit.train.tasks import read_points

SLIDES = ("a.tif", "b.tif", "c.tif")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in SLIDES:
        (tmp_path / name).touch()
    return tmp_path


def table(folder: Path, *lines: str, header: str = "path,label,patient,mpp,split") -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_labels_are_read_with_paths_beside_the_csv(folder: Path) -> None:
    found = read_labels(table(folder, "a.tif,LMS,P1,,train", " b.tif , SS ,P2,0.25,val", f"{folder / 'c.tif'},SS,P3,,train"), ["LMS", "SS"])
    assert found == [
        Labelled(folder / "a.tif", "LMS", "P1", None, "train"),
        Labelled(folder / "b.tif", "SS", "P2", 0.25, "val"),
        Labelled(folder / "c.tif", "SS", "P3", None, "train"),
    ]


def test_spreadsheets_bytes_and_other_columns_do_not_matter(folder: Path) -> None:
    (folder / "labels.csv").write_bytes('\ufeffage,path,label,patient\r\n70,a.tif,"L,M",Müller\r\n'.encode())
    assert read_labels(folder / "labels.csv") == [Labelled(folder / "a.tif", "L,M", "Müller")]


WRONG = {
    "line 3: no slide at": ["a.tif,LMS,P1,,", "missing.tif,LMS,P2,,"],
    "line 2: no slide at": [",LMS,P1,,"],
    "line 2: label and patient": ["a.tif,,P1,,"],
    "line 4: label and patient": ["a.tif,LMS,P1,,", "b.tif,LMS,P2,,", "c.tif,LMS,,,"],
    "line 2: label 'lms' is none of LMS, SS": ["a.tif,lms,P1,,"],
    "line 2: split 'holdout' must be": ["a.tif,LMS,P1,,holdout"],
    "line 2: mpp 'half' is not a number": ["a.tif,LMS,P1,half,"],
    "patient P1 is in more than one split": ["a.tif,LMS,P1,,train", "b.tif,LMS,P1,,val"],
    "patient P2 is in more than one split": ["a.tif,LMS,P2,,train", "b.tif,LMS,P2,,", "c.tif,SS,P1,,train"],
    "is named twice": ["a.tif,LMS,P1,,train", "./a.tif,LMS,P2,,val"],
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_rows_are_named(folder: Path, words: str) -> None:
    with pytest.raises(LabelsError, match=words) as caught:
        read_labels(table(folder, *WRONG[words]), ["LMS", "SS"])
    assert "labels.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"path,label,patient\n", "but no rows"),
        (b"path,label\na.tif,LMS\n", r"missing: patient \(it has path, label\)"),
        (b"path|label|patient\na.tif|LMS|P1\n", "missing: path, label, patient"),
        (b"path,label,patient,mpp\na.tif,LMS,P1,1,5\n", "line 2 has more values"),
        (b"\xff\xfe\x00\x01", "cannot be read as CSV"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(LabelsError, match=words):
        read_labels(tmp_path / "labels.csv")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="cannot be read as CSV"):
        read_labels(tmp_path / "labels.csv")


@st.composite
def cohorts(draw: st.DrawFn) -> list[Labelled]:
    rows = draw(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ABC")), min_size=1, max_size=30))
    return [Labelled(Path(f"{n}.tif"), label, f"P{patient}") for n, (patient, label) in enumerate(rows)]


@settings(max_examples=150, deadline=None)
@given(cohorts(), st.integers(0, 5), st.sampled_from([0.1, 0.2, 0.5]))
def test_no_patient_is_ever_on_both_sides(items: list[Labelled], seed: int, share: float) -> None:
    try:
        train, val = split_by_patient(items, share, seed)
    except LabelsError:
        assert len({i.label for i in items}) > 1 or len({i.patient for i in items}) < 2, "two patients of one class can always be parted"
        return
    assert train
    assert val
    assert not {i.patient for i in train} & {i.patient for i in val}
    assert sorted(i.path for i in [*train, *val]) == sorted(i.path for i in items)
    assert split_by_patient(items, share, seed) == (train, val)


def test_a_share_of_each_classs_patients_is_held_out() -> None:
    items = [Labelled(Path(f"{n}.tif"), "AB"[n % 2], f"P{n // 2:02d}{'AB'[n % 2]}") for n in range(60)]
    held = []
    for seed in range(5):
        _, val = split_by_patient(items, 0.2, seed)
        assert [sum(i.label == c for i in val) for c in "AB"] == [6, 6]
        held.append(frozenset(i.patient for i in val))
    assert len(set(held)) == 5, "another seed, another split"


def test_patients_of_several_classes_are_not_held_out_twice_as_often() -> None:
    """All 30 have tiles of both: a fifth of each class's patients is a fifth of the patients."""
    items = [Labelled(Path(f"{n}.tif"), "AB"[n % 2], f"P{n // 2:02d}") for n in range(60)]
    _, val = split_by_patient(items, 0.2)
    assert (len({i.patient for i in val}), len(val)) == (6, 12)


def test_the_csvs_own_split_is_taken() -> None:
    items = [Labelled(Path(f"{n}.tif"), "A", f"P{n}", split="val" if n == 3 else "train") for n in range(5)]
    train, val = split_by_patient(items)
    assert ([i.patient for i in train], [i.patient for i in val]) == (["P0", "P1", "P2", "P4"], ["P3"])


def test_one_patient_cannot_be_split() -> None:
    with pytest.raises(LabelsError, match="too few patients"):
        split_by_patient([Labelled(Path("a"), "A", "P"), Labelled(Path("b"), "B", "P")])


POINTS = "path,patient,x,y,label,split,mpp"


def test_points_are_gathered_by_slide(folder: Path) -> None:
    lines = ["a.tif,P1,10,20.5,mitosis,,0.25", "b.tif,P2,,,,,", "a.tif,P1,30,40,lookalike,,0.25", "a.tif,P1,5,6,mitosis,,0.25"]
    a, b = read_points(table(folder, *lines, header=POINTS))
    assert a.item == Labelled(folder / "a.tif", "mitosis", "P1", 0.25)
    assert a.objects.tolist() == [[10, 20.5], [5, 6]]
    assert a.lookalikes.tolist() == [[30, 40]]
    assert (b.item.patient, b.objects.shape, b.lookalikes.shape) == ("P2", (0, 2), (0, 2))
    assert b.objects.dtype == np.float64


WRONG_POINTS = {
    "no slide at": ["missing.tif,P1,1,2,mitosis,,"],
    "label 'mitose' of a.tif is neither": ["a.tif,P1,1,2,mitose,,"],
    "x 'left' is not a number": ["a.tif,P1,left,2,mitosis,,"],
    "y '' is not a number": ["a.tif,P1,1,,mitosis,,"],
    "x '' is not a number": ["a.tif,P1,,1,mitosis,,"],
    "x 'nan' is not a number": ["a.tif,P1,nan,2,mitosis,,"],
    "mpp 'x' is not a number": ["a.tif,P1,1,2,mitosis,,x"],
    "rows of a.tif must name one patient": ["a.tif,P1,1,2,mitosis,,", "a.tif,P2,3,4,mitosis,,"],
    "the same split": ["a.tif,P1,1,2,mitosis,train,", "a.tif,P1,3,4,mitosis,val,"],
    "must name one": ["a.tif,,1,2,mitosis,,"],
    "must be train, val or test": ["a.tif,P1,1,2,mitosis,tests,"],
    "patient P1 is in more than one split": ["a.tif,P1,1,2,mitosis,train,", "b.tif,P1,3,4,mitosis,val,"],
    "is named twice": ["a.tif,P1,1,2,mitosis,,", "./a.tif,P2,3,4,mitosis,,"],
}


@pytest.mark.parametrize("words", WRONG_POINTS)
def test_wrong_points_are_named(folder: Path, words: str) -> None:
    with pytest.raises(LabelsError, match=words):
        read_points(table(folder, *WRONG_POINTS[words], header=POINTS))
