"""The gate: what opens is let in with its reader, and whatever a file does to the process that looks at it, it is refused by name."""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

import wsikit as wk
from wsikit import gate
from wsikit.errors import DamagedSlideError, SlideNotFoundError, UnsafeSlideError, UsageError
from wsikit.readers import candidates
from wsikit.readers._container import check_container, directories, missing_tiles
from wsikit.sandbox import Sandbox

PICTURE = np.random.default_rng(1).integers(90, 250, (10, 13, 3), dtype=np.uint8).repeat(60, 0).repeat(60, 1)
HARMFUL = """
import os, time
from wsikit.readers.array import ArrayReader
class Harmful(ArrayReader):
    name = "harmful"
    @classmethod
    def accepts(cls, path):
        return 100 if path.name.startswith("harmful") else 0
    def read(self, level, x, y, w, h):
        what = os.environ["HARM"]
        if what == "crash": os.abort()
        if what == "hang": time.sleep(100)
        if what == "memory": return bytearray(2**34)
        return super().read(level, x, y, w, h)
READER = Harmful
"""


@pytest.fixture
def harmful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file whose reader does what HARM says, in a gate of its own."""
    for name, text in {
        "readers/harmful.py": HARMFUL,
        "site/sitecustomize.py": f"import wsikit.readers as r; r.__path__.append({str(tmp_path / 'readers')!r})",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    np.save(tmp_path / "harmful.npy", PICTURE)
    with Sandbox("wsikit.gate:inspect", seconds=15) as sandbox:
        monkeypatch.setattr(gate, "_sandbox", lambda: sandbox)
        yield tmp_path / "harmful.npy"


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("crash", r"ended the process that looked at it \(SIGABRT\)"),
        ("hang", r"did not come to an end \(no answer in 4 s\).*set WSIKIT_GATE_SECONDS"),
        ("memory", "took more than 4 GiB of memory"),
    ],
)
def test_harm_is_a_refusal_and_the_next_file_opens(harm: str, says: str, harmful: Path, made, monkeypatch: pytest.MonkeyPatch) -> None:
    if harm == "hang":
        gate._sandbox().seconds = 4
    monkeypatch.setenv("HARM", harm)
    with pytest.raises(UnsafeSlideError, match=says) as refused:
        wk.open_slide(harmful)
    assert str(harmful) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert gate.admit(made("pyramid.tif").path) == "native"


def test_a_reader_that_does_no_harm_is_let_in(harmful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARM", "none")
    assert gate.admit(harmful) == "harmful"


def test_every_format_is_let_in_with_its_best_reader(format_name: str, made) -> None:
    path = made(format_name).path
    assert gate.admit(path) == next(candidates(path)).name
    for reader in candidates(path):
        assert gate.admit(path, reader.name) == reader.name


def test_a_missing_file_and_an_unknown_reader(made, tmp_path: Path) -> None:
    with pytest.raises(SlideNotFoundError):
        gate.admit(tmp_path / "no.svs")
    with pytest.raises(UsageError, match="no reader is called 'mine'"):
        gate.admit(made("pyramid.tif").path, "mine")


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "0"])
def test_a_time_that_is_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSIKIT_GATE_SECONDS", value)
    with pytest.raises(UsageError, match="give a number of seconds"):
        gate.gate_seconds()


def test_one_process_for_many_slides_at_little_cost(made, format_names: tuple[str, ...]) -> None:
    paths = [made(name).path for name in format_names]
    for path in paths:
        gate.admit(path)
    before, begun = gate._sandbox().starts, time.monotonic()
    for path in paths:
        gate.admit(path)
    assert gate._sandbox().starts == before
    assert (time.monotonic() - begun) / len(paths) < 0.5


# --- the container


def tiled(path: Path, **options: object) -> Path:
    tifffile.imwrite(path, PICTURE, **{"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None} | options)
    return path


def patch(path: Path, at: int, new: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(new)] = new
    path.write_bytes(data)
    return path


def entry(path: Path, tag: str, index: int = 0) -> int:
    """Where the value of a tag of the first image is; values of 4 bytes."""
    with tifffile.TiffFile(path) as tif:
        return tif.pages[0].tags[tag].valueoffset + 4 * index


def tiles(path: Path) -> tuple[list[int], list[int]]:
    with tifffile.TiffFile(path) as tif:
        return list(tif.pages[0].dataoffsets), list(tif.pages[0].databytecounts)


@pytest.mark.parametrize("name", ["pyramid.tif", "aperio.svs", "subifds.ome.tif", "bigtiff.tif", "bigendian.tif", "planes.tif"])
def test_whole_files_pass_and_their_images_are_those_of_tifffile(name: str, made) -> None:
    path = made(name).path
    check_container(path)
    with tifffile.TiffFile(path) as tif:
        pages = [q for p in tif.pages for q in (p, *(p.pages or ()))]
        found = list(directories(path))
        assert [d.size for d in found] == [(p.imagewidth, p.imagelength) for p in pages]
        assert [d.segments.tolist() for d in found] == [[list(s) for s in zip(p.dataoffsets, p.databytecounts, strict=True)] for p in pages]
    assert missing_tiles(path) == []


def test_tiles_that_share_bytes_are_refused_but_blank_ones_may(tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif")
    offsets, counts = tiles(path)
    other = min(i for i in range(len(counts)) if i and counts[i] != counts[0])
    patch(path, entry(path, "TileOffsets"), struct.pack("<I", offsets[other]))
    with pytest.raises(DamagedSlideError, match="tiles share their bytes"):
        check_container(path)
    white = np.full_like(PICTURE, 255)
    white[:256, :256] = PICTURE[:256, :256]
    tifffile.imwrite(tmp_path / "b.tif", white, tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None)
    offsets, counts = tiles(tmp_path / "b.tif")
    assert counts[4] == counts[5]
    patch(tmp_path / "b.tif", entry(tmp_path / "b.tif", "TileOffsets", 5), struct.pack("<I", offsets[4]))
    check_container(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("tag", "value", "says"),
    [
        ("TileOffsets", 2**31, "1 of 12 tiles lie beyond the end of the file"),
        ("TileByteCounts", 2**28, "beyond the end of the file"),
    ],
)
def test_tiles_beyond_the_end(tag: str, value: int, says: str, tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif")
    patch(path, entry(path, tag, 3), struct.pack("<I", value))
    with pytest.raises(DamagedSlideError, match=says):
        check_container(path)


def test_missing_tiles_are_placed(tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif")
    patch(path, entry(path, "TileByteCounts", 5), struct.pack("<I", 0))
    check_container(path)
    assert missing_tiles(path) == [((780, 600), wk.Region(256, 256, 256, 256))]


@pytest.mark.parametrize(
    ("tag", "value"), [("ImageWidth", 2**15), ("ImageWidth", 0), ("ImageLength", 0), ("TileWidth", 65520), ("TileWidth", 1), ("ImageLength", 1)]
)
def test_a_size_that_the_tiles_do_not_make_up(tag: str, value: int, tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif")
    patch(path, entry(path, tag), struct.pack("<H", value))
    with pytest.raises(DamagedSlideError, match=r"claims|needs"):
        check_container(path)


def test_what_is_no_tiff_passes(tmp_path: Path, made) -> None:
    for path in (tmp_path, made("picture.png").path, made("array.npy").path):
        check_container(path)
        assert missing_tiles(path) == []


def test_a_look_does_not_load_the_world() -> None:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", "import wsikit.gate, sys; print('torch' in sys.modules, 'distributed' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False False\n"
