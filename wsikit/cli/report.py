"""``wsikit report``: HTML for people."""

from __future__ import annotations

import typer

from wsikit.cli.aggregate import RunFolder


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def report(folder: RunFolder) -> None:
        """Write a self-contained HTML page per slide and one for the run.

        Example: wsikit report out/
        """
        from wsikit.report import write_reports

        typer.echo(str(write_reports(folder)))
