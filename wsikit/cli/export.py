"""``wsikit export``: results for QuPath and other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsikit.cli.aggregate import RunFolder

KINDS = ("geojson", "csv", "parquet", "hdf5")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def export(
        folder: RunFolder,
        to: Annotated[str, typer.Option("--to", help=f"{', '.join(KINDS)}.")],
        out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to write. [default: DIR/export]")] = None,
    ) -> None:
        """Export results: GeoJSON for QuPath, tables as CSV or Parquet, coordinates and features as HDF5.

        Example: wsikit export out/ --to geojson
        """
        from wsikit.errors import UsageError
        from wsikit.export import export_run

        if to not in KINDS:
            raise UsageError(f"--to {to}: there are {', '.join(KINDS)}")
        target = out or folder / "export"
        n = export_run(folder, target, to)
        typer.echo(f"{n} files in {target}")
