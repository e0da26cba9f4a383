"""``wsikit aggregate``: results again from stored columns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsikit.cli.options import FieldDiameter, Fields, Grading, HotspotArea, HotspotShape

RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def aggregate(
        folder: RunFolder,
        hotspot_area: HotspotArea = None,
        hotspot_shape: HotspotShape = None,
        field_diameter: FieldDiameter = None,
        fields: Fields = None,
        grading: Grading = None,
        within: Annotated[str, typer.Option("--within", metavar="PIPELINE", help="Confine calls and mitoses to a region, such as tumour.")] = "",
    ) -> None:
        """Recompute results from stored columns; no pixels are read. Without options mitoses are counted as before.

        \b
        Example: wsikit aggregate out/
        Example: wsikit aggregate out/ --hotspot-area 1.734 --hotspot-shape circle --grading fnclcc
        """
        from wsikit.aggregate.counting import parse_counting
        from wsikit.run.again import aggregate_run

        how = {"area_mm2": hotspot_area, "shape": hotspot_shape, "field_mm": field_diameter, "fields": fields, "grading": grading, "within": within or None}
        given = any(v is not None and v != [] for v in how.values())
        n = aggregate_run(folder, parse_counting(**how) if given else None)
        typer.echo(f"{n} slides aggregated again; results in {folder / 'slides.csv'}")
