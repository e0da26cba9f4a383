"""The guard on ratios: what fell is named, noise is not, and a busy machine's figures are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import guard
import pytest


def result(of_floor: float, **about: object) -> dict[str, object]:
    case = {"name": "read, wsikit", "who": "wsikit", "slide": "mosaic", "of_floor": of_floor}
    peer = case | {"name": "read, TIAToolbox", "who": "TIAToolbox", "of_floor": 0.1}
    return {"about": {"quick": False, "quiet": True, "commit": "x", "repeats": 2, "versions": {}} | about, "cases": [case, peer]}


@pytest.mark.parametrize(("now", "code"), [(0.80, 0), (0.69, 0), (0.67, 1), (1.2, 0)])
def test_what_fell_by_more_than_15_per_cent_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], now: float, code: int
) -> None:
    monkeypatch.setattr(guard, "BASELINE", tmp_path / "baseline.json")
    (tmp_path / "before.json").write_text(json.dumps(result(0.8)))
    (tmp_path / "now.json").write_text(json.dumps(result(now)))
    monkeypatch.setattr(sys, "argv", ["guard", str(tmp_path / "before.json"), "--update"])
    assert guard.main() == 0
    assert list(json.loads((tmp_path / "baseline.json").read_bytes())["of_floor"]) == ["read, wsikit"], "of peers nothing is promised"
    monkeypatch.setattr(sys, "argv", ["guard", str(tmp_path / "now.json")])
    assert guard.main() == code
    said = capsys.readouterr().out
    assert ("read, wsikit: 0.670 × the decode floor, it was 0.800 (-16%)" in said) == bool(code)


@pytest.mark.parametrize("about", [{"quiet": False}, {"quick": True}])
def test_figures_of_a_busy_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, about: dict[str, bool]) -> None:
    (tmp_path / "now.json").write_text(json.dumps(result(0.8, **about)))
    monkeypatch.setattr(sys, "argv", ["guard", str(tmp_path / "now.json")])
    assert guard.main() == 2


def test_there_is_a_baseline() -> None:
    assert all(0 < value < 5 for value in json.loads(guard.BASELINE.read_bytes())["of_floor"].values())
