"""Where the native reader takes a file, its pixels are OpenSlide's; where it cannot promise that, OpenSlide reads the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from wsikit.errors import DamagedSlideError
from wsikit.readers import find_reader
from wsikit.readers._tiles import TiledLevel
from wsikit.readers.native import NativeReader
from wsikit.readers.openslide import OpenSlideReader

SIZES = [(700, 612), (350, 306), (87, 76)]  # height, width; 4.02 and 8.05: no whole downsample at the last level
APERIO = "Aperio Image Library v12.0.0\r\n612x700 [0,0 612x700] (240x240) Q=85|AppMag = 20|MPP = 0.5"
FLAVOURS: dict[str, dict[str, Any]] = {
    "jpeg ycbcr 4:2:0": {"compression": "jpeg", "photometric": "rgb", "compressionargs": {"level": 85}},
    "jpeg ycbcr 4:4:4": {"compression": "jpeg", "photometric": "rgb", "subsampling": (1, 1), "compressionargs": {"level": 85}},
    "jpeg rgb": {"compression": "jpeg", "photometric": "rgb", "compressionargs": {"level": 85, "outcolorspace": "rgb"}},
    "jpeg 2000 rgb": {"compression": 33005, "photometric": "rgb", "compressionargs": {"level": 80}},
    "lzw": {"compression": "lzw", "photometric": "rgb", "predictor": True},
    "deflate": {"compression": "zlib", "photometric": "rgb"},
    "uncompressed": {"photometric": "rgb"},
}


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours with noise: nothing of it repeats."""
    rng = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    base = np.stack([128 + 100 * np.sin(x / 37), 128 + 90 * np.cos(y / 23), 128 + 80 * np.sin((x + y) / 51)], -1)
    return np.clip(base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8)


def write(path: Path, description: str = APERIO, sizes: list[tuple[int, int]] | None = None, tile: tuple[int, int] = (240, 240), **how: Any) -> Path:
    tile = (256, 256) if how.get("compression") in ("jpeg", None) and tile == (240, 240) else tile
    with tifffile.TiffWriter(path) as tif:
        for i, (h, w) in enumerate(sizes or SIZES):
            tif.write(picture(h, w), tile=tile, description=description if i == 0 else "Aperio", metadata=None, subfiletype=1 if i else 0, **how)
    return path


@pytest.fixture(scope="module", params=list(FLAVOURS))
def flavour(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NativeReader, OpenSlideReader]]:
    path = write(tmp_path_factory.mktemp("native") / "slide.svs", **FLAVOURS[request.param])
    assert find_reader(path) is NativeReader
    native, other = NativeReader(path), OpenSlideReader(path)
    yield native, other
    native.close()
    other.close()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_regions_equal_openslides(flavour: tuple[NativeReader, OpenSlideReader], data: st.DataObject) -> None:
    native, other = flavour
    level = data.draw(st.integers(0, 1))
    size = native.facts.levels[level].size
    x, y = data.draw(st.integers(0, size.w - 1)), data.draw(st.integers(0, size.h - 1))
    w, h = data.draw(st.integers(1, size.w - x)), data.draw(st.integers(1, size.h - y))
    np.testing.assert_array_equal(native.read(level, x, y, w, h), other.read(level, x, y, w, h))


def test_facts_are_openslides(flavour: tuple[NativeReader, OpenSlideReader]) -> None:
    native, other = flavour
    assert native.facts == other.facts


def test_the_last_level_is_the_picture_itself(flavour: tuple[NativeReader, OpenSlideReader]) -> None:
    native, _ = flavour
    level = native.facts.levels[2]
    ours = native.read(2, 0, 0, *(level.size.w, level.size.h)).astype(int)
    assert np.abs(ours - picture(level.size.h, level.size.w)).mean() < 12


def test_generic_tiff_with_a_missing_tile_is_white_there(tmp_path: Path) -> None:
    tiles = [picture(256, 256), None, picture(256, 256) // 2, picture(256, 256)]
    path = tmp_path / "hole.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(iter(tiles), shape=(512, 512, 3), dtype="uint8", tile=(256, 256), photometric="rgb", compression="zlib", metadata=None)
    reader = NativeReader(path)
    assert find_reader(path) is NativeReader
    assert (reader.read(0, 256, 0, 256, 256) == 255).all()
    np.testing.assert_array_equal(reader.read(0, 0, 256, 256, 256), tiles[2])


def test_other_pixels_than_openslides_are_left_to_openslide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "odd.svs", **FLAVOURS["deflate"])
    decode = TiledLevel._decode
    monkeypatch.setattr(TiledLevel, "_decode", lambda self, fd, index: decode(self, fd, index) ^ 1)
    assert find_reader(path) is OpenSlideReader


def test_aperio_with_a_missing_tile_is_left_to_openslide(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svs", **FLAVOURS["deflate"])
    path.write_bytes(_without_tile(path, 1))
    assert NativeReader.accepts(path) == 0


def test_a_zeroed_tile_is_an_error_and_not_a_colour(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svs", **FLAVOURS["jpeg ycbcr 4:2:0"])
    with tifffile.TiffFile(path) as tif:
        # the emptiest tile is not among those compared when the file is opened
        counts = tif.pages[0].databytecounts
        index = int(np.argmin(counts[:-1]))
        offset, count = tif.pages[0].dataoffsets[index], counts[index]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = bytes(count)
    path.write_bytes(bytes(data))
    reader = find_reader(path)(path)
    with pytest.raises(DamagedSlideError, match=r"a\.svs: level of 612 × 700 px, tile \d+"):
        reader.read(0, 0, 0, 612, 700)


def _without_tile(path: Path, index: int) -> bytes:
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = tif.pages[0].tags[name]
            n = {3: 2, 4: 4}[int(tag.dtype)]
            raw[tag.valueoffset + n * index : tag.valueoffset + n * (index + 1)] = bytes(n)
    return bytes(raw)
