"""Who works in a folder? One process at a time, and a process that dies lets go of it.

The system's own lock does that where there is one. On file systems without locks (some network shares) and on Windows it is a small file
whose time its owner renews: another process takes it over once it was not renewed for a while.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0  # an owner that has not renewed it for so long is dead


@contextlib.contextmanager
def lease(path: Path) -> Iterator[bool]:
    """Whether this process alone holds the file, until the block ends."""
    with path.open("ab") as f:
        held = _locked(f)
        if held is not None:
            yield held
            return
    with _kept(path.with_suffix(".lease")) as mine:
        yield mine


def _locked(file: Any) -> bool | None:
    """Whether the system gives us its lock; None where it has none."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has none
        return None
    return True


@contextlib.contextmanager
def _kept(path: Path) -> Iterator[bool]:
    """Whether the file could be made, by us alone; it is renewed from a thread and removed in the end."""
    if _silent(path):
        path.unlink(missing_ok=True)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        yield False
        return
    done = threading.Event()
    beat = threading.Thread(target=_renew, args=(path, done), name="wsikit-lease", daemon=True)
    beat.start()
    try:
        yield True
    finally:
        done.set()
        beat.join()
        path.unlink(missing_ok=True)


def _renew(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):  # a share that is away for a moment
            path.touch()


def _silent(path: Path) -> bool:
    """Whether a file is there that nobody renews, by the clock of the file system itself; that may be set forward, so it is watched for a beat."""
    now = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        now.touch()
        last = path.stat().st_mtime
        if now.stat().st_mtime - last <= SILENT_SECONDS:
            return False
        time.sleep(2 * BEAT_SECONDS)
        return path.stat().st_mtime == last
    except FileNotFoundError:
        return False
    finally:
        now.unlink(missing_ok=True)
