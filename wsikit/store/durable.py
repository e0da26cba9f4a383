"""Files that are either there whole or not at all, also after kill -9 or a power cut."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from wsikit.errors import OutputError


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn "disk full" and "read-only" into an `OutputError` that says what to do.

    Raises
    ------
    OutputError
        Something inside met a full or unwritable disk.
    """
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{where}: no space left on the disk; free some and run the same command again, finished blocks are kept") from e
        if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise OutputError(f"{where}: cannot be written ({e.strerror}); choose another folder with -o") from e
        raise


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Where to write (and sync) a file that gets its name when the block ends without an error, and is gone otherwise.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield tmp
            tmp.replace(path)
        finally:
            tmp.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under its name, flushed to the disk, when the block ends without an error.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    with atomic_path(path) as tmp, tmp.open("wb") as f:
        yield f
        f.flush()
        os.fsync(f.fileno())


def write_atomic(path: Path, data: bytes) -> None:
    """A whole file at once, by `atomic_file`."""
    with atomic_file(path) as f:
        f.write(data)


def write_json(path: Path, value: Any) -> None:
    """A JSON file, written by `write_atomic`; NaN is refused, since JSON has none."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def sync_folder(path: Path) -> None:
    """Wait until a folder's entries are on the disk (where the system can say so)."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """A short digest of plain values: equal exactly when they are equal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
