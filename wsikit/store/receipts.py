"""What of a slide is done? One line of JSON per committed block, beside its store.

A block's files are on the disk before its line is written, so what a receipt names was once whole; `holds` says
whether it still is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from wsikit.store.durable import disk_errors, sha256_file, write_atomic


class Receipt(BaseModel):
    """One committed piece of work.

    ``block`` is its name, or ``slide`` for what was put together from all of them; ``keys`` maps each stage (a
    model's name, or ``pixels``) to the digest of everything its bytes depend on; ``files`` maps paths, relative to the
    run's ``slides`` folder, to the SHA-256 of their bytes; ``damaged`` are the boxes x, y, width, height in level-0 px that could not be decoded.
    """

    model_config = ConfigDict(frozen=True)

    block: str
    keys: dict[str, str]
    files: dict[str, str]
    damaged: list[tuple[int, int, int, int]] = []

    def holds(self, folder: Path) -> bool:
        """Whether every file is there with these very bytes."""
        return all((folder / name).is_file() and sha256_file(folder / name) == digest for name, digest in self.files.items())


def append_receipt(path: Path, receipt: Receipt) -> None:
    """Add a line and wait until it is on the disk. One process writes a slide's receipts.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    with disk_errors(path), path.open("a+b") as f:
        if f.tell() and (f.seek(-1, os.SEEK_END), f.read())[1] != b"\n":
            f.write(b"\n")  # a crash tore the last line off; this one must not become part of it
        f.write(_line(receipt))
        f.flush()
        os.fsync(f.fileno())


def read_receipts(path: Path) -> list[Receipt]:
    """All whole lines; one that a crash tore off is as if never written."""
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            found.append(Receipt.model_validate_json(line))
        except ValidationError:
            continue
    return found


def rewrite_receipts(path: Path, receipts: Iterable[Receipt]) -> None:
    """Replace all lines at once, sorted by block, so that the file does not tell who finished first."""
    write_atomic(path, b"".join(_line(r) for r in sorted(receipts, key=lambda r: r.block)))


def digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files, by their path relative to a folder."""
    return {str(f.relative_to(folder).as_posix()): sha256_file(f) for f in sorted(files)}


def _line(receipt: Receipt) -> bytes:
    value: dict[str, Any] = receipt.model_dump()
    return json.dumps(value, sort_keys=True).encode() + b"\n"
