"""``wsikit doctor``: is the installation sound, and which slides of an archive will fail?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wsikit.cli.output import Json, show_facts, show_json, show_table


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def doctor(paths: Annotated[list[Path] | None, typer.Argument(help="Slides, folders or CSVs to look at first.")] = None, as_json: Json = False) -> int:
        """Check the installation, or which slides of an archive will fail and why (headers only).

        \b
        Example: wsikit doctor
        Example: wsikit doctor archive/
        """
        return _slides(paths, as_json) if paths else _installation(as_json)


def _installation(as_json: bool) -> int:
    from wsikit.cli.main import OK
    from wsikit.doctor import installation

    facts = installation()
    show_json(facts) if as_json else show_facts(facts)
    return OK


def _slides(paths: list[Path], as_json: bool) -> int:
    from wsikit.cli.main import OK, SOME_FAILED
    from wsikit.doctor import look_at
    from wsikit.run.cases import find_cases

    rows: list[dict[str, Any]] = [look_at(case) for case in find_cases(paths)]
    if as_json:
        show_json(rows)
    else:
        columns = ("slide_id", "reader", "mpp", "mpp_source", "size", "verdict")  # the long one last
        show_table(columns, [[r.get(c, "") for c in columns] for r in rows])
    return SOME_FAILED if any(r["verdict"] != "ok" for r in rows) else OK
