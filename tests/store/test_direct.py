"""Files written past the page cache: whole, with the right digest, or not there at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import OutputError
from wsikit.store import direct
from wsikit.store.direct import write_later, write_parts

PIECE = direct._PIECE


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.sampled_from([0, 1, 511, 4095, 4096, 4097, PIECE - 1, PIECE, PIECE + 5]), max_size=4), background=st.booleans())
def test_the_file_has_the_parts_bytes_and_their_digest(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], background: bool) -> None:
    file, parts = tmp_path_factory.mktemp("direct") / "new/folder/file", [os.urandom(n) for n in sizes]
    found = write_later(file, iter(parts)).result() if background else write_parts(file, parts)
    assert file.read_bytes() == b"".join(parts)
    assert found == hashlib.sha256(b"".join(parts)).hexdigest()
    assert [p.name for p in file.parent.iterdir()] == ["file"]


def test_many_files_at_once_do_not_mix(tmp_path: Path) -> None:
    contents = {tmp_path / str(i): os.urandom(100_000 + i) for i in range(20)}
    pending = {file: write_later(file, [data[:50_000], data[50_000:]]) for file, data in contents.items()}
    for file, data in contents.items():
        assert pending[file].result() == hashlib.sha256(data).hexdigest()
        assert file.read_bytes() == data


def test_an_error_while_parts_are_made_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_parts(file, [b"old"])

    def parts() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_later(file, parts())
    assert write_later(tmp_path / "b", [b"next"]).result()  # the writer goes on, and was done with the other
    assert file.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_where_there_is_no_way_past_the_cache_the_ordinary_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    write_parts(tmp_path / "a", [b"x" * 5000])
    assert (tmp_path / "a").read_bytes() == b"x" * 5000


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system has no /dev/shm")
def test_a_file_system_in_memory_works_too() -> None:
    file = Path(f"/dev/shm/wsikit-test-{os.getpid()}")
    try:
        write_parts(file, [b"y" * 4097])
        assert file.read_bytes() == b"y" * 4097
    finally:
        file.unlink(missing_ok=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, mode=0o777: real("/dev/full" if flags & os.O_WRONLY else path, flags & ~os.O_TRUNC, mode))
    for written in (write_later(tmp_path / "a", [b"z"]), write_later(tmp_path / "b", [b"z" * (PIECE + 1)])):
        with pytest.raises(OutputError, match="no space left"):
            written.result()
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
