"""A minute of coverage-guided fuzzing of the TIFF code, and what longer runs of it found."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import wsikit as wk
from wsikit.errors import DamagedSlideError, UnsupportedFormatError
from wsikit.readers._container import check_container
from wsikit.readers.tiff import TiffReader

SECONDS = int(os.environ.get("WSIKIT_FUZZ_SECONDS", "60"))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
def test_whatever_the_bytes_the_outcome_is_pixels_or_a_reason(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    limits = [f"-max_total_time={SECONDS}", "-rss_limit_mb=4096", "-timeout=60", f"-artifact_prefix={tmp_path}/"]
    run = subprocess.run([sys.executable, str(Path(__file__).with_name("tiff_fuzzer.py")), str(tmp_path / "corpus"), *limits], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "DONE" in run.stderr


def big(path: Path) -> bytearray:
    """A BigTIFF of 3 × 4 tiles, whose places are therefore kept apart from its directory."""
    tifffile.imwrite(path, np.zeros((64, 48, 3), np.uint8), bigtiff=True, tile=(16, 16), photometric="rgb", metadata=None)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("value", [2**63 + 7, 2**62])
def test_a_place_where_no_file_can_be(tmp_path: Path, value: int) -> None:
    path = tmp_path / "a.tif"
    data = big(path)
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags["TileOffsets"]
        data[tag.offset + 12 : tag.offset + 20] = struct.pack("<Q", value)  # where the list of places is
    path.write_bytes(data)
    with pytest.raises(DamagedSlideError, match="TIFF tag 324 of image 0 lies beyond the end of the file"):
        check_container(path)


def test_place_and_size_that_add_up_to_less_than_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    data = big(path)
    with tifffile.TiffFile(path) as tif:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = tif.pages[0].tags[name]
            size = {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
            data[tag.valueoffset : tag.valueoffset + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(DamagedSlideError):
        check_container(path)


def test_a_mask_is_no_slide(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 48), bool), photometric="minisblack", metadata=None)
    with pytest.raises(UnsupportedFormatError, match="its pixels are bool, which is a mask and no picture of a slide"):
        TiffReader(path)
    with pytest.raises(wk.WsikitError):
        wk.open_slide(path)
