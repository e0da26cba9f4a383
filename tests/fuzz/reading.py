"""What the processes of the fuzz tests do: read everything of a slide, by us or by bare OpenSlide, and say what it was."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

_MOST_PX = 2**25


def ours(path: str, reader: str) -> dict[str, Any]:
    """As a worker reads a slide that the gate has let in."""
    from wsikit.geometry import Region
    from wsikit.slide import Slide

    with Slide(path, reader=reader) as slide:
        sizes = [list(level.size) for level in slide.levels]
        digests = [hashlib.sha256(slide.read_level(i, Region(0, 0, *size)).tobytes()).hexdigest() for i, size in enumerate(sizes)]
        return {"sizes": sizes, "mpp": slide.mpp, "pixels": digests, "file": slide.digest}


def openslide(path: str) -> dict[str, Any]:
    """As a script with openslide-python does."""
    import openslide

    file = Path(path)
    with openslide.OpenSlide(str(min(file.glob("*.dcm")) if file.is_dir() else file)) as slide:
        sizes = [list(size) for size in slide.level_dimensions]
        if max(w * h for w, h in sizes) > _MOST_PX:
            raise ValueError("too large for this test")
        digests = [hashlib.sha256(slide.read_region((0, 0), i, tuple(size)).tobytes()).hexdigest() for i, size in enumerate(sizes)]
        return {"sizes": sizes, "mpp": [slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"], "pixels": digests}
