"""How many workers, and how large a block, fit into a given memory?

A worker's memory does not depend on the slide: it is what its libraries and models take, and some bytes for each pixel of the block
that it works on. Both were measured (`benchmarks/`, resident size at blocks of 1024, 4096 and 8192 px) and are rounded up.
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

from wsikit.errors import UsageError
from wsikit.run.plan import BLOCK_PX

MIB = 2**20
DRIVER_BYTES = 400 * MIB  # the command itself, with dask's scheduler
WORKER_BYTES = {False: 400 * MIB, True: 1300 * MIB}  # without and with models
BYTES_PER_PX = 10
SMALLEST_PX, STEP_PX = 512, 512


class Share(NamedTuple):
    """What a run may use: worker processes (0 is this process), the side of a block in px, and each worker's bytes."""

    workers: int
    block_px: int
    worker_bytes: int


def share_out(memory: int, workers: int, *, models: bool) -> Share:
    """Divide ``memory`` bytes among up to that many ``workers``: fewer rather than with tiny blocks, and blocks no larger than usual.

    Raises
    ------
    UsageError
        It is not enough for one worker.

    >>> share_out(2 * 2**30, 8, models=False).workers
    3
    """
    fixed = WORKER_BYTES[models]
    driver = DRIVER_BYTES if workers else 0
    least = fixed + BYTES_PER_PX * SMALLEST_PX**2
    if memory < driver + least:
        raise UsageError(f"--memory {memory / MIB:.0f}MiB is too little; at least {-(-(driver + least) // MIB)}MiB are needed here")
    comfortable = fixed + BYTES_PER_PX * (BLOCK_PX // 2) ** 2
    n = max(1, min(max(1, workers), (memory - driver) // comfortable))
    each = (memory - driver) // n
    side = isqrt((each - fixed) // BYTES_PER_PX) // STEP_PX * STEP_PX
    return Share(n if workers else 0, max(SMALLEST_PX, min(BLOCK_PX, side)), each)


def parse_memory(text: str) -> int:
    """Bytes of ``16GiB``, ``512MB`` or a plain number.

    Raises
    ------
    UsageError
        It is none.

    >>> parse_memory("1.5GiB")
    1610612736
    """
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    number = text.strip().upper().rstrip("BIKMGT")
    unit = text.strip().upper()[len(number) :].strip()
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if unit not in units or not 0 < value < 1e15:
        raise UsageError(f"--memory {text}: write it like 16GiB or 512MiB")
    return int(value * units[unit])
