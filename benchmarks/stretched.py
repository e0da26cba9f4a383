"""A run of a gigapixel slide with any number of detections, without scoring it for hours: a small phantom's store, stretched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from wsikit.run import score
from wsikit.store import open_store
from wsikit.store.columns import write_table
from wsikit.testing.giant import PIECE_PX, write_giant
from wsikit.testing.phantom import Spec, make_phantom, write_phantom

PIECES = (6, 5)  # of 8192 px: 2.0 gigapixels


def phantom_run(folder: Path) -> Path:
    """The run of a small phantom, with its calls and its mitoses."""
    small = folder / "lms.tif"
    write_phantom(small, Spec(11, "LMS", 2560, 2048, mitoses_per_mm2=25))
    return score([small], folder / "run", pipelines=["sts-subtype", "mitosis"]).folder


def stretched_run(folder: Path, detections: int, *, pixels: bool = False) -> Path:
    """A run whose one slide is a gigapixel one and has so many detections, or the one that the folder has; with ``pixels`` the slide is written too."""
    if (folder / "run").exists():
        return folder / "run"
    run = phantom_run(folder)
    size = (PIECES[0] * PIECE_PX, PIECES[1] * PIECE_PX)
    if pixels:
        piece, _ = make_phantom(Spec(5, "LMS", PIECE_PX, PIECE_PX, mpp=0.5))
        slide = folder / "lms.tif"
        slide.unlink()
        write_giant(slide, piece, [(x, y) for x in range(PIECES[0]) for y in range(PIECES[1])], size, mpp=0.5)
    path = run / "slides/lms.zarr"
    root = zarr.open_group(str(path), mode="r+")
    a: Any = root.attrs["wsikit"]
    h, w = open_store(path).tissue().shape
    a["slide"] |= {"size": list(size), "bounds": [0, 0, *size]}
    a["survey"]["raster"]["downsample"] = [size[0] / w, size[1] / h]
    root.attrs["wsikit"] = a
    put_detections(path, detections)
    return run


def put_detections(path: Path, n: int) -> None:
    """Random detections instead of those that the store has."""
    store = open_store(path)
    attributes, size = store.tables()["mitosis"].attributes, store.attributes["slide"]["size"]
    rng = np.random.default_rng(0)
    shutil.rmtree(path / "tables/mitosis")
    write_table(path / "tables/mitosis", {"position": rng.random((n, 2)) * size, "score": rng.random(n).astype(np.float32)}, attributes)
