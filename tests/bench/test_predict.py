"""Slides an hour, from a part of one: it stops early, counts all tiles, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import wsikit as wk
from wsikit.bench.predict import BLOCKS_EACH, predict
from wsikit.cli.main import main
from wsikit.errors import SlideError


def test_a_part_stands_for_the_whole(phantom: Any, tmp_path: Path) -> None:
    part = predict(phantom.path, ["sts-subtype"], workers=0, block_px=256)
    assert BLOCKS_EACH <= part["blocks_measured"] < part["blocks"]
    run = wk.score([phantom.path], tmp_path / "run", ["sts-subtype"], block_px=256)
    assert part["tiles"] == len(run.store(phantom.path.stem).tables()["sts-subtype"]["tissue"])
    truth = sum(run.seconds.values())
    assert truth / 4 < sum(part["worker_seconds"].values()) < truth * 4, "the same kind of number; how near it comes is measured in benchmarks"
    assert part["slides_per_hour"] == pytest.approx(3600 / sum(part["worker_seconds"].values()), rel=0.01)


def test_a_small_slide_is_scored_whole(phantom: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        main(["bench", str(phantom.path), "--slides-per-hour", "--pipeline", "sts-subtype", "--workers", "0", "--json"])
    assert e.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["blocks_measured"] == found["blocks"]
    assert found["worker_seconds"]["finish"] > 0


def test_a_slide_that_cannot_be_scored(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"nothing")
    with pytest.raises(SlideError, match=r"a\.tif"):
        predict(tmp_path / "a.tif", ["sts-subtype"], workers=0)
