"""Damaged files, and files that are something else: a reason in one line, never made-up pixels, a hang or the end of the process."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import wsikit as wk
from wsikit.errors import DamagedSlideError, UnsupportedFormatError
from wsikit.readers import candidates
from wsikit.readers.tiff import directory_offsets

pytestmark = pytest.mark.timeout(60)
PICTURE = np.random.default_rng(1).integers(90, 250, (10, 13, 3), dtype=np.uint8).repeat(60, 0).repeat(60, 1)
H, W = PICTURE.shape[:2]


def everything(path: Path, reader: str | None = None) -> list[np.ndarray]:
    """All pixels of all levels, or our error with its reason."""
    try:
        with wk.open_slide(path, reader=reader, trusted=True) as slide:
            return [slide.read_level(v.index, wk.Region(0, 0, *v.size)) for v in slide.levels]
    except wk.WsikitError as e:
        assert str(path) in str(e)
        assert len(str(e)) > len(str(path)) + 10
        assert "\n" not in str(e)
        raise


def tiled(path: Path, **options: Any) -> Path:
    tifffile.imwrite(path, PICTURE, **{"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None} | options)
    return path


def place(path: Path, tag: str) -> tuple[int, int]:
    """Where a tag's value stands, and the bytes of one number."""
    with tifffile.TiffFile(path) as tif:
        found = tif.pages[0].tags[tag]
        return found.valueoffset, {3: 2, 4: 4, 16: 8}[int(found.dtype)]


def set_tag(path: Path, tag: str, value: int) -> Path:
    at, size = place(path, tag)
    return patch(path, at, value.to_bytes(size, "little"))


def patch(path: Path, at: int, new: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(new)] = new
    path.write_bytes(data)
    return path


def tile(path: Path, index: int = 0) -> tuple[int, int]:
    """Offset and bytes of a tile."""
    with tifffile.TiffFile(path) as tif:
        return tif.pages[0].dataoffsets[index], tif.pages[0].databytecounts[index]


def run(code: str, *arguments: Any) -> str:
    """A script in a process of its own, whose end would be ours."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout[-300:], done.stderr[-1500:])
    return done.stdout


def test_a_text_file_called_svs(tmp_path: Path) -> None:
    path = tmp_path / "report.svs"
    path.write_text("Macroscopy: a nodule of 4 cm\n" * 50)
    with pytest.raises(UnsupportedFormatError, match=r"report\.svs: this is a text file, not a slide; supported are"):
        everything(path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    with pytest.raises(UnsupportedFormatError, match="the file is empty"):
        everything(tmp_path / "a.svs")


def test_noise(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(np.random.default_rng(0).bytes(10_000))
    with pytest.raises(UnsupportedFormatError, match="not a slide format that any reader knows"):
        everything(tmp_path / "a.svs")


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_file_that_stops_early_gives_no_wrong_pixel(share: float, format_name: str, made, shorten, tmp_path: Path) -> None:
    whole = made(format_name).path
    path = tmp_path / format_name
    shorten(whole, path, share)
    refused = 0
    for reader in (r.name for r in candidates(whole)):
        try:
            found = everything(path, reader)
        except wk.WsikitError:
            refused += 1
            continue
        assert wk.Slide(path, reader=reader).mpp in (None, wk.Slide(whole, reader=reader).mpp)
        for ours, theirs in zip(found, everything(whole, reader), strict=False):
            assert np.array_equal(ours, theirs), reader
    assert refused


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("back", [0, 1])
def test_directories_in_a_circle(back: int, big: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=big) as tif:
        for _ in range(2):
            tif.write(PICTURE, tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None)
    offsets = directory_offsets(path)
    assert len(offsets) == 2
    data = path.read_bytes()
    count = int.from_bytes(data[offsets[1] : offsets[1] + (8 if big else 2)], "little")
    at = offsets[1] + (8 + 20 * count if big else 2 + 12 * count)
    patch(path, at, struct.pack("<Q" if big else "<I", offsets[back]))
    with pytest.raises(DamagedSlideError, match="image directory 2 points to byte"):
        directory_offsets(path)
    for reader in (None, "tiff", "openslide", "native"):
        with pytest.raises(wk.WsikitError):
            everything(path, reader)


@pytest.mark.parametrize("entries", [2**16 - 1, 2**40, 2**62, 2**64 - 1])
def test_a_directory_with_absurdly_many_entries(entries: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, entries) + bytes(200))
    with pytest.raises(DamagedSlideError):
        directory_offsets(path)
    with pytest.raises(UnsupportedFormatError, match="a TIFF that no reader can use"):
        everything(path)


@pytest.mark.parametrize("turn", ["to itself", "to the first image", "twice"])
def test_levels_in_a_circle(turn: str, made, tmp_path: Path) -> None:
    """SubIFDs that lead back, or to each other."""
    data = bytearray(made("subifds.ome.tif").path.read_bytes())
    with tifffile.TiffFile(made("subifds.ome.tif").path) as tif:
        page = tif.pages[0]
        first, at, subs = page.offset, page.tags["SubIFDs"].valueoffset, page.subifds
        size = {13: 4, 18: 8, 16: 8, 4: 4}[int(page.tags["SubIFDs"].dtype)]
    target = {"to itself": subs[0], "to the first image": first, "twice": subs[0]}[turn]
    if turn == "to itself":
        entries = int.from_bytes(data[subs[0] : subs[0] + 2], "little")
        at = subs[0] + 2 + 12 * entries
    else:
        at += size if turn == "twice" else 0
    path = tmp_path / "a.ome.tif"
    path.write_bytes(data[:at] + target.to_bytes(size, "little") + data[at + size :])
    if turn == "to itself":  # the chain behind a SubIFD is not followed
        assert np.array_equal(everything(path)[0], made("subifds.ome.tif").truth)
        return
    with pytest.raises(DamagedSlideError, match="no smaller picture"):
        everything(path)


OPENS = """
import sys, resource
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
import wsikit as wk
try:
    with wk.open_slide(sys.argv[1], trusted=True) as slide:
        slide.read((0, 0, *slide.size))
