"""A run that was stopped anywhere, by anything, goes on where it was and ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wsikit as wk
from wsikit.run import Progress
from wsikit.store.receipts import read_receipts
from wsikit.testing.phantom import Spec, write_phantom

Differences = Callable[[Path, Path], set[str]]
BLOCKS = 4


def stop_after(blocks: int, error: type[BaseException]) -> Callable[[Progress], None]:
    """Stops a run by an exception once so many blocks are done."""
    left = iter(range(blocks - 1, -2, -1))

    def on_progress(event: Progress) -> None:
        if (event.kind == "block" and next(left) == 0) or (event.kind == "planned" and blocks == 0):
            raise error

    return on_progress


def mtimes(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("blocks", [0, 1, 3, BLOCKS])
def test_only_what_was_left_is_done_again(score: Any, undisturbed: Path, differences: Differences, tmp_path: Path, blocks: int) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        score(folder, stop_after(blocks, KeyboardInterrupt), keep_tiles=True)
    parts = folder / "slides/small.parts"
    before = mtimes(parts) if parts.exists() else {}
    shards = mtimes(folder / "slides/small.zarr/0")
    assert len([r for r in read_receipts(folder / "slides/small.receipts.jsonl") if r.block != "layout"]) == blocks
    assert not (folder / "slides/small.json").exists()
    at_the_end: dict[str, int] = {}

    def keep_times(event: Progress) -> None:
        if event.kind == "block":
            at_the_end.update(mtimes(parts))

    score(folder, keep_times, keep_tiles=True)
    assert score.planned[-1] == score.done[-1] == BLOCKS - blocks
    assert {k: v for k, v in at_the_end.items() if k in before} == (before if at_the_end else {})
    assert {k: v for k, v in mtimes(folder / "slides/small.zarr/0").items() if k in shards} == shards
    assert differences(folder, undisturbed) == {"run.json"}


def test_a_finished_run_is_left_as_it_is(score: Any, run_copy: Path) -> None:
    before = mtimes(run_copy / "slides")
    run = score(run_copy, keep_tiles=True)
    assert (score.planned[-1], score.done[-1]) == (0, 0)
    after = mtimes(run_copy / "slides")
    assert {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)} <= {".lock"}
    assert run.results["small"]["status"] == "ok"


@pytest.mark.parametrize(("first", "second"), [(256, 512), (768, 512)])
def test_parts_of_other_blocks_are_not_mixed_in(score: Any, undisturbed_lean: Path, differences: Differences, tmp_path: Path, first: int, second: int) -> None:
    """A stopped run that was cut otherwise has left parts with other tiles under the same and under other names."""
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "run", stop_after(3, KeyboardInterrupt), block_px=first)
    score(tmp_path / "run", block_px=second)
    assert score.done[-1] == BLOCKS
    assert differences(tmp_path / "run", undisturbed_lean) == {"run.json"}


def test_parts_of_another_model_are_not_mixed_in(score: Any, undisturbed_lean: Path, differences: Differences, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "run", stop_after(2, KeyboardInterrupt), pipelines=["mitosis"])
    run = tmp_path / "run"
    (run / "slides/small.parts/mitosis").rename(run / "slides/small.parts/sts-subtype")
    score(run)
    assert score.done[-1] == BLOCKS
    table = "slides/small.zarr/tables/sts-subtype"
    assert not differences(run / table, undisturbed_lean / table)


def test_a_lost_or_damaged_part_is_done_again(score: Any, undisturbed_lean: Path, differences: Differences, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "run", stop_after(3, KeyboardInterrupt))
    lost, damaged = sorted((tmp_path / "run/slides/small.parts/mitosis").iterdir())[:2]
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    score(tmp_path / "run")
    assert score.done[-1] == BLOCKS - 3 + 2
    assert differences(tmp_path / "run", undisturbed_lean) == {"run.json"}


def test_a_part_lost_at_the_very_end_is_no_empty_table(score: Any, tmp_path: Path, slide: Path) -> None:
    """Between the last block and putting it together: the slide fails, and is done by the next run."""

    def lose_one(event: Progress) -> None:
        if event.kind == "block" and score.done[-1] == BLOCKS:
            shutil.rmtree(tmp_path / "run/slides/small.parts/mitosis")

    with pytest.raises(AssertionError, match="small"):
        score(tmp_path / "run", lose_one)
    assert "failed" in (tmp_path / "run/slides.csv").read_text()
    assert score(tmp_path / "run").results["small"]["pipelines"]["mitosis"]["count"] > 0


def test_a_slide_that_changed_is_done_from_its_start(score: Any, slide: Path, differences: Differences, tmp_path: Path) -> None:
    """In one process, so that no open file of the first run may serve the second."""
    moving = tmp_path / "small.tif"
    shutil.copy(slide, moving)
    wk.score([moving], tmp_path / "run", ["mitosis"], block_px=512)
    write_phantom(moving, Spec(77, "LMS", 960, 960))
    wk.score([moving], tmp_path / "run", ["mitosis"], block_px=512)
    wk.score([moving], tmp_path / "fresh", ["mitosis"], block_px=512)
    assert differences(tmp_path / "run", tmp_path / "fresh") == {"run.json"}


@pytest.fixture
def dying_writes(monkeypatch: pytest.MonkeyPatch, killed: type[BaseException]) -> Iterator[Callable[[int], list[int]]]:
    """Makes the process die at its n-th wait for the disk; until then, and without a number, it only counts."""
    real, count = os.fsync, [0, 0]

    def fsync(fd: int) -> None:
        count[0] += 1
        if count[0] == count[1]:
            raise killed
        real(fd)

    def die_at(n: int) -> list[int]:
        count[:] = [0, n]
        return count

    monkeypatch.setattr(os, "fsync", fsync)
    return die_at


def test_a_death_at_any_write_is_survived(
    score: Any, undisturbed: Path, differences: Differences, tmp_path: Path, dying_writes: Any, killed: type[BaseException]
) -> None:
    """Deaths at later and later writes, each run going on from where the one before died."""
    deaths = 0
    for n in range(2, 200, 9):
        dying_writes(n)
        try:
            score(tmp_path / "run", keep_tiles=True)
            break
        except killed:
            deaths += 1
    assert deaths >= 4
    assert differences(tmp_path / "run", undisturbed) == {"run.json"}


RUN = """
import sys
import wsikit as wk
if __name__ == "__main__":
    wk.score([sys.argv[1]], sys.argv[2], ["mitosis", "sts-subtype"], block_px=256, keep_tiles=True, workers=int(sys.argv[3]))
