"""``wsikit diff``: why two runs differ, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsikit.cli.output import Json, show_json, show_table

RUN = typer.Argument(metavar="DIR", help="A run's folder.", show_default=False)


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def diff(run_a: Annotated[Path, RUN], run_b: Annotated[Path, RUN], as_json: Json = False) -> int:
        """Say why two runs differ, and which results moved by how much. Compares inputs, models, parameters, software, machine.

        Exit code 0 when nothing differs, 1 when something does, as of diff(1).

        Example: wsikit diff monday/ tuesday/
        """
        from wsikit.cli.main import OK, SOME_FAILED
        from wsikit.run.compare import causes, moved

        why, what = list(causes(run_a, run_b)), list(moved(run_a, run_b))
        if as_json:
            show_json({"causes": [c._asdict() for c in why], "moved": [m._asdict() for m in what]})
            return SOME_FAILED if why or what else OK
        if why:
            show_table(("differs", "name", "first", "second"), [(c.kind, c.name, _text(c.a), _text(c.b)) for c in why])
        else:
            typer.echo("the same inputs, models, parameters, software and machine")
        if what:
            typer.echo("")
            show_table(("slide", "column", "first", "second", "by"), [(m.slide_id, m.column, _text(m.a), _text(m.b), m.by) for m in what])
            typer.echo(f"results of {len({m.slide_id for m in what})} slides moved")
        else:
            typer.echo("every result is the same")
        return SOME_FAILED if why or what else OK


def _text(value: object) -> str | None:
    return None if value in (None, "") else str(value)[:60]