except wk.WsikitError as e:
    print(type(e).__name__, e)
"""


@pytest.mark.parametrize("side", [2**31 - 16, 2**24, 65_536])
def test_a_tile_too_large_for_memory_does_not_end_the_process(side: int, tmp_path: Path) -> None:
    """OpenSlide takes memory for whole tiles, and aborts when it gets none."""
    path = set_tag(set_tag(tiled(tmp_path / "a.tif"), "TileWidth", side), "TileLength", min(side, 2**24))
    assert "DamagedSlideError" in run(OPENS, path)


FUZZ = """
import collections, random, resource, signal, sys
from pathlib import Path
import numpy as np, tifffile
import wsikit as wk
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
source, reader, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
places = []
with tifffile.TiffFile(source) as tif:
    for page in [q for p in tif.pages for q in (p, *(p.pages or ()))]:
        places.append((page.offset, page.offset + 2 + 12 * len(page.tags)))
        places += [(t.valueoffset, t.valueoffset + 16) for t in page.tags]
def late(*_):
    raise TimeoutError("it hangs")
signal.signal(signal.SIGALRM, late)
outcomes = collections.Counter()
path = Path(sys.argv[4]) / source.name
for seed in range(count):
    r, data = random.Random(seed), bytearray(source.read_bytes())
    for _ in range(r.choice([1, 1, 2, 4])):
        low, high = r.choice(places)
        data[min(r.randrange(low, high), len(data) - 1)] = r.choice([0, 255, r.randrange(256)])
    path.write_bytes(data)
    print(seed, flush=True)
    signal.alarm(10)
    try:
        with wk.open_slide(path, reader=reader, trusted=True) as slide:
            for level in slide.levels:
                slide.read_level(level.index, wk.Region(0, 0, min(level.size.w, 2048), min(level.size.h, 2048)))
        outcomes["read"] += 1
    except wk.WsikitError:
        outcomes["refused"] += 1
    signal.alarm(0)
