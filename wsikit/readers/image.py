"""Plain JPEG and PNG pictures, which need an mpp from the user."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import ClassVar

import imagecodecs
import numpy as np
import simplejpeg

from wsikit.errors import DamagedSlideError, UnsupportedFormatError
from wsikit.geometry import Level, Size
from wsikit.readers import Facts, Reader
from wsikit.readers._said import said

_MAGIC = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
_MAX_FILE_BYTES = 512 * 1024**2
_MAX_PIXELS = 500_000_000
_JFIF = b"JFIF\0"
# Adobe's marker says whether the colours are YCbCr; decoders guess where there is none
_ADOBE = {False: b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x01", True: b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"}
_JPEG_END = b"\xff\xd9"


def _kind(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as f:
        head = f.read(8)
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


class ImageReader(Reader):
    """A whole picture decoded into memory: fine for fields and small sections."""

    name: ClassVar[str] = "image"

    @classmethod
    def accepts(cls, path: Path) -> int:
        """50 for JPEG and PNG, by their first bytes."""
        return 50 if _kind(path) else 0

    def __init__(self, path: Path) -> None:
        kind = _kind(path)
        if kind is None:
            raise UnsupportedFormatError(f"{path}: neither JPEG nor PNG")
        self._kind = kind
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UnsupportedFormatError(f"{path}: a plain picture of more than 512 MiB; convert it to a pyramidal OME-TIFF")
        data = path.read_bytes()
        w, h = jpeg_size(data) if kind == "jpeg" else _png_size(data)
        if w * h > _MAX_PIXELS:
            raise UnsupportedFormatError(f"{path}: {w} × {h} px in one picture; convert it to a pyramidal OME-TIFF")
        if kind == "png" and not png_is_whole(data):
            raise DamagedSlideError(f"{path}: the PNG is cut off, or some of its bytes are not those that were written; copy it again")
        try:
            image = imagecodecs.jpeg8_decode(data) if kind == "jpeg" else imagecodecs.png_decode(data)
        except Exception as e:  # imagecodecs has an exception class per codec
            raise DamagedSlideError(f"{path}: the {kind.upper()} cannot be decoded ({said(e)})") from e
        if kind == "jpeg" and image.ndim == 3 and image.shape[2] == 4:
            raise UnsupportedFormatError(f"{path}: a CMYK picture for printing; save it as RGB")
        if kind == "jpeg" and not jpeg_is_whole(data):
            raise DamagedSlideError(f"{path}: the JPEG is cut off; copy it again")
        self._image = _to_rgb(image, path)

    @property
    def facts(self) -> Facts:
        """One level, no resolution: dpi values of pictures say nothing about a microscope."""
        h, w = self._image.shape[:2]
        return Facts(vendor=self._kind, levels=(Level(0, Size(w, h), (1.0, 1.0)),))

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels: uint8 (h, w, 3)."""
        return self._image[y : y + h, x : x + w].copy()

    def close(self) -> None:
        """Let go of the pixels."""
        self._image = np.empty((0, 0, 3), np.uint8)


def decode_jpeg(data: bytes, tables: bytes | None = None, *, rgb: bool = False) -> np.ndarray:
    """A JPEG of three colours, with the ``tables`` that a TIFF keeps apart: uint8 (H, W, 3). Its colours are RGB as stored, or YCbCr.

    Other decoders make up what damage left unreadable, and go on; this one does not.

    Raises
    ------
    ValueError
        It cannot be decoded, or not without guessing.
    """
    if tables:
        data = tables[:-2] + data[2:]
    at = _frame(data)
    if not at or (rgb and _JFIF in data[:64]):
        raise ValueError("no JPEG, or one that is YCbCr and should be RGB")
    return np.asarray(simplejpeg.decode_jpeg(data[:at] + _ADOBE[rgb] + data[at:], strict=True))


def png_is_whole(data: bytes) -> bool:
    """Whether every chunk of a PNG has its checksum, up to the last one.

    Also because each PNG on which imagecodecs 2026.3.6 fails takes one reference from None: enough of them end the process.
    """
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height from the header, so that a bomb is refused before it is unpacked."""
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height from a JPEG's frame header; 0, 0 where there is none."""
    i = _frame(data)
    return (int.from_bytes(data[i + 7 : i + 9], "big"), int.from_bytes(data[i + 5 : i + 7], "big")) if i else (0, 0)


def jpeg_sampling(data: bytes) -> tuple[int, ...]:
    """How densely each colour of a JPEG is sampled (4 bits across, 4 down); colours of red, green and blue are all alike."""
    i = _frame(data)
    return tuple(data[i + 11 : i + 11 + 3 * data[i + 9] : 3]) if i and i + 9 < len(data) else ()


def jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG has its end marker; where it is missing, libjpeg fills up with grey and says nothing."""
    return data.find(_JPEG_END, _frame(data)) >= 0


def _frame(data: bytes) -> int:
    """Where a JPEG's frame header begins: behind any thumbnail in the metadata; 0 where there is none."""
    i = 2
    while i + 9 < len(data):
        if data[i] != 0xFF:
            i += 1
            continue
        marker, length = data[i + 1], int.from_bytes(data[i + 2 : i + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return i
        i += 1 if marker == 0xFF else 2 + length
    return 0


def _to_rgb(image: np.ndarray, path: Path) -> np.ndarray:
    if image.dtype != np.uint8:
        raise UnsupportedFormatError(f"{path}: {image.dtype} samples; H&E pictures have 8 bits")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, -1)
    if image.shape[2] == 2:
        image = np.concatenate([np.repeat(image[..., :1], 3, -1), image[..., 1:]], -1)
    if image.shape[2] == 4:
        a = image[..., 3:].astype(np.uint16)
        image = ((image[..., :3] * a + 255 * (255 - a) + 127) // 255).astype(np.uint8)
    return image


READER = ImageReader
