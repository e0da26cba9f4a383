"""Files, folders and CSVs become cases: in order, each with its own safe id, wrong ones named by line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import LabelsError, SlideNotFoundError, UsageError
from wsikit.run.cases import Case, find_cases, safe_id


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return paths


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "cases.csv"
    path.write_bytes(text.encode(encoding))
    return path


def ids(cases: list[Case]) -> list[str]:
    return [case.slide_id for case in cases]


def test_files_keep_their_order(tmp_path: Path) -> None:
    paths = touch(tmp_path, "b.svs", "a.tif", "c.ome.tiff", "noext")
    cases = find_cases(paths)
    assert ids(cases) == ["b", "a", "c", "noext"]
    assert [case.path for case in cases] == [str(p) for p in paths]
    assert all(case.mpp is None and case.patient == "" and case.extra == {} for case in cases)


def test_folders_are_searched_through(tmp_path: Path) -> None:
    touch(tmp_path, "z.svs", "sub/a.SVS", "sub/deep/b.tiff", "notes.txt", "table.csv", "sub/x.json", "out.zarr/0.png", "x.parts/1.png")
    assert ids(find_cases([tmp_path])) == ["a", "b", "z"]


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    """A Mac leaves ._a.svs beside a.svs; it would take the slide's id."""
    touch(tmp_path, "a.svs", "._a.svs", ".cache/b.svs")
    cases = find_cases([tmp_path])
    assert [(case.slide_id, Path(case.path).name) for case in cases] == [("a", "a.svs")]


def test_the_data_folder_of_a_mirax_slide_is_no_slide(tmp_path: Path) -> None:
    touch(tmp_path, "a.mrxs", "a/Data0001.png", "b/c.png")
    assert ids(find_cases([tmp_path])) == ["a", "c"]


def test_an_earlier_run_is_not_searched(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs", "run/run.json", "run/slides/a.png", "run/reports/b.png")
    assert ids(find_cases([tmp_path])) == ["a"]


@pytest.mark.timeout(30)
def test_links_in_a_circle_end(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs", "sub/b.svs")
    for where in ("loop", "again", "sub/up", "sub/self"):
        (tmp_path / where).symlink_to(tmp_path if where != "sub/self" else tmp_path / "sub", target_is_directory=True)
    assert ids(find_cases([tmp_path])) == ["a", "b"]


def test_dicom_by_folder(tmp_path: Path) -> None:
    """Files of no known series are slides of their own, and fail by name later."""
    touch(tmp_path, "d/one.dcm", "d/two.dcm")
    assert ids(find_cases([tmp_path])) == ["one", "two"]


def test_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no slides were given"):
        find_cases([])
    with pytest.raises(UsageError, match=r"no slides in this folder; known are .*\.svs"):
        find_cases([tmp_path])
    with pytest.raises(SlideNotFoundError, match=r"gone\.svs: no such file"):
        find_cases([tmp_path / "gone.svs"])
    with pytest.raises(SlideNotFoundError, match=r"gone\.csv"):
        find_cases([tmp_path / "gone.csv"])


def test_equal_names_get_their_own_ids(tmp_path: Path) -> None:
    paths = touch(tmp_path, "x/a.svs", "y/a.svs", "z/A.tif", "z/a-2.svs", "w/a.ome.tif")
    assert ids(find_cases(paths)) == ["a", "a-2", "A-3", "a-2-2", "a-4"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12), min_size=1, max_size=12))
