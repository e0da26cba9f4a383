"""Several slides at once: the bad ones are named with their reason, the others finish, and a run resumes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def rows(run: Path) -> dict[str, dict[str, str]]:
    with (run / "slides.csv").open(newline="") as f:
        return {r["slide_id"]: r for r in csv.DictReader(f)}


def test_bad_slides_are_named_and_the_others_finish(cli: Any, small: Path, junk: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / small.name
    copy.parent.mkdir()
    copy.write_bytes(small.read_bytes())
    (tmp_path / "cases.csv").write_text(
        f"path,patient,mpp\n{junk}/text.svs,P1,\n{small},P2,\n{tmp_path}/gone.svs,P3,\n{copy},P4,0\n{junk}/unknown.npy,P5,0.5\n"
    )
    answer = cli("score", tmp_path / "cases.csv", "-o", tmp_path / "out", "--pipeline", "mitosis", "--workers", 0)
    assert answer.code == 1
    assert answer.out.startswith(f"2 of 5 slides done; results in {tmp_path / 'out/slides.csv'}\n")
    found = rows(tmp_path / "out")
    assert {k: r["status"] for k, r in found.items()} == {"text": "failed", "small": "ok", "gone": "failed", "small-2": "failed", "unknown": "ok"}
    assert list(found) == ["text", "small", "gone", "small-2", "unknown"]
    assert found["small"]["mitosis.status"] == "ok"
    assert found["unknown"]["mpp_source"] == "csv"
    for slide_id, part in {"text": "a text file", "gone": "no such file", "small-2": "0, which is outside 0.05–20"}.items():
        reason = found[slide_id]["reason"]
        assert part in reason
        assert found[slide_id]["mitosis.status"] == "failed"
        assert f"  failed: {slide_id}: {reason}\n" in answer.out
        assert f"{slide_id}: failed – {reason}\n" in answer.err


def test_json_is_all_that_goes_to_stdout(cli: Any, small: Path, junk: Path, tmp_path: Path) -> None:
    answer = cli("score", small, junk / "text.svs", "-o", tmp_path / "out", "--pipeline", "mitosis", "--workers", 0, "--json")
    assert answer.code == 1
    assert (answer.json["folder"], answer.json["ok"], list(answer.json["failed"])) == (str(tmp_path / "out"), 1, ["text"])
    assert answer.json["failed"]["text"] == rows(tmp_path / "out")["text"]["reason"]


def test_a_failed_slide_is_done_when_it_has_become_readable(cli: Any, small: Path, tmp_path: Path) -> None:
    slide = tmp_path / "late.tif"
    slide.write_bytes(small.read_bytes()[:1000])
    run = [slide, small, "-o", tmp_path / "out", "--pipeline", "mitosis", "--workers", 0]
    assert cli("score", *run).code == 1
    slide.write_bytes(small.read_bytes())
    again = cli("score", *run)
    assert (again.code, again.out) == (0, f"2 of 2 slides done; results in {tmp_path / 'out/slides.csv'}\n")
    found = rows(tmp_path / "out")
    assert found["late"]["mitosis.count"] == found["small"]["mitosis.count"]


def test_a_later_run_into_the_same_folder_counts_all_its_slides(cli: Any, small: Path, tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("a.tif", "b.tif"))
    for path in (first, second):
        path.write_bytes(small.read_bytes())
    cli("score", first, "-o", tmp_path / "out", "--pipeline", "mitosis", "--workers", 0)
    answer = cli("score", second, "-o", tmp_path / "out", "--pipeline", "mitosis", "--workers", 0)
    assert answer.code == 0
    assert answer.err.splitlines()[-1] == "[2/2] b: ok"
    assert list(rows(tmp_path / "out")) == ["a", "b"]


def test_an_earlier_runs_pictures_are_no_slides(cli: Any, small: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "a.tif").write_bytes(small.read_bytes())
    for _ in range(2):
        answer = cli("score", archive, "-o", archive / "out", "--pipeline", "mitosis", "--workers", 0, "--mpp-override", 0.5)
        assert answer.out.startswith("1 of 1 slides done")
    assert (archive / "out/slides/a.png").exists()
    assert cli("doctor", archive / "out").error.startswith(f"{archive / 'out'}: no slides in this folder")


def test_debug_shows_where_a_slide_failed(cli: Any, junk: Path, tmp_path: Path) -> None:
    run = ["score", junk / "text.svs", "-o", tmp_path / "out", "--pipeline", "mitosis", "--workers", 0]
    assert "Traceback" not in cli(*run).err
    assert "UnsupportedFormatError" in cli(*run, "--debug").err


def test_an_override_and_a_column_of_the_csv(cli: Any, junk: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.npy").write_bytes((junk / "unknown.npy").read_bytes())
    (tmp_path / "cases.csv").write_text(f"path,slide_id,mpp\n{junk}/unknown.npy,from-csv,0.75\n{tmp_path}/copy.npy,overridden,\n")
    assert cli("score", tmp_path / "cases.csv", "-o", tmp_path / "out", "--mpp-override", 0.5, "--upsample", "--pipeline", "mitosis", "--workers", 0).code == 0
    found = rows(tmp_path / "out")
    assert [(r["mpp"], r["mpp_source"]) for r in found.values()] == [("0.75", "csv"), ("0.5", "override")]


def test_tile_keeps_pixels_and_score_resumes_on_them(cli: Any, small: Path, tmp_path: Path) -> None:
    import wsikit as wk

    answer = cli("tile", small, "-o", tmp_path / "out", "--mpp", 1, "--tile", 128, "--overlap", 32, "--stain", "none", "--workers", 0, "--json")
    assert (answer.code, answer.json["ok"], answer.json["failed"]) == (0, 1, {})
    store = wk.open_store(tmp_path / "out/slides/small.zarr")
    finest = store.image()
    assert finest.shape == (3, 384, 512)
    assert finest.chunks == (3, 128, 128)
    slide = wk.open_slide(small)
    grey = np.asarray(finest[:, 100:200, 100:200]).transpose(1, 2, 0).astype(int)
    assert np.abs(grey - slide.read((200, 200, 200, 200), mpp=1.0)).max() == 0
    tiles = store.tables()["tiles"]
    assert set(np.unique(np.diff(np.unique(tiles["origin"][:, 0])))) == {(128 - 32) * 2}


def interrupted(arguments: list[str], run_folder: Path) -> tuple[int, str, str]:
    """Start a command, press Ctrl-C as soon as it has prepared its slide, and say how it ended."""
    # tests in the background of a shell inherit that SIGINT is ignored
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    run = subprocess.Popen([sys.executable, "-m", "wsikit", *arguments], **pipes, start_new_session=True, preexec_fn=listen)
    until = time.monotonic() + 60
    while run.poll() is None and not list(run_folder.glob("slides/*.zarr/zarr.json")) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to the workers too
    out, err = run.communicate(timeout=60)
    return run.returncode, out, err


STOPPED = (130, "", "wsikit: interrupted; what is done is kept, run the same command again to go on\n")


def test_ctrl_c_is_one_line_and_what_is_done_is_kept(cli: Any, phantom: Any, tmp_path: Path) -> None:
    assert interrupted(["score", str(phantom.path), "-o", str(tmp_path / "out"), "--workers", "0"], tmp_path / "out") == STOPPED
    state = cli("verify", tmp_path / "out")
    assert state.code == 1
    assert "unfinished: lms.zarr\n" in state.out
    assert state.out.endswith("wsikit verify --repair, or scoring the slides again, mends it\n")


@pytest.mark.slow
def test_ctrl_c_reaches_workers_quietly_and_the_run_goes_on_later(cli: Any, phantom: Any, tmp_path: Path) -> None:
    arguments = ["score", str(phantom.path), "-o", str(tmp_path / "out"), "--pipeline", "mitosis", "--workers"]
    assert interrupted([*arguments, "2"], tmp_path / "out") == STOPPED
    again = cli(*arguments, 0)
    assert (again.code, again.out) == (0, f"1 of 1 slides done; results in {tmp_path / 'out/slides.csv'}\n")
