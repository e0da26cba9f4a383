"""Where did the time go? Seconds by stage, added up over blocks and slides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from time import perf_counter
from typing import Any, ParamSpec

P = ParamSpec("P")


class Clock:
    """Adds up the seconds spent in each named stage.

    >>> clock = Clock()
    >>> with clock("read"):
    ...     pass
    >>> list(clock.seconds)
    ['read']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count what happens inside for a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add({stage: perf_counter() - start})

    def add(self, seconds: dict[str, float]) -> None:
        """Add another clock's seconds."""
        for stage, value in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + value


def timed(task: Callable[P, dict[str, Any]]) -> Callable[P, dict[str, Any]]:
    """The same task, with the seconds of all of it as ``took`` in its result.

    >>> sorted(timed(lambda: {"status": "ok"})())
    ['status', 'took']
    """

    @wraps(task)
    def with_time(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        start = perf_counter()
        result = task(*args, **kwargs)
        return result | {"took": perf_counter() - start}

    return with_time