def test_ids_are_unique_on_every_file_system(names: list[str]) -> None:
    from wsikit.run.cases import _with_ids

    found = ids(_with_ids({"path": Path("x.svs"), "slide_id": name} for name in names))
    assert len({i.lower() for i in found}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", i) for i in found)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_an_id_is_one_path_component(text: str) -> None:
    found = safe_id(text)
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", found)
    assert len(found) <= 80
    assert safe_id(found) == found


WEIRD = {
    "S12-345 A1.svs": "S12-345_A1",
    "=cmd.svs": "cmd",
    "Präparat 1.svs": "Praparat_1",
    "Pra\u0308parat 1.svs": "Praparat_1",  # as a Mac writes it
    "切片.svs": "slide",
    "..svs": "slide",
    "a b;c$(d).tif": "a_b_c_d",
    "x.y.svs": "x.y",
    "new\nline.svs": "new_line",
}


@pytest.mark.parametrize("name", WEIRD)
def test_weird_names(name: str, tmp_path: Path) -> None:
    (case,) = find_cases(touch(tmp_path, name))
    assert case.slide_id == WEIRD[name]
    assert case.path == str(tmp_path / name)


def test_csv_columns(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs")
    path = write(tmp_path, 'path,mpp,patient,slide_id,centre,subtype\na.svs,"0,25",P1,first one,Bonn,LMS\n/else/b.svs,,P2,,,\n')
    a, b = find_cases([path])
    assert (a.path, a.mpp, a.mpp_source, a.patient, a.slide_id) == (str(tmp_path / "a.svs"), 0.25, "csv", "P1", "first_one")
    assert a.extra == {"centre": "Bonn", "subtype": "LMS"}
    assert (b.path, b.mpp, b.patient, b.slide_id) == ("/else/b.svs", None, "P2", "b")
    assert b.extra == {"centre": "", "subtype": ""}


def test_csv_as_spreadsheets_save_it(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffslide,mpp\r\n a.svs , 0.5 \r\n\r\nb.svs\r\n")
    cases = find_cases([path])
    assert [(Path(c.path).name, c.mpp) for c in cases] == [("a.svs", 0.5), ("b.svs", None)]


def test_missing_slides_of_a_csv_are_kept_to_fail_by_name(tmp_path: Path) -> None:
    assert ids(find_cases([write(tmp_path, "path\nnowhere.svs\n")])) == ["nowhere"]


@pytest.mark.parametrize(
    ("text", "encoding", "says"),
    [
        ("", "utf-8", "no slides in it"),
        ("path\n", "utf-8", "no slides in it"),
        ("file,mpp\na.svs,1\n", "utf-8", "no column 'path' among its columns file, mpp"),
        ("path|mpp\na.svs|1\n", "utf-8", r"no column 'path' among its columns path\|mpp"),
        ("path\nä.svs\n", "latin-1", "cannot be read as CSV.*UTF-8"),
        ("path\na.svs\n", "utf-16", "cannot be read as CSV.*UTF-8"),
        ("path,mpp\n\n\na.svs,half\n", "utf-8", "line 4: mpp 'half' is not a number"),
        ("path,mpp\na.svs,nan\n", "utf-8", "line 2: mpp 'nan' is not a number"),
        ("path,mpp\na.svs,1_0\n", "utf-8", "line 2: mpp '1_0' is not a number"),
        ("path,mpp\na.svs,1,5\n", "utf-8", "line 2 has more values than the header.*quotes"),
        ("path,mpp\n,0.5\n", "utf-8", "line 2 has no path"),
        ("path,mpp,mpp\na.svs,0.25,0.5\n", "utf-8", "several columns 'mpp'"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused_by_line(text: str, encoding: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=says) as caught:
        find_cases([write(tmp_path, text, encoding)])
    assert "cases.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_holds_where_the_csv_says_nothing(tmp_path: Path) -> None:
    (slide,) = touch(tmp_path, "c.svs")
    cases = find_cases([write(tmp_path, "path,mpp\na.svs,0.25\nb.svs,\n"), slide], mpp_override=0.5)
    assert [(c.mpp, c.mpp_source) for c in cases] == [(0.25, "csv"), (0.5, "override"), (0.5, "override")]


def test_an_mpp_no_slide_has_is_the_slides_to_refuse(tmp_path: Path) -> None:
    """One impossible number must not stop the other slides; the slide itself fails and says why."""
    from wsikit.slide import Slide

    np.save(tmp_path / "a.npy", np.zeros((8, 8, 3), np.uint8))
    (case,) = find_cases([write(tmp_path, "path,mpp\na.npy,1e308\n")])
    slide = Slide(case.path, mpp=case.mpp, mpp_source=case.mpp_source)
    assert slide.mpp is None
    assert "csv" in slide.mpp_refusal


def test_a_slide_named_twice_is_one_case(tmp_path: Path) -> None:
    """Scored twice, it would count double for its patient."""
    (tmp_path / "a.svs").touch()
    (tmp_path / "link.svs").symlink_to(tmp_path / "a.svs")
    (tmp_path / "cases.csv").write_text("path,patient\na.svs,p1\n./a.svs,p1\n")
    assert [c.slide_id for c in find_cases([tmp_path / "cases.csv"])] == ["a"]
    assert [c.slide_id for c in find_cases([tmp_path / "a.svs", tmp_path])] == ["a"]


def test_what_is_said_of_a_slide_must_not_differ_nor_get_lost(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    (tmp_path / "cases.csv").write_text("path,patient,age\na.svs,,61\na.svs,,16\n")
    with pytest.raises(LabelsError, match="named twice, with another age"):
        find_cases([tmp_path / "cases.csv"])
    (tmp_path / "cases.csv").write_text("path,patient,age\na.svs,,61\n")
    for inputs in ([tmp_path / "cases.csv", tmp_path / "a.svs"], [tmp_path / "a.svs", tmp_path / "cases.csv"]):
        assert [c.extra for c in find_cases(inputs)] == [{"age": "61"}]


def test_a_slide_of_two_patients_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    (tmp_path / "cases.csv").write_text("path,patient\na.svs,p1\na.svs,p2\n")
    with pytest.raises(LabelsError, match="named twice, with another patient"):
        find_cases([tmp_path / "cases.csv"])


DIGEST = "0123456789abcdef" * 4


def test_a_digest_that_a_file_must_have(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif")
    cases = find_cases([write(tmp_path, f"path,expect_sha256\na.tif,{DIGEST.upper()}\nb.tif,\n")])
    assert [c.expect_sha256 for c in cases] == [DIGEST, ""]
    assert find_cases([tmp_path / "a.tif"], expect_sha256=DIGEST)[0].expect_sha256 == DIGEST
    with pytest.raises(LabelsError, match="line 2: expect_sha256 is not the 64 hexadecimal digits"):
        find_cases([write(tmp_path, "path,expect_sha256\na.tif,d41d8cd98f00b204e9800998ecf8427e\n")])
    for inputs, digest in (([tmp_path], DIGEST), ([tmp_path / "a.tif"], "abc")):
        with pytest.raises(UsageError, match="--expect-sha256 takes the 64 hexadecimal digits of one slide"):
            find_cases(inputs, expect_sha256=digest)
