"""What a run shows while it works: plain lines to stderr, or a bar on a terminal; never anything on stdout."""

from __future__ import annotations

import io
from typing import Any

import pytest

from wsikit.cli import progress
from wsikit.cli.progress import RunProgress
from wsikit.run.drive import Progress

EVENTS = [
    Progress("planned", "a", blocks=2),
    Progress("block", "a", tiles=30, px=4e6),
    Progress("block", "a", tiles=10, px=2e6),
    Progress("slide", "a", status="ok"),
    Progress("slide", "b", status="failed", reason="no mpp [bold]"),
]


def follow(slides: int = 2, **options: Any) -> RunProgress:
    with RunProgress(slides, **options) as shown:
        for event in EVENTS:
            shown(event)
    return shown


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    follow()
    assert capsys.readouterr() == ("", "[1/2] a: ok\n[2/2] b: failed – no mpp [bold]\n")
    follow(every_slide=False)
    assert capsys.readouterr() == ("", "[2/2] b: failed – no mpp [bold]\n")
    follow(quiet=True)
    assert capsys.readouterr() == ("", "")


def test_now_and_then_a_line_says_how_fast(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    follow()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("0/2 slides, 0/2 blocks, 0 tiles/s")
    assert any(line.startswith("0/2 slides, 2/2 blocks, ") and " tiles/s" in line and " MPx/s" in line for line in lines)


def test_the_rate_is_tiles_and_pixels_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = RunProgress(1, quiet=True)
    for event in EVENTS[:3]:
        shown(event)
    now[0] = 102.0
    assert shown._rate() == "20 tiles/s  3 MPx/s"


class Terminal(io.StringIO):
    """A terminal that can be read back."""

    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    follow()
    text = terminal.getvalue()
    assert "2/2 slides" in text
    assert "b: failed – no mpp [bold]" in text
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in text  # the cursor is back
    assert capsys.readouterr().out == ""


def test_the_total_never_falls_behind(capsys: pytest.CaptureFixture[str]) -> None:
    follow(slides=1)
    assert capsys.readouterr().err.startswith("[1/1] a: ok\n[2/2] b")
