"""``wsikit calibrate``: what may a classifier say of its own doubt?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsikit.cli.options import Workers
from wsikit.cli.output import Json, show_facts, show_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def calibrate(
        model: Annotated[str, typer.Argument(help="A classifier's name or folder.")],
        labels: Annotated[Path, typer.Option("--labels", help="CSV as for wsikit train, of patients that it was not trained on.")],
        out: Annotated[Path, typer.Option("-o", "--out", metavar="MODEL", help="The calibrated model's folder.")],
        coverage: Annotated[float, typer.Option("--coverage", help="In how many patients the set of likely classes must hold the true one.")] = 0.9,
        workers: Workers = None,
        as_json: Json = False,
    ) -> None:
        """Learn how far a classifier's calls can be trusted.

        That is its temperature, sets of likely classes, and what looks like nothing it knows; calls are withheld by them.

        \b
        Example: wsikit calibrate my-sts/ --labels validation.csv -o my-sts-calibrated/
        """
        from wsikit.calibrate import calibrate as learn

        card = learn(model, labels, out, workers, coverage)
        assert card.calibration is not None
        facts = card.calibration.model_dump(mode="json")
        show_json(facts) if as_json else show_facts({"model": str(out), **facts})
