"""Receipts: what a line says holds, and what a crash does to lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import OutputError
from wsikit.store.receipts import Receipt, append_receipt, digests, read_receipts, rewrite_receipts

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
receipts = st.builds(Receipt, block=text, keys=st.dictionaries(text, text, max_size=2), files=st.dictionaries(text, text, max_size=2))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("receipts") / "r.jsonl"


@settings(max_examples=40, deadline=None)
@given(st.lists(receipts, max_size=4))
def test_what_is_appended_is_read(scratch: Path, written: list[Receipt]) -> None:
    scratch.unlink(missing_ok=True)
    for receipt in written:
        append_receipt(scratch, receipt)
    assert read_receipts(scratch) == written


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_torn_file_loses_only_its_torn_line(scratch: Path, data: st.DataObject) -> None:
    """Whatever byte a crash stopped at, earlier lines stand, and lines appended later are read."""
    scratch.unlink(missing_ok=True)
    written = [Receipt(block=f"r{i}c0", keys={"mitosis": "k"}, files={f"a/{i}": "d" * 64}) for i in range(3)]
    ends = []
    for receipt in written:
        append_receipt(scratch, receipt)
        ends.append(scratch.stat().st_size)
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(scratch, cut)
    whole = [r for r, end in zip(written, ends, strict=True) if end <= cut]
    complete_but_for_its_newline = [r for r, end in zip(written, ends, strict=True) if end - 1 == cut]
    assert read_receipts(scratch) == whole + complete_but_for_its_newline
    later = Receipt(block="later", keys={}, files={})
    append_receipt(scratch, later)
    append_receipt(scratch, later)
    assert read_receipts(scratch) == [*whole, *complete_but_for_its_newline, later, later]


def test_garbage_is_as_if_never_written(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    good = Receipt(block="r0c0", keys={"a": "1"}, files={})
    append_receipt(path, good)
    with path.open("ab") as f:
        f.write(b'\xff\xfe\x00garbage\n[]\n{}\n{"block": 1}\n\n')
    append_receipt(path, good)
    assert read_receipts(path) == [good, good]


def test_no_file_is_no_receipts(tmp_path: Path) -> None:
    assert read_receipts(tmp_path / "none.jsonl") == []


def test_rewriting_forgets_who_finished_first(tmp_path: Path) -> None:
    made = [Receipt(block=b, keys={}, files={}) for b in ("r1c0", "slide", "r0c1")]
    rewrite_receipts(tmp_path / "a", made)
    rewrite_receipts(tmp_path / "b", reversed(made))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert [r.block for r in read_receipts(tmp_path / "a")] == ["r0c1", "r1c0", "slide"]


def test_a_receipt_holds_while_every_byte_does(tmp_path: Path) -> None:
    (tmp_path / "s/0").mkdir(parents=True)
    files = [tmp_path / "s/0/a", tmp_path / "s/b"]
    for file in files:
        file.write_bytes(b"some bytes")
    receipt = Receipt(block="r0c0", keys={}, files=digests(tmp_path, files))
    assert set(receipt.files) == {"s/0/a", "s/b"}
    assert receipt.holds(tmp_path)
    for file in files:
        for damage in (b"some bytez", b"some byte", b"some bytes ", b""):
            file.write_bytes(damage)
            assert not receipt.holds(tmp_path), damage
        file.unlink()
        assert not receipt.holds(tmp_path)
        file.mkdir()
        assert not receipt.holds(tmp_path)
        file.rmdir()
        file.write_bytes(b"some bytes")
        assert receipt.holds(tmp_path)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="no space left on the disk"):
        append_receipt(tmp_path / "r.jsonl", Receipt(block="r0c0", keys={}, files={}))