assert outcomes["refused"] > count / 5 and outcomes["read"] > count / 20, outcomes
"""


@pytest.mark.parametrize(
    ("name", "reader"),
    [("pyramid.tif", "openslide"), ("pyramid.tif", "native"), ("subifds.ome.tif", "tiff"), ("bigtiff.tif", "tiff"), ("bigendian.tif", "tiff")],
)
def test_any_broken_directory_is_read_or_refused(name: str, reader: str, made, tmp_path: Path) -> None:
    run(FUZZ, made(name).path, reader, 100, tmp_path)


@pytest.mark.parametrize("reader", ["openslide", "native", "tiff"])
@pytest.mark.parametrize("what", ["zeroed", "half zeroed", "noise", "another size", "another shape"])
def test_a_damaged_jpeg_tile_is_no_colour(what: str, reader: str, tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif")
    at, size = tile(path)
    other = tiled(tmp_path / "b.tif", tile=(512, 128) if what == "another shape" else (128, 128), compressionargs={"level": 50})
    start, length = tile(other)
    new = {
        "zeroed": bytes(size),
        "half zeroed": path.read_bytes()[at : at + size // 2] + bytes(size - size // 2),
        "noise": np.random.default_rng(0).bytes(size),
    }.get(what, other.read_bytes()[start : start + length] + bytes(max(0, size - length)))
    assert len(new) == size
    patch(path, at, new)
    with pytest.raises(DamagedSlideError, match=r"a\.tif: level"):
        everything(path, reader)


def test_tiles_that_do_not_make_up_the_image_are_refused(tmp_path: Path) -> None:
    """The image would be white, or its rows shifted."""
    for tag, value in (("ImageLength", 60_000), ("ImageWidth", 60_000), ("TileWidth", 65_520), ("TileLength", 16), ("TileWidth", 0)):
        with pytest.raises(DamagedSlideError):
            everything(set_tag(tiled(tmp_path / f"{tag}{value}.tif", compression="deflate"), tag, value), "tiff")


def test_one_huge_strip_costs_only_the_rows_that_are_read(tmp_path: Path) -> None:
    """ImageJ writes pictures so: 1.2 GB in one strip, of which nearly all is a hole in the file here."""
    w, h, rows = 20_000, 20_000, 64
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, shape=(h, w, 3), dtype=np.uint8, photometric="rgb", rowsperstrip=h, metadata=None, bigtiff=True)
    truth = np.random.default_rng(0).integers(0, 255, (rows, w, 3), dtype=np.uint8)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[0]
        assert tif.pages[0].databytecounts == (w * h * 3,)
    with path.open("r+b") as f:
        f.seek(offset + 3 * w * (h - rows))
        f.write(truth.tobytes())
    tracemalloc.start()
    with wk.open_slide(path) as slide:
        assert np.array_equal(slide.read((5000, h - rows, 900, rows)), truth[:, 5000:5900])
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_a_strip_too_short_for_its_rows_is_damaged(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PICTURE, photometric="rgb", rowsperstrip=H, metadata=None)
    set_tag(tmp_path / "a.tif", "StripByteCounts", H * W * 3 - 1)
    with pytest.raises(DamagedSlideError, match=r"strip 0 has \d+ bytes"):
        everything(tmp_path / "a.tif")


def test_a_missing_tile_is_white(tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif")
    at, size = place(path, "TileByteCounts")
    patch(path, at, bytes(size))
    for reader in ("tiff", "native"):
        pixels = everything(path, reader)[0]
        assert (pixels[:256, :256] == 255).all()
        assert pixels[256:].mean() < 200


def test_colours_that_are_not_rgb_are_refused(tmp_path: Path) -> None:
    """CMYK, CIELab and raw YCbCr have three or four bytes a pixel too, and would pass as wrong colours."""
    four = np.concatenate([PICTURE, PICTURE[..., :1]], -1)
    for name, pixels, kind in (("cmyk", four, "separated"), ("lab", PICTURE, "cielab"), ("ycbcr", PICTURE, "ycbcr")):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric=kind, compression="deflate", metadata=None)
        with pytest.raises(UnsupportedFormatError, match=f"not a brightfield RGB image.*{kind.upper()}"):
            everything(tmp_path / f"{name}.tif")


def test_xml_entities_are_refused(tmp_path: Path) -> None:
    xml = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">&a;</OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", PICTURE, photometric="rgb", description=xml, metadata=None)
    with pytest.raises(wk.WsikitError):
        everything(tmp_path / "a.ome.tif")


def test_slides_damaged_in_the_field(data: Path) -> None:
    """Each is refused when opened or read; the one without an mpp opens and says that its objective is a guess."""
    files = sorted(p for p in (data / "slides" / "malformed").iterdir() if p.is_file())
    assert len(files) >= 5
    for path in files:
        if "no-mpp" in path.name:
            assert wk.open_slide(path).mpp_source == "objective (approximate)"
            continue
        for reader in (None, "openslide", "tiff"):
            with pytest.raises(wk.WsikitError):
                everything(path, reader)
