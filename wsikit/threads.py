"""Several threads for work that lets go of the interpreter lock: decoding, colour look-ups, encoding.

How many is decided once per process: the environment variable ``WSIKIT_THREADS`` (which the engine sets so that
all workers of a machine together use its cores), else the number of cores. Results never depend on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
MOST = 16


@cache
def count() -> int:
    """How many threads a process uses for one block."""
    given = os.environ.get("WSIKIT_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else min(MOST, cores())


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(work: Callable[[T], Any], items: Iterable[T]) -> None:
    """Call ``work`` for every item, in several threads; the first error is raised.

    Every thread takes each n-th item, so thousands of small items cost no more than a few large ones.
    """
    todo = list(items)
    n = min(count(), len(todo))
    if n < 2:
        _some(work, todo, 0, 1)
        return
    futures = [_pool().submit(_some, work, todo, i, n) for i in range(n)]
    errors = [e for f in futures if (e := f.exception()) is not None]
    if errors:
        raise errors[0]


def _some(work: Callable[[T], Any], items: list[T], start: int, step: int) -> None:
    for item in islice(items, start, None, step):
        work(item)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count(), thread_name_prefix="wsikit")


if hasattr(os, "register_at_fork"):  # a forked child has the pool's object but none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
