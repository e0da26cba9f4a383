"""``wsikit verify``: every stored byte against its receipt."""

from __future__ import annotations

import typer

from wsikit.cli.aggregate import RunFolder
from wsikit.cli.output import Json, show_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def verify(folder: RunFolder, as_json: Json = False) -> int:
        """Check every stored byte of a run against its receipt; names what is damaged, missing or unfinished.

        Example: wsikit verify out/
        """
        from wsikit.cli.main import OK, SOME_FAILED
        from wsikit.run.again import verify_run

        findings = list(verify_run(folder))
        if as_json:
            show_json([f._asdict() for f in findings])
        else:
            for f in findings:
                typer.echo(f"{f.problem}: {f.file}")
            typer.echo("score the slides again to repair them" if findings else "every stored byte is as it was written")
        return SOME_FAILED if findings else OK
