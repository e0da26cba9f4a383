"""A large JSON file's features, one by one: memory is that of the largest, and a file made to exhaust it is refused.

Own code, since ijson takes 25 GB for 100,000 brackets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from wsikit.errors import LabelsError

_READ = 2**20
_LARGEST = 2**27  # characters of one feature: some ten million vertices
_SPACE = " \t\r\n"


def stream_features(path: Path) -> tuple[dict[str, Any], Iterator[Any]]:
    """What a FeatureCollection says before its features, and the features; or of a bare list of features nothing, and its items.

    Raises
    ------
    LabelsError
        The file cannot be read or is not such JSON; also later, from the iterator.
    """
    try:
        text = _Text(path.open(encoding="utf-8-sig"))
        head = _head(text)
    except (OSError, ValueError, RecursionError) as e:
        raise _unreadable(path, e) from e
    return head, _items(text, path)


def _head(text: _Text) -> dict[str, Any]:
    head: dict[str, Any] = {}
    if text.take("[{") == "[":
        return head
    while True:
        key = text.value()
        text.take(":")
        if key == "features":
            text.take("[")
            return head
        head[str(key)] = text.value()
        if text.take(",}") == "}":
            raise ValueError("it has no features; export a FeatureCollection")


def _items(text: _Text, path: Path) -> Iterator[Any]:
    try:
        if text.peek() == "]":
            return
        while True:
            yield text.value()
            if text.take(",]") == "]":
                return
    except (OSError, ValueError, RecursionError) as e:
        raise _unreadable(path, e) from e
    finally:
        text.file.close()


def _unreadable(path: Path, e: Exception) -> LabelsError:
    return LabelsError(f"{path}: cannot be read as GeoJSON ({' '.join(str(e).split())[:120]}); export it from QuPath again")


class _Text:
    """A file's text, as much of it as the next value needs."""

    def __init__(self, file: TextIO) -> None:
        self.file, self._text, self._at, self._decoder = file, "", 0, json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._more(_READ):
                return self._text[self._at : self._at + 1]

    def take(self, wanted: str) -> str:
        """The next character, which must be one of these."""
        found = self.peek()
        if not found or found not in wanted:
            raise ValueError(f"'{found}' where one of {' '.join(wanted)} should be" if found else "it ends early")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value."""
        self.peek()
        size = _READ
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._more(size):
                    raise
            else:
                length = end - self._at
                if end + len("e+1") <= len(self._text) or not self._more(size):  # else a number may go on
                    self._at += length
                    return found
            size *= 2

    def _more(self, size: int) -> bool:
        """Read on, and let go of what is behind; false at the end of the file."""
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > _LARGEST:
            raise ValueError(f"a feature of more than {_LARGEST} characters")
        new = self.file.read(size)
        self._text += new
        return bool(new)
