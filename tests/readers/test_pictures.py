"""Plain pictures and arrays: cut off or of another kind, they are refused and not shown in wrong colours."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

import wsikit as wk
from wsikit.errors import DamagedSlideError, UnsupportedFormatError

PICTURE = np.random.default_rng(1).integers(90, 250, (10, 13, 3), dtype=np.uint8).repeat(60, 0).repeat(60, 1)


def read(path: Path) -> np.ndarray:
    with wk.open_slide(path) as slide:
        return slide.read((0, 0, *slide.size))


def jpeg(thumbnail: bool = False) -> bytes:
    data = imagecodecs.jpeg8_encode(PICTURE, level=90)
    if not thumbnail:
        return data
    small = imagecodecs.jpeg8_encode(PICTURE[::8, ::8].copy())
    return data[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small + data[2:]


@pytest.mark.parametrize("thumbnail", [False, True])
def test_a_jpeg_that_stops_early_is_no_grey_slide(thumbnail: bool, tmp_path: Path) -> None:
    """A thumbnail in its metadata has an end marker of its own."""
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(thumbnail))
    assert read(path).shape == PICTURE.shape
    path.write_bytes(jpeg(thumbnail)[: len(jpeg(thumbnail)) * 3 // 4])
    with pytest.raises(DamagedSlideError, match="cut off"):
        read(path)


def test_pictures_of_other_kinds_are_refused(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / "cmyk.jpg")
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(PICTURE.astype(np.uint16) * 257))
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(header + bytes(100))
    for name, says in (("cmyk.jpg", "CMYK"), ("deep.png", "8 bits"), ("bomb.png", "60000 × 60000 px in one picture")):
        with pytest.raises(UnsupportedFormatError, match=says):
            read(tmp_path / name)


def test_arrays_of_other_kinds_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "zip.npz", PICTURE)
    (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
    np.save(tmp_path / "float.npy", PICTURE / 255)
    np.save(tmp_path / "grey.npy", PICTURE[..., 0])
    np.save(tmp_path / "object.npy", np.array([{}], object))
    np.save(tmp_path / "none.npy", PICTURE[:0])
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "cut.npy", PICTURE)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:5000])
    for name in ("zip", "float", "grey", "object", "none", "empty", "cut"):
        with pytest.raises(UnsupportedFormatError):
            read(tmp_path / f"{name}.npy")


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(PICTURE).convert("L")
    for mode in ("L", "LA", "P", "1"):
        path = tmp_path / f"{mode}.png"
        picture = grey.convert(mode)
        picture.save(path)
        assert np.array_equal(read(path), np.asarray(picture.convert("RGB"))), mode
    grey.save(tmp_path / "grey.jpg", quality=95)
    assert np.abs(read(tmp_path / "grey.jpg").astype(float) - np.asarray(grey)[..., None]).mean() < 3
