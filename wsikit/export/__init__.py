"""Results for other tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wsikit.errors import DamagedStoreError, SlideError, StoreError, StoreMismatchError, UsageError
from wsikit.export.geojson import write_geojson
from wsikit.export.tables import write_hdf5, write_tables
from wsikit.store import SlideStore, open_store

KINDS = ("geojson", "csv", "parquet", "hdf5", "dicom", "anndata")


@dataclass
class Exported:
    """The files that were written, and why there are none of some slides (by their id)."""

    files: list[Path] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def export_run(folder: Path, out: Path, kind: str) -> Exported:
    """Write all finished slides of a run as one of `KINDS`; a slide that cannot be is skipped, and said.

    Raises
    ------
    StoreMismatchError
        The folder holds no finished slide.
    UsageError
        There is no such kind, or a library that it needs is not installed.
    OutputError
        ``out`` cannot be written.
    """
    if kind not in KINDS:
        raise UsageError(f"--to {kind}: there are {', '.join(KINDS)}")
    done = Exported()
    stores = [s for s in _finished(folder, done) if s.result["status"] == "ok"]  # a slide that failed may have left half a store
    if not stores and not done.skipped:
        raise StoreMismatchError(f"{folder}: no finished slides here; give the folder that wsikit score wrote with -o")
    sources = _sources(folder) if kind == "dicom" else {}
    for store in stores:
        try:
            done.files += _write(store, out, kind, sources)
        except (StoreError, SlideError) as e:
            done.skipped[store.slide_id] = str(e)
    return done


def _finished(folder: Path, done: Exported) -> Iterator[SlideStore]:
    for path in sorted((folder / "slides").glob("*.zarr")):
        if path.with_suffix(".json").exists():
            try:
                store = open_store(path)
                store.result  # noqa: B018
            except StoreError as e:
                done.skipped[path.stem] = str(e)
            else:
                yield store


def _write(store: SlideStore, out: Path, kind: str, sources: dict[str, Path]) -> Iterator[Path]:
    if kind == "geojson":
        write_geojson(store, out / f"{store.slide_id}.geojson")
        yield out / f"{store.slide_id}.geojson"
    elif kind == "hdf5":
        yield from write_hdf5(store, out)
    elif kind == "dicom":
        from wsikit.export.dicom import write_dicom

        if store.slide_id not in sources:
            raise StoreMismatchError(f"{store.slide_id}: run.json does not say where the slide is; score it again")
        yield from write_dicom(store, out, sources[store.slide_id])
    elif kind == "anndata":
        from wsikit.export.anndata import write_anndata

        yield from write_anndata(store, out)
    else:
        yield from write_tables(store, out, kind)


def _sources(folder: Path) -> dict[str, Path]:
    """Where the run found its slides."""
    try:
        slides = json.loads((folder / "run.json").read_bytes())["job"]["slides"]
        return {s["slide_id"]: Path(s["path"]) for s in slides}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DamagedStoreError(f"{folder / 'run.json'}: cannot be read ({e}); run wsikit score again to repair it") from e


__all__ = ["KINDS", "Exported", "export_run"]
