"""Every kind of bad input: one line that says what, where and what to do, the right exit code, and no work begun."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dask.utils import parse_timedelta

import wsikit as wk
from wsikit.errors import UsageError
from wsikit.models import find_model, pipelines
from wsikit.run import engine


@pytest.fixture
def score(cli: Any, tmp_path: Path) -> Callable[..., str]:
    """The error of ``wsikit score ARGUMENTS -o out``, which must not have begun anything."""

    def run(*arguments: object, out: Path = tmp_path / "out") -> str:
        before = sorted(tmp_path.rglob("*"))
        message: str = cli("score", *arguments, "-o", out, "--workers", 0).error
        assert sorted(tmp_path.rglob("*")) == before
        return message

    return run


def test_a_missing_file(score: Any, cli: Any, tmp_path: Path) -> None:
    missing = tmp_path / "nope.svs"
    for verb in ("info", "bench", "doctor", "view"):
        assert str(missing) in cli(verb, missing).error
    assert score(missing) == f"{missing}: no such file or folder; check the path"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["--slides-per-hour", "--model", "phantom-mitosis"], "--model is what stages are timed with"),
        (["--pipeline", "mitosis"], "--pipeline is for --slides-per-hour"),
        (["--workers", 0], "--workers is for --slides-per-hour"),
    ],
    ids=str,
)
def test_an_option_of_the_other_bench_is_refused(cli: Any, tmp_path: Path, typed: list[Any], says: str) -> None:
    answer = cli("bench", tmp_path / "a.svs", *typed)
    assert answer.code == 2
    assert answer.error.startswith(says)


def test_a_folder_without_slides(score: Any, cli: Any, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/readme.txt").write_text("nothing here")
    for message in (score(tmp_path / "notes"), cli("doctor", tmp_path / "notes").error):
        assert message.startswith(f"{tmp_path / 'notes'}: no slides in this folder")
        assert ".svs" in message
        assert "DICOM" in message


@pytest.mark.parametrize("name", ["text.svs", "cut.tif", "unknown.npy"])
def test_no_slide_could_be_used(cli: Any, junk: Path, tmp_path: Path, name: str) -> None:
    says = {"text.svs": "a text file", "cut.tif": "truncated", "unknown.npy": "--mpp-override, or an mpp column in the CSV"}
    answer = cli("score", junk / name, "-o", tmp_path / "out", "--workers", 0)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert f"{junk / name}: " in line
    assert says[name] in line
    assert says[name] in answer.out
    assert (tmp_path / "out/slides.csv").read_text().count(",failed,") >= 1


def test_info_names_what_is_wrong(cli: Any, junk: Path) -> None:
    assert "a text file" in cli("info", junk / "text.svs").error
    assert "truncated" in cli("info", junk / "cut.tif").error
    assert "a folder that is not one slide" in cli("info", junk).error


@pytest.mark.parametrize("value", ["0", "nan", "-1", "1e308", "-inf", "0.049", "20.1"])
def test_an_mpp_that_no_slide_has(score: Any, small: Path, value: str) -> None:
    message = score(small, "--mpp-override", value)
    assert message.startswith(f"--mpp-override {float(value):g}: ")
    assert "0.05 to 20" in message


@pytest.mark.parametrize("value", ["0", "nan", "-1", "21"])
def test_stored_pixels_have_a_believable_mpp(cli: Any, small: Path, tmp_path: Path, value: str) -> None:
    assert (
        f"--mpp {float(value):g}: µm/px of the stored pixels must be 0.05 to 20"
        in cli("tile", small, "-o", tmp_path / "out", "--mpp", value, "--workers", 0).error
    )


@pytest.mark.parametrize(
    "wrong", [["--tile", 8], ["--tile", 8192], ["--overlap", 256], ["--overlap", 3], ["--overlap", -2], ["--codec", "gif"], ["--codec", "zstd:23"]]
)
def test_tiles_that_cannot_be(cli: Any, small: Path, tmp_path: Path, wrong: list[Any]) -> None:
    message = cli("tile", small, "-o", tmp_path / "out", *wrong, "--workers", 0).error
    assert "px" in message or "zstd" in message
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_of_the_output(score: Any, small: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert score(small, out=tmp_path / "file") == f"{tmp_path / 'file'}: cannot be written (Not a directory); choose another folder with -o"
    assert str(tmp_path / "file/deep") in score(small, out=tmp_path / "file/deep")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_folder_of_somebody_else(score: Any, small: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.docx").write_text("mine")
    assert score(small, out=tmp_path / "theirs") == f"{tmp_path / 'theirs'}: holds other files and no run.json; choose an empty or new folder with -o"


def test_unknown_pipelines_and_models_list_the_known(score: Any, small: Path) -> None:
    for arguments in (["--pipeline", "grading"], ["--model", "grading=phantom-mitosis"]):
        assert score(small, *arguments) == f"no pipeline is called 'grading'; there are: {', '.join(pipelines())}"
    message = score(small, "--model", "mitosis=best")
    assert message.startswith("no model 'best'")
    assert "phantom-mitosis" in message
    assert "PIPELINE=MODEL" in score(small, "--model", "mitosis")
    assert score(small, "--model", "mitosis=phantom-sts-subtype") == "model phantom-sts-subtype is for pipeline 'sts-subtype', not 'mitosis'"


def test_a_model_whose_weights_are_not_its_cards(score: Any, cli: Any, small: Path, damaged_model: Path) -> None:
    for message in (score(small, "--model", f"mitosis={damaged_model}"), cli("bench", small, "--model", damaged_model).error):
        assert message.startswith(f"{damaged_model / 'model.safetensors'}: sha256 is ")
        assert "the card says" in message
    (damaged_model / "model.safetensors").unlink()
    assert "are missing" in score(small, "--model", f"mitosis={damaged_model}")


def test_a_model_whose_weights_fit_another_architecture(cli: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_model("phantom-mitosis"), tmp_path / "odd"))
    card = folder / "card.json"
    card.write_text(card.read_text().replace('"width": 0.125', '"width": 0.25'))
    answer = cli("models", "verify", folder)
    assert (answer.code, answer.err) == (1, "")
    assert answer.out.startswith(f"{folder}: ")
    assert "Traceback" not in answer.out


def test_a_model_folder_without_card(score: Any, small: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    message = score(small, "--model", f"mitosis={tmp_path / 'model'}")
    assert message == f"{tmp_path / 'model'}: no readable card.json (No such file or directory); a model is a folder with card.json and safetensors weights"
    (tmp_path / "model/card.json").write_text('{"name": "x"}')
    assert f"{tmp_path / 'model/card.json'}: " in score(small, "--model", f"mitosis={tmp_path / 'model'}")


CSVS = {
    "file,patient\na.tif,P1\n": ["no column 'path'", "file, patient"],
    "path|patient\na.tif|P1\n": ["no column 'path'", "path|patient"],
    "": ["no slides in it"],
    "path,patient\n": ["no slides in it"],
    "path,patient\n,P1\n": ["line 2 has no path"],
    "path,mpp\na.tif,nan\n": ["line 2: mpp 'nan' is not a number"],
    "path,mpp\na.tif,0.5\nb.tif,inf\n": ["line 3: mpp 'inf' is not a number"],
    "path,mpp\na.tif,half\n": ["line 2: mpp 'half' is not a number"],
    b"\xff\xfe\x00p": ["cannot be read as CSV", "UTF-8"],
}


@pytest.mark.parametrize("text", CSVS, ids=lambda t: repr(t)[:24])
def test_a_csv_that_cannot_be_used(score: Any, tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = score(path)
    for part in [f"{path}: ", *CSVS[text]]:
        assert part in message


def test_a_name_that_no_table_could_hold_stops_no_other_slide(cli: Any, small: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    try:
        (archive / "bad\udcff.tif").write_bytes(small.read_bytes())
    except (OSError, UnicodeError):  # this file system has no such names
        return
    (archive / "good.tif").write_bytes(small.read_bytes())
    answer = cli("score", archive, "-o", tmp_path / "out", "--workers", 0, "--pipeline", "sts-subtype")
    assert answer.code == 1, answer
    assert "1 of 2 slides done" in answer.out
    assert "bad\\xff.tif: the file's name is not valid UTF-8" in answer.out
    assert [row["status"] for row in csv.DictReader((tmp_path / "out/slides.csv").open())] == ["failed", "ok"]


@pytest.mark.parametrize("verb", ["score", "tile", "doctor"])
def test_an_empty_path_is_not_the_current_folder(verb: str, cli: Any, tmp_path: Path) -> None:
    more = ["-o", tmp_path / "out"] if verb != "doctor" else []
    answer = cli(verb, "", *more)
    assert answer.code == 2
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="a path is empty"):
        wk.score([""], tmp_path / "out")


@pytest.mark.parametrize("device", ["banana", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there(score: Any, small: Path, device: str) -> None:
    message = score(small, "--device", device)
    assert message.startswith(f"device '{device}' cannot be used here (")
    assert message.endswith("try --device cpu")
    assert len(message) < 250


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense", "http://127.0.0.1:9"])
def test_a_scheduler_that_does_not_answer_is_named_soon(cli: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert parse_timedelta(engine._CONNECT_SECONDS) <= 10
    monkeypatch.setattr(engine, "_CONNECT_SECONDS", "0.5s")
    message = cli("score", small, "-o", tmp_path / "out", "--scheduler", address).error
    assert message.startswith(f"no dask cluster at {address} (")
    assert message.endswith("check the address, or leave --scheduler out")


def test_workers_below_zero_are_refused_in_python_too(small: Path, tmp_path: Path) -> None:
    import wsikit as wk
    from wsikit.errors import UsageError

    with pytest.raises(UsageError, match="-1 workers"):
        wk.score([small], tmp_path / "out", ["mitosis"], workers=-1)


def test_an_unknown_stain_lists_the_known(score: Any, small: Path) -> None:
    known, _, names = score(small, "--stain", "pink").partition("; there are: ")
    assert known == "no stain method is called 'pink'"
    assert {"macenko", "none"} <= set(names.split(", "))


@pytest.mark.parametrize("arguments", [["aggregate"], ["export", "--to", "csv"], ["report"], ["verify"]])
@pytest.mark.parametrize("kind", ["empty", "missing", "file"])
def test_a_folder_that_is_no_run(cli: Any, tmp_path: Path, arguments: list[str], kind: str) -> None:
    folder = tmp_path / kind
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("x")
    verb, *options = arguments
    message = cli(verb, folder, *options).error
    assert message.startswith(f"{folder}: no ")
    assert message.endswith("give the folder that wsikit score wrote with -o")


def test_export_to_an_unknown_kind_lists_the_known(cli: Any, run_copy: Path) -> None:
    assert cli("export", run_copy, "--to", "docx").error == "--to docx: there are geojson, csv, parquet, hdf5, dicom, anndata"
    assert not (run_copy / "export").exists()


@pytest.mark.parametrize("kind", ["geojson", "csv", "hdf5"])
def test_export_into_a_file_or_below_one(cli: Any, run_copy: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "file/deep"):
        message = cli("export", run_copy, "--to", kind, "-o", target).error
        assert message.startswith(f"{target}/lms.")
        assert message.endswith("choose another folder with -o")


def test_options_that_would_change_nothing_are_refused(cli: Any, small: Path, tmp_path: Path) -> None:
    out = ["-o", tmp_path / "run"]
    assert cli("score", small, *out, "--scheduler", "tcp://127.0.0.1:1", "--workers", 2).error.startswith("--workers is of processes on this machine")
    assert cli("tile", small, *out, "--tls", tmp_path).error.startswith("--tls is for --scheduler")
    assert cli("doctor", "--csv", tmp_path / "good.csv").error.startswith("these options are of an archive")
    assert not (tmp_path / "run").exists()
