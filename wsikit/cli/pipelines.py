"""``wsikit pipelines``: what can be scored, with which model, and is a pipeline file right?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from wsikit.cli.output import Json, show_json, show_table


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def pipelines(
        files: Annotated[list[Path] | None, typer.Argument(help="TOML files to check, as in the folder pipelines/.", show_default=False)] = None,
        as_json: Json = False,
    ) -> None:
        """List pipelines and their default models; check pipeline files.

        \b
        Example: wsikit pipelines
        Example: wsikit pipelines pipelines/all.toml mine.toml
        """
        from wsikit.models import pipelines as names
        from wsikit.run.settings import read_pipeline

        found = [_pipeline(name) for name in names()] if not files else []
        checked = [{"file": str(path)} | read_pipeline(path).model_dump() for path in files or []]
        if as_json:
            show_json(found or checked)
        elif found:
            show_table(("pipeline", "what it is for", "default model", "µm/px", "trained on"), [tuple(map(str, f.values())) for f in found])
        else:
            show_table(("file", "pipelines", "what it is for"), [(f["file"], ", ".join(f["pipelines"]), f["about"]) for f in checked])


def _pipeline(name: str) -> dict[str, Any]:
    from wsikit.errors import UnknownModelError
    from wsikit.models import RISK_PIPELINE, family, find_model, read_card

    about = (
        "survival risk from what the other pipelines found." if name == RISK_PIPELINE else (family(name).__doc__ or "").strip().splitlines()[0].split(". ")[0]
    )
    facts: dict[str, Any] = {"pipeline": name, "about": about.rstrip("."), "model": "", "mpp": "", "trained_on": ""}
    try:
        card = read_card(find_model(name))
    except UnknownModelError:
        return facts | {"model": "none at hand"}
    return facts | {"model": card.name, "mpp": f"{card.mpp:g}" if card.task != "risk" else "", "trained_on": card.trained_on.domain}
