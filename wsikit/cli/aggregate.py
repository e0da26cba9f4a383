"""``wsikit aggregate``: results again from stored columns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def aggregate(folder: RunFolder) -> None:
        """Recompute slide and patient results from stored columns; no pixels are read.

        Example: wsikit aggregate out/
        """
        from wsikit.run.again import aggregate_run

        n = aggregate_run(folder)
        typer.echo(f"{n} slides aggregated again; results in {folder / 'slides.csv'}")
