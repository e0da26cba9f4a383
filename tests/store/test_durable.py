"""Files are there whole or not at all, whatever interrupts their writing."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wsikit.errors import OutputError
from wsikit.store.durable import atomic_file, digest_of, disk_errors, sha256_file, write_atomic, write_json


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "new/a.bin") as f:
        f.write(b"half")
        f.flush()
        assert not (tmp_path / "new/a.bin").exists()
        f.write(b" whole")
    assert (tmp_path / "new/a.bin").read_bytes() == b"half whole"
    assert names(tmp_path / "new") == ["a.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    write_atomic(tmp_path / "a", b"old")
    with pytest.raises(error), atomic_file(tmp_path / "a") as f:
        f.write(b"new")
        raise error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"old")
    (tmp_path / f".a.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"a: no space left on the disk; free some") as caught:
        write_atomic(tmp_path / "a", b"new")
    assert caught.value.__cause__ is not None
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"cannot be written \(.*; choose another folder"):
        write_atomic(tmp_path / "file/below/a", b"x")
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT])
def test_what_a_disk_can_refuse(number: int) -> None:
    with pytest.raises(OutputError, match="/out"), disk_errors(Path("/out")):
        raise OSError(number, os.strerror(number))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(OSError, match="a bad sector") as caught, disk_errors(Path("/out")):
        raise OSError(errno.EIO, "a bad sector")
    assert not isinstance(caught.value, OutputError)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_has_no_nan(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"per_mm2": value})
    assert names(tmp_path) == []


def test_json_keeps_floats_and_letters(tmp_path: Path) -> None:
    value = {"µm": 0.1 + 0.2, "many": [1e-300, 2**53]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == value


def test_digests() -> None:
    assert digest_of({"a": 1, "b": [2.0]}) == digest_of({"b": [2.0], "a": 1})
    assert len({digest_of(v) for v in (1, 1.5, "1", [1], {"1": 1}, None, True)}) == 7


def test_a_files_digest_is_that_of_other_tools(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1


WRITER = """
import sys
from pathlib import Path
from wsikit.store.durable import write_atomic
for n in range(10**9):
    write_atomic(Path(sys.argv[1]), bytes([n % 251]) * 200_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    for round_ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(target)])
        target.unlink(missing_ok=True)
        while not target.exists():
            time.sleep(0.002)
        time.sleep(0.02 + 0.013 * round_)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        data = target.read_bytes()
        assert len(data) == 200_000
        assert len(set(data)) == 1


def test_flips_are_seen(tmp_path: Path, flip: Callable[[Path, int], None]) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    before = sha256_file(tmp_path / "a")
    flip(tmp_path / "a", 999)
    assert sha256_file(tmp_path / "a") != before
