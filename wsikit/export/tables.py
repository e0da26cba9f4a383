"""Columns as CSV, Parquet and HDF5 for other tools."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsikit import RESEARCH_USE_ONLY
from wsikit.errors import StoreMismatchError
from wsikit.store import SlideStore
from wsikit.store.durable import atomic_file


def write_tables(store: SlideStore, folder: Path, kind: str) -> Iterator[Path]:
    """One table a pipeline, ``csv`` or ``parquet``, without the features; yields the files.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    for name, table in store.tables().items():
        path = folder / f"{store.slide_id}.{name}.{kind}"
        frame = table.to_pandas()
        with atomic_file(path) as f:
            if kind == "csv":
                f.write(frame.to_csv(index=False, lineterminator="\n").encode())
            else:
                frame.to_parquet(f, engine="pyarrow", index=False)
        yield path


def write_hdf5(store: SlideStore, folder: Path) -> Iterator[Path]:
    """Coordinates and features in the layout of CLAM and TRIDENT, one file a classifier; yields the files.

    ``coords`` int64 (N, 2), upper-left corners in level-0 px, with both tools' attributes: ``patch_size`` (px of the model), ``patch_size_level0``,
    ``overlap`` (px of the model), ``patch_level`` 0, ``level0_magnification`` and ``target_magnification`` (10 / mpp, rounded), ``level0_width``,
    ``level0_height``, ``name``; ``features`` float32 (N, D) with ``encoder`` and its digest.

    Raises
    ------
    StoreMismatchError
        The slide's pixels are not square, so that its tiles are no squares in level-0 px: the layout has one number for both sides.
    OutputError
        The folder cannot be written.
    """
    import h5py

    for name, table in store.tables().items():
        if "feature" not in table:
            continue
        coords = _coords_attributes(store, name)
        path = folder / f"{store.slide_id}.{name}.h5"
        with atomic_file(path) as f, h5py.File(f, "w") as h5:
            h5.create_dataset("coords", data=table["origin"]).attrs.update(coords)
            model = table.attributes["model"]
            h5.create_dataset("features", data=table["feature"].astype(np.float32)).attrs.update(
                {"name": store.slide_id, "encoder": model["name"], "encoder_digest": model["digest"], "statement": RESEARCH_USE_ONLY}
            )
        yield path


def _coords_attributes(store: SlideStore, name: str) -> dict[str, Any]:
    stage = store.result["provenance"]["stages"][name]
    width, height = store.attributes["slide"]["size"]
    w, h = (round(stage["tile_px"] * d) for d in stage["raster"]["downsample"])
    if w != h:
        raise StoreMismatchError(
            f"{store.slide_id}: its pixels are not square ({store.mpp[0]:g} × {store.mpp[1]:g} µm), so tiles are {w} × {h} level-0 px, for which CLAM's layout "
            "has one number; export to parquet or anndata"
        )
    return {
        "patch_size": stage["tile_px"],
        "patch_size_level0": w,
        "overlap": stage["overlap_px"],
        "patch_level": 0,
        "level0_magnification": round(10 / store.mpp[0]),
        "target_magnification": round(10 / stage["raster"]["mpp"][0]),
        "level0_width": width,
        "level0_height": height,
        "name": store.slide_id,
    }
