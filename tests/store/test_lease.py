"""One process at a time, with the system's lock and without; a process that dies lets go."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsikit.store import lease as leases
from wsikit.store.lease import lease

HOLDER = """
import errno, sys, time
from pathlib import Path
from wsikit.store import lease
if sys.argv[2] == "without":
    import fcntl
    def no_locks(*_): raise OSError(errno.ENOLCK, "no locks available")
    fcntl.flock = no_locks
lease.BEAT_SECONDS = 0.05
with lease.lease(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["with", "without"])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The system's locks, or a file system that has none (which cannot be had here)."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    if request.param == "without":
        monkeypatch.setattr("fcntl.flock", no_locks)
        monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
        monkeypatch.setattr(leases, "SILENT_SECONDS", 1.0)
    return str(request.param)


@pytest.fixture
def holder(tmp_path: Path, locks: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock"), locks], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()


def test_it_is_for_one_and_dies_with_its_owner(tmp_path: Path, holder: subprocess.Popen[str], locks: str) -> None:
    path = tmp_path / "lock"
    time.sleep(1.3 if locks == "without" else 0)  # longer than a silence: the owner has renewed it
    with lease(path) as mine:
        assert not mine
    holder.kill()
    holder.wait()
    time.sleep(1.3 if locks == "without" else 0)
    with lease(path) as mine:
        assert mine
        with lease(path) as again:
            assert not again
    with lease(path) as mine:
        assert mine


@pytest.mark.usefixtures("locks")
def test_nothing_is_left_and_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lease(tmp_path / "lock") as mine:
        assert mine
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_a_clock_that_is_off_takes_nothing_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the file system's clock that counts, not this machine's."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    (tmp_path / "lock.lease").touch()
    with lease(tmp_path / "lock") as mine:
        assert not mine
    os.utime(tmp_path / "lock.lease", (1e9, 1e9))
    with lease(tmp_path / "lock") as mine:
        assert mine


def test_a_clock_that_is_set_forward_takes_nothing_from_a_living_owner(tmp_path: Path, holder: subprocess.Popen[str], locks: str) -> None:
    """Its file looks an hour old until it is renewed."""
    if locks == "without":
        os.utime(tmp_path / "lock.lease", (1e9, 1e9))
    with lease(tmp_path / "lock") as mine:
        assert not mine
    assert holder.poll() is None
