"""The guard on ratios: what fell is named, noise is measured away, and it knows which processor it is on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import guard
import pytest


@pytest.fixture
def baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(guard, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr(guard, "processor", lambda: "a processor")
    (tmp_path / "baseline.json").write_text(json.dumps({"a processor": {"read": 0.8}, "another": {"read": 9.0}}))
    return tmp_path / "baseline.json"


def answers(monkeypatch: pytest.MonkeyPatch, *values: float) -> list[float]:
    """Makes the guard measure these ratios, one after the other; what is left over was not asked for."""
    left = list(values)
    monkeypatch.setattr(guard, "RATIOS", (guard.Ratio("read", "", ""),))
    monkeypatch.setattr(guard, "measure", lambda ratio, slide, folder: left.pop(0))
    monkeypatch.setattr("run.scene_of", lambda path, file: type("Scene", (), {"path": path, "tiles": file}))
    monkeypatch.setattr("mosaic.phantom_slide", lambda side, folder: folder)
    return left


@pytest.mark.parametrize(("measured", "code"), [((0.80,), 0), ((0.69,), 0), ((1.2,), 0), ((0.67, 0.66, 0.65), 1), ((0.5, 0.75), 0), ((0.5, 0.5, 0.75), 0)])
def test_what_stays_15_per_cent_below_fails_and_what_was_noise_does_not(
    baseline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], measured: tuple[float, ...], code: int
) -> None:
    left = answers(monkeypatch, *measured)
    monkeypatch.setattr(sys, "argv", ["guard"])
    assert guard.main() == code
    assert not left, "it is measured again as often as it has to be, and no oftener"
    assert ("SLOWER  read: 0.670 × its floor, it was 0.800 (-16%)" in capsys.readouterr().out) == bool(code)


def test_update_keeps_the_other_processors_and_an_unknown_one_compares_nothing(
    baseline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, 0.1)
    monkeypatch.setattr(sys, "argv", ["guard", "--update"])
    assert guard.main() == 0
    assert json.loads(baseline.read_bytes()) == {"a processor": {"read": 0.1}, "another": {"read": 9.0}}
    answers(monkeypatch, 0.01)
    monkeypatch.setattr(guard, "processor", lambda: "a third")
    monkeypatch.setattr(sys, "argv", ["guard"])
    assert guard.main() == 0
    assert "the baseline knows no a third" in capsys.readouterr().out


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(("slower", "ratio"), [(1.0, 0.5), (1.5, 1 / 3)])
def test_a_ratio_is_of_processor_time_and_sleeping_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slower: float, ratio: float) -> None:
    @contextmanager
    def works(*_: Any) -> Iterator[Any]:
        def work() -> int:
            spin(0.004 * slower)
            time.sleep(0.002)
            return 1

        def floor() -> int:
            spin(0.002)
            return 1

        yield work, floor

    monkeypatch.setattr(guard, "works", works)
    assert guard.measure(guard.Ratio("a", "", "", pairs=3), ("", ""), tmp_path) == pytest.approx(ratio, rel=0.1)


def test_the_baseline_is_of_the_ratios_that_are_measured() -> None:
    names = {ratio.name for ratio in guard.RATIOS}
    for ratios in json.loads(guard.BASELINE.read_bytes()).values():
        assert set(ratios) == names
        assert all(value > 0 for value in ratios.values())


def test_the_baseline_is_the_lowest_of_several_runs() -> None:
    assert guard.lowest({"a": 0.5, "b": 2.0, "gone": 1.0}, {"a": 0.61234567, "b": 1.5, "new": 3.0}) == {"a": 0.5, "b": 1.5, "new": 3.0}
