"""``wsikit evaluate``: how good is a model, on labelled slides?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsikit.cli.options import Workers
from wsikit.cli.output import Json, show_facts, show_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def evaluate(
        model: Annotated[str, typer.Argument(help="A model's name or folder.")],
        labels: Annotated[Path, typer.Option("--labels", help="As for wsikit train; of detectors also COCO (.json).")],
        out: Annotated[Path, typer.Option("-o", "--out", help="The run's folder; it resumes.")] = Path("evaluation"),
        features: Annotated[Path | None, typer.Option("--features", metavar="DIR", help="A survival model: the run that scored the slides.")] = None,
        workers: Workers = None,
        as_json: Json = False,
    ) -> None:
        """Compare slides with labels, with intervals over patients. They come from a bootstrap over patients, not over tiles.

        \b
        Example: wsikit evaluate my-sts/ --labels test.csv -o evaluation/
        Example: wsikit evaluate my-risk/ --labels patients.csv --features out/
        """
        from wsikit.evaluate import evaluate_model

        facts = evaluate_model(model, labels, out, workers, features)
        show_json(facts) if as_json else show_facts(facts)