"""


def start(slide: Path, folder: Path, workers: int, tmp_path: Path) -> subprocess.Popen[bytes]:
    (tmp_path / "run.py").write_text(RUN)
    return subprocess.Popen([sys.executable, str(tmp_path / "run.py"), str(slide), str(folder), str(workers)], start_new_session=True)


def receipts_of(folder: Path) -> list[str]:
    return [r.block for r in read_receipts(folder / "slides/small.receipts.jsonl") if r.block != "layout"]


@pytest.fixture(scope="module")
def many_blocks(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run in sixteen blocks."""
    return wk.score([slide], tmp_path_factory.mktemp("many") / "run", ["mitosis", "sts-subtype"], block_px=256, keep_tiles=True).folder


def test_kill_9_of_everything_in_the_middle(score: Any, slide: Path, many_blocks: Path, differences: Differences, tmp_path: Path) -> None:
    """The run and its two workers die at once; what had a receipt is kept, and only the rest is done."""
    folder = tmp_path / "run"
    run = start(slide, folder, 2, tmp_path)
    while len(receipts_of(folder)) < 2:
        assert run.poll() is None
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    done = receipts_of(folder)
    assert 2 <= len(done) < 16
    assert "slide" not in done
    shards = {b: mtimes(folder / "slides/small.zarr/0").get(f"c/0/{b[1]}/{b[3]}") for b in done}
    score(folder, keep_tiles=True, block_px=256)
    assert score.done[-1] == 16 - len(done)
    assert {b: mtimes(folder / "slides/small.zarr/0").get(f"c/0/{b[1]}/{b[3]}") for b in done} == shards
    assert differences(folder, many_blocks) == {"run.json"}


@pytest.mark.slow
def test_kill_9_again_and_again(slide: Path, many_blocks: Path, differences: Differences, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for round_ in range(40):
        run = start(slide, folder, 0, tmp_path)
        before = len(receipts_of(folder)) if folder.exists() else 0
        until = time.monotonic() + 60
        while run.poll() is None and time.monotonic() < until and len(receipts_of(folder)) <= before + round_ % 3:
            time.sleep(0.003)
        time.sleep(0.01 * (round_ % 7))
        if run.poll() == 0:
            break
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert round_ >= 3
    assert start(slide, folder, 0, tmp_path).wait() == 0
    assert differences(folder, many_blocks) == {"run.json"}


def test_parts_that_a_late_worker_left_are_removed(score: Any, run_copy: Path, undisturbed: Path, differences: Differences) -> None:
    """dask does a block again when a worker dies whose result was just taken; that may end after the slide was put together."""
    stray = run_copy / "slides/small.parts/quality/r0c0.safetensors"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"late")
    score(run_copy, keep_tiles=True)
    assert differences(run_copy, undisturbed) == {"run.json"}
