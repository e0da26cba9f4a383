"""Results for other tools."""

from __future__ import annotations

from pathlib import Path

from wsikit.errors import StoreMismatchError
from wsikit.export.geojson import write_geojson
from wsikit.export.tables import write_hdf5, write_tables
from wsikit.store import open_store


def export_run(folder: Path, out: Path, kind: str) -> int:
    """Write all finished slides of a run as ``geojson``, ``csv``, ``parquet`` or ``hdf5``; returns the number of files.

    Raises
    ------
    StoreMismatchError
        The folder holds no finished slide.
    UsageError
        A library that the kind needs is not installed.
    OutputError
        ``out`` cannot be written.
    """
    found = (open_store(p) for p in sorted((folder / "slides").glob("*.zarr")) if p.with_suffix(".json").exists())
    stores = [s for s in found if s.result["status"] == "ok"]  # a slide that failed may have left half a store
    if not stores:
        raise StoreMismatchError(f"{folder}: no finished slides here; give the folder that wsikit score wrote with -o")
    count = 0
    for store in stores:
        if kind == "geojson":
            write_geojson(store, out / f"{store.slide_id}.geojson")
            count += 1
        else:
            count += len(list(write_hdf5(store, out) if kind == "hdf5" else write_tables(store, out, kind)))
    return count


__all__ = ["export_run"]
