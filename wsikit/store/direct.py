"""Large files written past the page cache, in the background, their digest taken on the way.

What is kept is synced to the disk at once, so the system's own copy of it only costs: up to a quarter of the time from slide to Zarr on
virtual machines, whose memory is handed back and has to be fetched again. Where a file system or a system has no such way of
writing, the ordinary one is taken.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import SimpleQueue

from wsikit.store.durable import atomic_path

_ALIGNED = 4096  # what every disk in use takes
_PIECE = 2**21  # measured: larger pieces fall out of the processor's cache between copying, hashing and writing


def write_parts(path: Path, parts: Iterable[bytes]) -> str:
    """Write a whole file from its parts, as `wsikit.store.durable.atomic_file` does; returns the SHA-256 of its bytes.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.

    >>> import tempfile
    >>> write_parts(Path(tempfile.mkdtemp()) / "a", [b"b", b"c"])[:8]
    '1e0bbd6c'
    """
    digest = hashlib.sha256()
    with atomic_path(path) as tmp:
        fd = _open(tmp)
        try:
            size = 0
            for piece, used in _pieces(parts):
                digest.update(piece[:used])
                _write(fd, piece[: -(-used // _ALIGNED) * _ALIGNED])
                size += used
            os.truncate(fd, size)
            os.fsync(fd)
        finally:
            os.close(fd)
    return digest.hexdigest()


def write_later(path: Path, parts: Iterable[bytes]) -> Future[str]:
    """The same in the background, each part as soon as it is there: only who asks for the digest waits for the disk.

    Returns once all parts are taken. An error in making them leaves no file.
    """
    queue: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
    digest = _writer().submit(write_parts, path, _taken(queue))
    end: BaseException | None = None
    try:
        for part in parts:
            queue.put(part)
    except BaseException as e:
        end = e
        raise
    finally:
        queue.put(end)
    return digest


def _taken(queue: SimpleQueue[bytes | BaseException | None]) -> Iterator[bytes]:
    while isinstance(part := queue.get(), bytes):
        yield part
    if part is not None:
        raise part


@cache
def _writer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="wsikit-write")


if hasattr(os, "register_at_fork"):  # a forked child has the pool's object but not its thread
    os.register_at_fork(after_in_child=_writer.cache_clear)


def _pieces(parts: Iterable[bytes]) -> Iterator[tuple[memoryview, int]]:
    """The parts one after another, in pieces that lie on a page's edge; how much of each is meant, all but for the last."""
    piece, used = memoryview(mmap.mmap(-1, _PIECE)), 0
    for part in parts:
        at = 0
        while at < len(part):
            n = min(_PIECE - used, len(part) - at)
            piece[used : used + n] = part[at : at + n]
            used, at = used + n, at + n
            if used == _PIECE:
                yield piece, used
                used = 0
    if used:
        yield piece, used


def _open(path: Path) -> int:
    flags, direct = os.O_WRONLY | os.O_CREAT | os.O_TRUNC, getattr(os, "O_DIRECT", 0)
    try:
        return os.open(path, flags | direct, 0o666)
    except OSError as e:
        if e.errno != errno.EINVAL:  # which says that this file system has no such way
            raise
    return os.open(path, flags, 0o666)


def _write(fd: int, data: memoryview) -> None:
    at = 0
    while at < len(data):
        at += os.write(fd, data[at:])
