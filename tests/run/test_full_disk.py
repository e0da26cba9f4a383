"""A full or unwritable disk stops a run with one line, and the run goes on once there is room."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsikit.errors import OutputError, StoreMismatchError
from wsikit.run import Progress, drive
from wsikit.run.again import aggregate_run
from wsikit.run.start import MIN_FREE_BYTES, prepare_folder

Differences = Callable[[Path, Path], set[str]]
NO_SPACE = "no space left on the disk; free some and run the same command again, finished blocks are kept"


def test_the_disk_fills_between_two_blocks(score: Any, undisturbed: Path, differences: Differences, tmp_path: Path) -> None:
    """The kernel's own "no space": the receipts are led to /dev/full while the run goes on."""
    receipts = tmp_path / "run/slides/small.receipts.jsonl"

    def fill(event: Progress) -> None:
        if event.kind == "block" and score.done[-1] == 2:
            receipts.rename(tmp_path / "kept")
            receipts.symlink_to("/dev/full")

    with pytest.raises(OutputError, match=rf"small\.receipts\.jsonl: {NO_SPACE}"):
        score(tmp_path / "run", fill, keep_tiles=True)
    receipts.unlink()
    (tmp_path / "kept").rename(receipts)
    score(tmp_path / "run", keep_tiles=True)
    assert score.done[-1] == 2
    assert differences(tmp_path / "run", undisturbed) == {"run.json"}


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files have been opened to write, and how many there is room for; wsikit and zarr write through `Path.open` and `os.open`."""
    counts, real, plain = [0, 10**9], Path.open, os.open

    def raw(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if flags & os.O_CREAT:
            counts[0] += 1
            if counts[0] > counts[1]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return plain(path, flags, mode, **more)

    def limited(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wax+"):
            counts[0] += 1
            if counts[0] > counts[1]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", limited)
    monkeypatch.setattr(os, "open", raw)
    return counts


def test_the_disk_fills_at_any_write(score: Any, undisturbed: Path, differences: Differences, tmp_path: Path, room: list[int]) -> None:
    """Again and again, with room for more files each time: layout, shards, parts, receipts, tables, heat maps, results."""
    stopped = []
    for more in range(3, 300, 8):
        room[:] = [0, more]
        try:
            score(tmp_path / "run", keep_tiles=True)
            break
        except OutputError as e:
            assert NO_SPACE in str(e)
            stopped.append(score.done[-1])
    assert len(stopped) >= 5
    assert sum(stopped) + score.done[-1] >= 4
    room[1] = 10**9
    score(tmp_path / "run", keep_tiles=True)
    assert score.done[-1] == 0
    assert differences(tmp_path / "run", undisturbed) == {"run.json"}


def test_an_almost_full_disk_pauses_the_run_until_there_is_room(
    score: Any, undisturbed: Path, differences: Differences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "LOOK_SECONDS", 0.01)
    real, low, paused = shutil.disk_usage, [False], []

    def usage(path: Path) -> Any:
        return real(path)._replace(free=1 << 20) if low[0] else real(path)

    def fill(event: Progress) -> None:
        if event.kind == "block" and score.done[-1] == 2:
            low[0] = True
        if event.kind == "paused":
            paused.append(event.reason)
            low[0] = len(paused) < 5

    monkeypatch.setattr(shutil, "disk_usage", usage)
    score(tmp_path / "run", fill, keep_tiles=True)
    assert len(paused) == 5
    assert "only 1 MiB are free on this disk; waiting" in paused[0]
    assert differences(tmp_path / "run", undisturbed) == {"run.json"}


def test_a_disk_that_stays_full_stops_the_run_and_keeps_its_blocks(
    score: Any, undisturbed: Path, differences: Differences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(drive, "PAUSE_SECONDS", 0.05)
    real, low = shutil.disk_usage, [False]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1 << 20) if low[0] else real(path))

    def fill(event: Progress) -> None:
        low[0] = (event.kind == "block" and score.done[-1] == 2) or low[0]

    with pytest.raises(OutputError, match=r"only 1 MiB are free.*finished blocks are kept"):
        score(tmp_path / "run", fill, keep_tiles=True)
    low[0] = False
    score(tmp_path / "run", keep_tiles=True)
    assert score.done == [2, 2]
    assert differences(tmp_path / "run", undisturbed) == {"run.json"}


def command(slide: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "wsikit", "score", str(slide), "-o", str(folder), "--pipeline", "sts-subtype", "--workers", "0"]


def test_a_full_disk_from_the_command_line(slide: Path, tmp_path: Path) -> None:
    """The result's file is led to /dev/full while the program still starts; its blocks are kept."""
    folder = tmp_path / "run"
    (folder / "slides").mkdir(parents=True)
    run = subprocess.Popen(command(slide, folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (folder / "run.json").exists():  # by then what an earlier run left half-written is swept away
        assert run.poll() is None
    for name in ("small.json", "small.geojson", "small.png"):
        (folder / f"slides/.{name}.{run.pid}.tmp").symlink_to("/dev/full")
    out, err = run.communicate(timeout=100)
    assert (run.returncode, out) == (2, "")
    assert err.splitlines()[-1] == f"wsikit: {folder.absolute()}/slides/small.json: {NO_SPACE}"
    assert "Traceback" not in err
    part = next((folder / "slides/small.parts/sts-subtype").glob("*.safetensors"))
    assert part.stat().st_size > 0


def test_a_file_where_the_folder_should_be(score: Any, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(OutputError, match=r"run: cannot be written \(.*\); choose another folder with -o"):
        score(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_a_folder_of_somebody_else(score: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(StoreMismatchError, match=r"holds other files and no run\.json; choose an empty or new folder"):
        score(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def test_too_little_room_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [MIN_FREE_BYTES - 1]
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free[0]}))
    with pytest.raises(OutputError, match="only 63 MiB are free on this disk"):
        prepare_folder(tmp_path / "run")
    free[0] += 1
    prepare_folder(tmp_path / "run")


def test_one_run_at_a_time(score: Any, tmp_path: Path) -> None:
    """A second run, or an aggregation, into a folder where one is going on is refused, and does no harm."""
    refused = []

    def second(event: Progress) -> None:
        if event.kind == "planned":
            for other in (lambda: score(tmp_path / "run"), lambda: aggregate_run(tmp_path / "run")):
                with pytest.raises(StoreMismatchError, match="another wsikit is working in this folder; wait until it is done"):
                    other()
                refused.append(event.slide_id)

    assert score(tmp_path / "run", second).results["small"]["status"] == "ok"
    assert refused == ["small", "small"]
    assert aggregate_run(tmp_path / "run") == 1
