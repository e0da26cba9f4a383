"""``wsikit export``: results for QuPath and other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsikit.cli.aggregate import RunFolder

KINDS = ("geojson", "csv", "parquet", "hdf5", "dicom", "anndata")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def export(
        folder: RunFolder,
        to: Annotated[str, typer.Option("--to", help=f"{', '.join(KINDS)}.")],
        out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to write. [default: DIR/export]")] = None,
    ) -> int:
        """Export results of a run.

        geojson: tissue, hotspot and detections for QuPath. csv, parquet: a table a pipeline. hdf5: coordinates and features as CLAM and TRIDENT
        have them. anndata: tiles for scanpy and squidpy. dicom: annotations, heat maps and a structured report that belong to the DICOM slide
        that was scored (with its patient's data, as an archive needs them).

        Example: wsikit export out/ --to geojson
        """
        from wsikit.cli.main import NOT_DONE, OK, SOME_FAILED
        from wsikit.export import export_run

        target = out or folder / "export"
        done = export_run(folder, target, to)
        typer.echo(f"{len(done.files)} files in {target}")
        for slide_id, reason in done.skipped.items():
            typer.echo(f"  skipped: {slide_id}: {reason}", err=True)
        if done.skipped:
            return SOME_FAILED if done.files else NOT_DONE
        return OK
