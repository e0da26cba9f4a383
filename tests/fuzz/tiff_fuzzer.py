"""Coverage-guided fuzzing (atheris, libFuzzer) of wsikit's own TIFF code: container check, directories, tiles and strips.

    python tests/fuzz/tiff_fuzzer.py CORPUS -max_total_time=600 -rss_limit_mb=4096 -timeout=20

Whatever the bytes, the outcome is pixels or a `WsikitError`; anything else ends the fuzzer and leaves the input beside it. OpenSlide is left
out: it is not ours, and the gate's process of its own is there for it.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["wsikit.readers", "tifffile"]):
    import numpy as np
    import tifffile

    from wsikit.errors import WsikitError
    from wsikit.readers._container import check_container, check_levels, missing_tiles
    from wsikit.readers.tiff import TiffReader

FILE = Path(tempfile.mkdtemp(prefix="wsikit-fuzz-")) / "slide.tif"
MOST_PX = 2**22  # reading more teaches nothing and takes long


def look(data: bytes) -> None:
    """Do with a file what wsikit does with an unknown one, decoding all that is small."""
    FILE.write_bytes(data)
    with contextlib.suppress(WsikitError):
        check_container(FILE)
        missing_tiles(FILE)
        reader = TiffReader(FILE)
        try:
            levels = reader.facts.levels
            check_levels(FILE, [level.size for level in levels])
            for level in levels:
                w, h = min(level.size.w, 512), min(level.size.h, 512)
                if w * h <= MOST_PX:
                    with contextlib.suppress(WsikitError):
                        pixels = reader.read(level.index, 0, 0, w, h)
                        if pixels.shape != (h, w, 3) or pixels.dtype != np.uint8:
                            raise AssertionError(f"{pixels.shape} {pixels.dtype} for {w} × {h} px")
        finally:
            reader.close()


def seeds(folder: Path) -> None:
    """Small files of each kind that the reader knows."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    kinds: dict[str, dict[str, object]] = {
        "jpeg": {"tile": (16, 16), "compression": "jpeg"},
        "deflate": {"tile": (16, 16), "compression": "deflate"},
        "lzw": {"tile": (16, 16), "compression": "lzw"},
        "plain": {"tile": (16, 16)},
        "planar": {"tile": (16, 16), "planarconfig": "separate"},
        "strips": {"rowsperstrip": 8},
        "jpeg-strips": {"rowsperstrip": 8, "compression": "jpeg"},
    }
    for name, options in kinds.items():
        for big in (False, True):
            stored = np.moveaxis(rgb, -1, 0) if name == "planar" else rgb
            with tifffile.TiffWriter(folder / f"{name}-{'big' if big else 'classic'}.tif", bigtiff=big) as out:
                out.write(stored, photometric="rgb", resolution=(20_000, 20_000), resolutionunit="CENTIMETER", metadata=None, **options)  # type: ignore[arg-type]
                out.write(stored[..., ::2, :][..., ::2] if name == "planar" else stored[::2, ::2], photometric="rgb", subfiletype=1, metadata=None, **options)  # type: ignore[arg-type]


def main() -> None:
    """Make the seeds in the first folder that is named, and fuzz from there."""
    if folders := [a for a in sys.argv[1:] if not a.startswith("-")]:
        seeds(Path(folders[0]))
    atheris.Setup(sys.argv, look)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
