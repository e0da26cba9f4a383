"""May this file be opened? A first look at it in a process of its own, so that whatever it does, it does not do it here.

There the container is checked, the best reader opens it, says what it is, and decodes a few of its parts. A file on which that process
crashes, hangs or runs out of memory is refused by name. The process is kept for the next file, and started again when it died.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path

from wsikit.errors import DamagedSlideError, SlideError, SlideNotFoundError, UnsafeSlideError, UsageError
from wsikit.geometry import Level
from wsikit.location import is_remote, locate
from wsikit.readers import Reader, find_reader
from wsikit.readers._container import check_container, check_levels
from wsikit.sandbox import SECONDS, Sandbox, SandboxDiedError

SECONDS_VARIABLE = "WSIKIT_GATE_SECONDS"
_MAX_SIDE = 4_000_000
_PROBE_PX = 256
_OVERVIEW_PX = 2**22
_DIED = {
    "crash": "ended the process that looked at it ({}); the file is damaged or made to do harm, copy it again from the scanner",
    "memory": "took more than 4 GiB of memory; the file is damaged or made to do harm, copy it again from the scanner",
    "hang": "did not come to an end ({}); the file is damaged, or its disk is very slow: then set " + SECONDS_VARIABLE,
    "error": "failed in a way that nobody foresaw ({}); the file is damaged, copy it again from the scanner",
}


@cache
def _sandbox() -> Sandbox:
    return Sandbox("wsikit.gate:inspect", seconds=gate_seconds())


def gate_seconds() -> float:
    """How long a look at a file may take: ``WSIKIT_GATE_SECONDS``, by default 60.

    Raises
    ------
    UsageError
        The variable is set and no number of seconds.
    """
    given = os.environ.get(SECONDS_VARIABLE, "")
    try:
        seconds = float(given or SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise UsageError(f"{SECONDS_VARIABLE}={given}: give a number of seconds, such as 300")
    return seconds


def admit(path: str | Path, reader: str | None = None) -> str:
    """Let a file in: the name of the reader that opens it.

    Raises
    ------
    SlideNotFoundError, UnsupportedFormatError, DamagedSlideError
        The file is missing, of no known kind, or broken.
    UnsafeSlideError
        It ended, stopped or filled up the process that looked at it.
    UsageError
        No reader has that name.
    """
    place = locate(path)
    if not place.exists():
        raise SlideNotFoundError(f"{path}: {'nothing is there, or its server does not answer' if is_remote(place) else 'no such file'}; check the path")
    if is_remote(place) and str(place).startswith("memory:"):  # there is such a file in this process only
        return find_reader(place, reader).name
    sandbox = _sandbox()
    try:
        return str(sandbox.call(str(path), reader))
    except SandboxDiedError as e:
        raise refusal(path, e) from e


def refusal(path: str | Path, death: SandboxDiedError) -> SlideError:
    """Why a file is refused on which the process that looked at it died, or met an error that nobody foresaw."""
    if death.kind == "error" and is_remote(locate(path)):
        return SlideNotFoundError(f"{path}: its server does not give it ({death.detail}); try again, or copy the slide here")
    kind = DamagedSlideError if death.kind == "error" else UnsafeSlideError
    return kind(f"{path}: opening it {_DIED[death.kind].format(death.detail)}")


def inspect(path: str, reader: str | None = None) -> str:
    """What `admit` does in the process of its own.

    Raises
    ------
    SlideError, UsageError
        See `admit`.
    """
    file = locate(path)
    check_container(file)
    opener = find_reader(file, reader)
    handle = opener(file)
    try:
        levels = handle.facts.levels
        for level in levels:
            if not (0 < level.size.w <= _MAX_SIDE and 0 < level.size.h <= _MAX_SIDE):
                raise DamagedSlideError(f"{file}: level {level.index} claims {level.size.w} × {level.size.h} px; the file is damaged")
        if reader is None:  # one that was asked for may see fewer
            check_levels(file, [level.size for level in levels])
        _probe(handle, levels)
    finally:
        handle.close()
    return opener.name


def _probe(handle: Reader, levels: tuple[Level, ...]) -> None:
    """Decode the smallest level, and the first, middle and last part of each, to see what comes of it; tiles that are damaged are found when read."""
    for level in levels:
        (w, h), whole = level.size, level is levels[-1] and level.size.w * level.size.h <= _OVERVIEW_PX
        corners = [(0, 0)] if whole else [(0, 0), (w // 2, h // 2), (max(0, w - _PROBE_PX), max(0, h - _PROBE_PX))]
        for x, y in corners:
            side = max(w, h) if whole else _PROBE_PX
            with contextlib.suppress(SlideError):
                handle.read(level.index, x, y, min(side, w - x), min(side, h - y))
