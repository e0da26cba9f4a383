"""The journal of a slide's review: one line of JSON a change, on the disk before it counts, never altered afterwards.

``<slide_id>.review.jsonl`` lies beside the store. Each line carries a digest of itself and of the line before, so that a line that was changed
or lost is told; the last line, where a crash tore it off, is as if never written.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wsikit import __version__
from wsikit.errors import DamagedStoreError, OutputError, StoreMismatchError, UsageError
from wsikit.review.changes import Change, Entry
from wsikit.store.durable import disk_errors
from wsikit.store.lease import lease

SCHEMA = 1
WAIT_SECONDS = 5.0


def journal_path(store: Path) -> Path:
    """The journal beside a store."""
    return store.with_suffix(".review.jsonl")


class Journal:
    """The changes of one slide, oldest first.

    Attributes
    ----------
    entries : list of Entry
        Those on the disk when it was last looked at.

    Raises
    ------
    DamagedStoreError
        A line is not what was written.
    StoreMismatchError
        It is of another slide, or of a later wsikit.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self._digest = path, digest
        self.entries: list[Entry] = []
        self._sum, self._bytes = "", 0
        self.refresh()

    @property
    def sum(self) -> str:
        """A digest of all that was ever said; empty when nothing was."""
        return self._sum

    def refresh(self) -> bool:
        """Read what was added since, by another reviewer perhaps; whether there was anything."""
        if not self.path.exists() or self.path.stat().st_size <= self._bytes:
            return False
        with self.path.open("rb") as f:
            f.seek(self._bytes)
            lines = f.read().splitlines(keepends=True)
        before = len(self.entries)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._take(line)
        return len(self.entries) > before

    def _take(self, line: bytes) -> None:
        number = f"{self.path}: line {len(self.entries) + (2 if self._bytes else 1)}"
        try:
            value = json.loads(line)
            said = value.pop("sum")
        except (ValueError, AttributeError, KeyError, TypeError) as e:
            raise DamagedStoreError(f"{number} is damaged; put the file back from a copy, or move it away to begin the review anew") from e
        if said != _sum(self._sum, value):
            raise DamagedStoreError(f"{number}, or one before it, was changed after it was written; put the file back from a copy")
        if self._bytes:
            self._add(value, number)
        else:
            self._check_head(value)
        self._sum, self._bytes = said, self._bytes + len(line)

    def _check_head(self, head: dict[str, Any]) -> None:
        if head.get("schema") != SCHEMA:
            raise StoreMismatchError(f"{self.path}: a review of schema {head.get('schema')}, this wsikit reads {SCHEMA}")
        if head.get("slide") != self._digest:
            raise StoreMismatchError(f"{self.path}: a review of another slide file; move it away to begin one of this slide")

    def _add(self, value: dict[str, Any], number: str) -> None:
        try:
            entry = Entry.model_validate(value)
        except ValidationError as e:
            raise DamagedStoreError(f"{number} says nothing that this wsikit knows ({e.errors()[0]['msg']})") from e
        if entry.n != len(self.entries) + 1:
            raise DamagedStoreError(f"{number} has number {entry.n}, a line is missing")
        self.entries.append(entry)

    def append(self, changes: Sequence[tuple[Change, str]], by: str) -> list[Entry]:
        """Write changes, each with a comment, and wait until they are on the disk.

        Raises
        ------
        UsageError
            Initials are missing, or not 1 to 20 letters.
        OutputError
            The disk is full or cannot be written, or another process does not let go of the file.
        """
        _numbered(changes, by, 0)  # before there is a file: what is refused leaves nothing behind
        with disk_errors(self.path):
            until = time.monotonic() + WAIT_SECONDS
            while True:
                with lease(self.path) as mine:
                    if mine:
                        return self._append(changes, by)
                if time.monotonic() > until:
                    raise OutputError(f"{self.path}: another process holds this review; close it there and try again")
                time.sleep(0.02)

    def _append(self, changes: Sequence[tuple[Change, str]], by: str) -> list[Entry]:
        self.refresh()
        fresh = _numbered(changes, by, len(self.entries))
        head = [] if self._bytes else [{"schema": SCHEMA, "slide": self._digest, "wsikit": __version__}]
        data, total = b"", self._sum
        for value in head + [entry.model_dump(mode="json") for entry in fresh]:
            total = _sum(total, value)
            data += json.dumps(value | {"sum": total}, ensure_ascii=False).encode() + b"\n"
        with self.path.open("r+b") as f:
            f.truncate(self._bytes)  # what a crash tore off
            f.seek(self._bytes)
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        self.entries += fresh
        self._sum, self._bytes = total, self._bytes + len(data)
        return fresh


def _numbered(changes: Sequence[tuple[Change, str]], by: str, after: int) -> list[Entry]:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    try:
        return [Entry(n=after + i, time=now, by=by, comment=comment, change=change) for i, (change, comment) in enumerate(changes, 1)]
    except ValidationError as e:
        raise UsageError(f"a change needs the reviewer's initials (1 to 20 letters), and a comment of at most 2000: {e.errors()[0]['msg']}") from e


def _sum(before: str, value: Any) -> str:
    return hashlib.sha256((before + json.dumps(value, sort_keys=True)).encode()).hexdigest()[:16]
