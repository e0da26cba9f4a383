"""Columns as CSV, Parquet and HDF5 for other tools."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

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

    ``coords`` int64 (N, 2) level-0 px with attributes ``patch_size_level0``, ``level0_width``, ``level0_height``; ``features`` float32 (N, D).

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    import h5py

    width, height = store.attributes["slide"]["size"]
    for name, table in store.tables().items():
        if "feature" not in table:
            continue
        path = folder / f"{store.slide_id}.{name}.h5"
        with atomic_file(path) as f, h5py.File(f, "w") as h5:
            coords = h5.create_dataset("coords", data=table["origin"])
            side = float(table["size"][0, 0]) if len(table["size"]) else 0.0
            coords.attrs.update({"patch_size_level0": round(side), "level0_width": width, "level0_height": height, "name": store.slide_id})
            h5.create_dataset("features", data=table["feature"].astype(np.float32))
        yield path
