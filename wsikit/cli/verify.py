"""``wsikit verify``: every stored byte against its receipt."""

from __future__ import annotations

from typing import Annotated

import typer

from wsikit.cli.aggregate import RunFolder
from wsikit.cli.options import Workers
from wsikit.cli.output import Json, show_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def verify(
        folder: RunFolder,
        repair: Annotated[bool, typer.Option("--repair", help="Do again what is damaged, missing or unfinished; needs the slides and the models.")] = False,
        workers: Workers = None,
        as_json: Json = False,
    ) -> int:
        """Check every stored byte of a run against its receipt. Names what is damaged, missing or unfinished.

        \b
        Example: wsikit verify out/
        Example: wsikit verify out/ --repair
        """
        from wsikit.cli.main import OK, SOME_FAILED
        from wsikit.cli.progress import RunProgress
        from wsikit.run.again import repair_run, verify_run

        findings = list(verify_run(folder))
        left = findings
        if repair and findings:
            with RunProgress(0, every_slide=False) as progress:
                left = repair_run(folder, workers, progress)
        if as_json:
            show_json([f._asdict() | ({"repaired": f not in left} if repair else {}) for f in findings])
        else:
            for f in findings:
                typer.echo(f"{f.problem}{' (repaired)' if f not in left else ''}: {f.file}")
            typer.echo(_verdict(len(findings), len(left), repair))
        return SOME_FAILED if left else OK


def _verdict(found: int, left: int, repair: bool) -> str:
    if not found:
        return "every stored byte is as it was written"
    if not repair:
        return "wsikit verify --repair, or scoring the slides again, mends it"
    return "every stored byte is now as it was written" if not left else f"{left} could not be mended; score these slides into a new folder"
