"""What one slide of an archive is: header and a low-power picture, in a process of its own that a bad file may take down."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.errors import UnsupportedFormatError, WsikitError
from wsikit.gate import inspect
from wsikit.location import is_remote
from wsikit.readers._container import missing_tiles
from wsikit.readers._private import places_in_tiff
from wsikit.slide import Slide
from wsikit.survey import Survey, overview_raster, survey

MOST_PX = 2**27  # of the level that the low-power picture is made from


def examine(path: str, mpp: float | None, mpp_source: str, reader: str | None = None) -> dict[str, Any]:
    """Everything about a slide that can be known without its pixels at full power. ``verdict`` is ``ok``, or why it will fail.

    ``mask`` is the tissue, packed, for whoever plans tiles; it is there when ``tissue_mm2`` is.
    """
    row: dict[str, Any] = {"verdict": "ok"}
    try:
        with Slide(path, mpp=mpp, mpp_source=mpp_source, reader=inspect(path, reader)) as slide:
            row |= _header(slide)
            slide.require_mpp()
            if slide.facts.not_he:
                row["stain"] = "not H&E"
            row |= _look(slide)
    except WsikitError as e:
        row["verdict"] = str(e)
    return row


def _header(slide: Slide) -> dict[str, Any]:
    private = list(slide.facts.private) if is_remote(slide.path) else [*slide.facts.private, *places_in_tiff(slide.path)]
    return {
        "reader": slide.reader,
        "vendor": slide.facts.vendor,
        "size": list(slide.size),
        "levels": [list(level.size) + list(level.downsample) for level in slide.levels],
        "mpp": slide.mpp and list(slide.mpp),
        "mpp_source": slide.mpp_source,
        "bytes": sum(f.stat().st_size for f in slide._opener.files(slide.path)),
        "missing_tiles": len(missing_tiles(slide.path)),
        "label": any("label" in place or "macro" in place for place in private),
        "patient_data": private,
        "warnings": list(slide.warnings),
        "phantom": slide.is_phantom,
    }


def _look(slide: Slide) -> dict[str, Any]:
    """Tissue and stain of the low-power picture, where the file has one that is not too large."""
    level = slide.levels[overview_raster(slide).level]
    if level.size.w * level.size.h > MOST_PX:
        return {"stain": "not looked at", "note": "its smallest usable level is large, so tissue was not estimated"}
    try:
        found = survey(slide)
    except UnsupportedFormatError as e:
        return {"verdict": str(e), "stain": "IHC" if "brown" in str(e) else "not H&E"}
    kind = "H&E" if found.stain.trusted else "unclear"
    return {"stain": kind, "stain_note": found.stain.reason, "tissue_mm2": round(found.tissue_mm2, 3), "mask": _packed(found)}


def _packed(found: Survey) -> dict[str, Any]:
    tissue = found.mask.tissue
    return {"shape": list(tissue.shape), "bits": base64.b85encode(zlib.compress(np.packbits(tissue).tobytes())).decode(), "raster": found.raster.to_json()}


def unpacked(mask: dict[str, Any]) -> np.ndarray:
    """The tissue of an examined slide: bool (H, W)."""
    h, w = mask["shape"]
    bits = np.frombuffer(zlib.decompress(base64.b85decode(mask["bits"])), np.uint8)
    return np.unpackbits(bits, count=h * w).reshape(h, w).astype(bool)


def total_bytes(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; 0 where there is none."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
