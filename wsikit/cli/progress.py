"""What a run is doing, for people: a bar on a terminal, plain lines elsewhere. Everything goes to stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from wsikit.run.drive import Progress

_LINE_SECONDS = 10.0


class RunProgress:
    """Follows a run's `Progress` events. Use as a context manager, and call it with each event."""

    def __init__(self, slides: int, *, quiet: bool = False, every_slide: bool = True) -> None:
        self._total, self._quiet, self._every_slide = slides, quiet, every_slide
        self._done = self._failed = self._tiles = self._blocks = self._planned = 0
        self._px = 0.0
        self._paused = False
        self._start = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> RunProgress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("blocks  {task.fields[rate]}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(f"0/{self._total} slides", total=None, rate="")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Progress) -> None:
        """Take note of an event, and show it."""
        self._show(event)
        self._paused = event.kind == "paused"

    def _show(self, event: Progress) -> None:
        if event.kind == "planned":
            self._planned += event.blocks
        elif event.kind == "block":
            self._blocks += 1
            self._tiles += event.tiles
            self._px += event.px
        elif event.kind == "paused":
            if time.monotonic() - self._said > _LINE_SECONDS or not self._paused:
                self._say(event.reason)
        else:
            self._done += 1
            self._total = max(self._total, self._done)  # a run that resumes has slides of earlier times too
            self._failed += event.status == "failed"
            if self._every_slide or event.status == "failed":
                self._say(f"[{self._done}/{self._total}] {event.slide_id}: {event.status}{' – ' + event.reason if event.reason else ''}")
        if self._bar is not None:
            self._bar.update(
                self._task, description=f"{self._done}/{self._total} slides", completed=self._blocks, total=self._planned or None, rate=self._rate()
            )
        elif not self._quiet and time.monotonic() - self._said > _LINE_SECONDS:
            self._say(f"{self._done}/{self._total} slides, {self._blocks}/{self._planned} blocks, {self._rate()}")

    def _rate(self) -> str:
        seconds = max(1e-3, time.monotonic() - self._start)
        return f"{self._tiles / seconds:.0f} tiles/s  {self._px / 1e6 / seconds:.0f} MPx/s"

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)
