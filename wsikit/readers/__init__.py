"""The ways into a file. One module per way; adding a reader is adding a module.

A reader module has ``READER``, a subclass of `Reader`. The one whose `Reader.accepts` answers highest opens
the file; nothing else in wsikit knows which it was.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from wsikit.errors import SlideError, SlideNotFoundError, UnsupportedFormatError, UsageError
from wsikit.geometry import Level, Region
from wsikit.location import is_remote
from wsikit.readers._said import quiet_libraries
from wsikit.resolution import Clue

quiet_libraries()


@dataclass(frozen=True)
class Facts:
    """What a file says of itself, without patient data.

    ``clues`` are its resolutions in order of trust; ``associated`` are the names of label, macro and
    thumbnail images, which are never read; ``properties`` holds allow-listed metadata only. ``not_he`` is why it can be no
    brightfield H&E stain (fluorescence, say), empty where nothing speaks against it. ``bounds`` is the scanned part of level 0, where
    the scanner says that the rest is empty. ``focal_planes`` are the names of its planes, where it has several, and ``focal_plane``
    the one that is read unless another is chosen. ``icc`` is its colour profile. ``private`` are places of the file that may tell of a patient, by name alone.
    """

    vendor: str
    levels: tuple[Level, ...]
    clues: tuple[Clue, ...] = ()
    objective: float | None = None
    icc: bytes = b""
    not_he: str = ""
    bounds: Region | None = None
    focal_planes: tuple[str, ...] = ()
    focal_plane: str = ""
    associated: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)
    private: tuple[str, ...] = ()


class Reader(ABC):
    """An open file. Not shared between threads: `wsikit.Slide` opens one per thread."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def accepts(cls, path: Path) -> int:
        """How well this reader suits the file: 0 not at all, else the highest wins. Never raises."""

    @abstractmethod
    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises
        ------
        UnsupportedFormatError
            It is not an image of the kind this reader knows.
        DamagedSlideError
            It is, but cannot be opened.
        """

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """What the file says of itself."""

    @abstractmethod
    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a level: uint8 (h, w, 3), the caller's to write on; the box lies inside the level; missing tiles are white.

        Raises
        ------
        DamagedSlideError
            A part of the box cannot be decoded.
        """

    def associated(self, name: str) -> tuple[np.ndarray, bytes]:
        """Label, macro or thumbnail, which may show a patient's name: uint8 (H, W, 3 or 4), and its colour profile.

        Raises
        ------
        UsageError
            There is none of that name that this reader reads.
        DamagedSlideError
            It cannot be decoded.
        """
        raise UsageError(f"no associated image '{name}' that reader '{self.name}' reads")

    def focus(self, plane: str) -> None:  # noqa: B027 - most slides have one plane
        """Read this focal plane from now on; one of ``facts.focal_planes``."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; safe to call twice."""

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """All files whose bytes make up the slide, sorted."""
        return [path]


@cache
def registry() -> dict[str, type[Reader]]:
    """Every reader whose libraries are installed, by name."""
    found: dict[str, type[Reader]] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        try:
            reader = getattr(importlib.import_module(f"{__name__}.{module.name}"), "READER", None)
        except ImportError:  # an extra that is not installed
            continue
        if reader is None:  # half of a module, whose import failed before
            continue
        found[reader.name] = reader
    return found


def candidates(path: Path) -> Iterator[type[Reader]]:
    """Readers that accept the file, best first."""
    scored = [(reader.accepts(path), name, reader) for name, reader in registry().items()]
    yield from (reader for score, _, reader in sorted(scored, key=lambda s: (-s[0], s[1])) if score > 0)


def find_reader(path: Path, name: str | None = None) -> type[Reader]:
    """The reader for a file, or the named one.

    Raises
    ------
    SlideNotFoundError
        There is nothing at the path.
    UnsupportedFormatError
        No reader accepts it.
    UsageError
        The named reader does not exist.
    """
    if not path.exists():
        raise SlideNotFoundError(f"{path}: {'nothing is there, or its server does not answer' if is_remote(path) else 'no such file'}; check the path")
    if name is not None:
        if name not in registry():
            raise UsageError(f"no reader is called '{name}'; there are: {', '.join(sorted(registry()))}")
        return registry()[name]
    for reader in candidates(path):
        return reader
    known = "supported are whole-slide formats of OpenSlide, CZI, DICOM, OME-TIFF, OME-Zarr, JPEG and PNG"
    raise UnsupportedFormatError(f"{path}: {_what_it_is(path)}; {known}")


_PACKED = {b"PK\x03\x04": "ZIP archive", b"\x1f\x8b": "gzip file", b"7z\xbc\xaf": "7-Zip archive", b"Rar!": "RAR archive", b"%PDF": "PDF"}


def _what_it_is(path: Path) -> str:
    if path.is_dir():
        return _what_folder_it_is(path)
    if path.stat().st_size == 0:
        return "the file is empty"
    with path.open("rb") as f:
        head = f.read(512)
    if path.suffix.lower() == ".isyntax":  # begins with XML, and would pass as a text file
        return "a Philips iSyntax, which only its maker's library reads; export it as TIFF there, or convert it to OME-TIFF"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a TIFF that no reader can use (truncated, or not a brightfield RGB image)"
    if packed := next((kind for start, kind in _PACKED.items() if head.startswith(start)), ""):
        return f"a {packed}, not a slide; unpack or export what is in it"
    if b"\0" not in head:
        return "this is a text file, not a slide"
    return "not a slide format that any reader knows, or damaged at its start"


def _what_folder_it_is(path: Path) -> str:
    from wsikit.readers._dicom import series_of

    try:
        series_of(path)
    except SlideError as e:
        why = str(e).removeprefix(f"{path}: ")
        return f"a folder that is not one slide ({why})"
    return "a folder that is not one slide"
