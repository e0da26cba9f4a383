"""CSV as spreadsheets of several countries save it is read alike; what could be another number than was meant is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsikit.errors import LabelsError
from wsikit.run.cases import find_cases
from wsikit.spreadsheet import read_rows


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "Fälle neu.csv"
    path.write_bytes(text.encode(encoding))
    return path


def read(folder: Path, text: str, encoding: str = "utf-8") -> list[dict[str, str]]:
    return [dict(row) for row in read_rows(write(folder, text, encoding))[1]]


EXPECTED = [{"path": "Präparat 1.svs", "mpp": "0,25", "patient": "P1"}, {"path": "b.svs", "mpp": "", "patient": "P2"}]


@pytest.mark.parametrize(
    "text",
    [
        'path,mpp,patient\nPräparat 1.svs,"0,25",P1\nb.svs,,P2\n',
        "\ufeffpath;mpp;patient\r\nPräparat 1.svs;0,25;P1\r\nb.svs;;P2\r\n",  # Excel in German: CSV UTF-8
        "path\tmpp\tpatient\nPräparat 1.svs\t0,25\tP1\nb.svs\t\tP2",
        "\ufeff path ;mpp;patient;;\r\nPräparat 1.svs; 0,25 ;P1;;\r\n;;;;\r\n\r\nb.svs;;P2;;\r\n;;;;\r\n",  # rows and columns that were deleted
        ',path,mpp,patient\n0,Präparat 1.svs,"0,25",P1\n1,b.svs,,P2\n',  # the index of a pandas table
    ],
)
def test_one_table_in_many_spellings(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == EXPECTED


def test_a_row_knows_its_line(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, 'path,note\n\n,,\na.svs,"two\nlines"\nb.svs,\n'))[1]
    assert [(row["path"], row.line) for row in rows] == [("a.svs", 5), ("b.svs", 6)]


@pytest.mark.parametrize(
    ("text", "encoding", "says"),
    [
        ("path;patient\nä.svs;P1\n", "cp1252", "it is not UTF-8.*Excel as 'CSV UTF-8'"),
        ("path,mpp\na.svs,1,5\n", "utf-8", "line 2 has more values.*with a comma in quotes"),
        ("path;note\na.svs;one; two\n", "utf-8", "line 2 has more values.*with a semicolon in quotes"),
        ("path,mpp,\na.svs,0,25\n", "utf-8", "line 2 has more values"),
        ("path,mpp,mpp\na.svs,0.25,0.5\n", "utf-8", "several columns 'mpp'"),
    ],
)
def test_what_may_be_misread_is_refused(tmp_path: Path, text: str, encoding: str, says: str) -> None:
    with pytest.raises(LabelsError, match=says) as caught:
        read_rows(write(tmp_path, text, encoding))
    assert "Fälle neu.csv" in str(caught.value)


def test_commas_are_decimals_between_semicolons(tmp_path: Path) -> None:
    (case,) = find_cases([write(tmp_path, "path;mpp\na.svs;1,09\n")])
    assert case.mpp == 1.09


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00", exclude_categories=("Cs",)), max_size=12)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]], separator: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *((f"x{a}", f"y{b}") for a, b in cells)])
    path = tmp_path_factory.getbasetemp() / "drawn.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    assert [tuple(row.values()) for row in read_rows(path)[1]] == [(f"x{a}".strip(), f"y{b}".strip()) for a, b in cells]
