"""``wsikit review``: what people said of a run's slides, also from a table or QuPath."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsikit.cli.aggregate import RunFolder
from wsikit.cli.output import Json

if TYPE_CHECKING:
    from wsikit.review import Review


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def review(
        folder: RunFolder,
        apply: Annotated[Path | None, typer.Option("--apply", metavar="FILE", help="Corrections: a CSV, or a GeoJSON that QuPath exported.")] = None,
        by: Annotated[str, typer.Option("--by", metavar="INITIALS", help="Who reviewed; needed with --apply.")] = "",
        slide: Annotated[str | None, typer.Option("--slide", metavar="ID", help="Only this slide. [default of a GeoJSON: its file name]")] = None,
        pipeline: Annotated[str, typer.Option("--pipeline", help="The detector that a GeoJSON's points are of.")] = "mitosis",
        labels: Annotated[Path | None, typer.Option("--labels", metavar="FOLDER", help="Write what people said as labels for wsikit train.")] = None,
        as_json: Json = False,
    ) -> None:
        """Show what people said beside what the models said. Take corrections in, give labels out.

        Corrections in a CSV: slide_id, x, y (level-0 px), label (mitosis, atypical mitosis, lookalike, apoptosis, unsure), comment; or slide_id,
        pipeline, call, comment. Each is kept with time and initials in slides/ID.review.jsonl; results and slides.csv get columns of their own.

        \b
        Example: wsikit review out/
        Example: wsikit review out/ --apply a.geojson --by AB
        Example: wsikit review out/ --labels labels/
        """
        from wsikit.cli.output import show_json, show_table
        from wsikit.run.reviewed import apply_file, commit_reviews, export_labels, open_reviews

        reviews = open_reviews(folder, by, slide)
        written = apply_file(apply, reviews, pipeline) if apply is not None else {}
        if written:
            commit_reviews(folder, list(written))
        files = export_labels(folder, reviews, labels) if labels is not None else {}
        rows = [row for review in reviews.values() for row in _rows(review)]
        if as_json:
            show_json({"applied": written, "files": {str(k): n for k, n in files.items()}, "slides": {k: r.summary() for k, r in reviews.items()}})
            return
        if apply is not None:
            typer.echo(f"{sum(written.values())} changes of {len(written)} slides taken from {apply}")
        for file, n in files.items():
            typer.echo(f"{n} labels in {file}")
        if not rows:
            typer.echo(f"nobody has reviewed anything yet: wsikit view {folder}")
        else:
            show_table(("slide", "pipeline", "model", "reviewed", "by", "not looked at"), rows)


def _rows(review: Review) -> list[tuple[Any, ...]]:
    summary = review.summary()
    if summary is None:
        return []
    who = " ".join(summary["by"])
    return [
        (review.store.slide_id, name, _short(review.results[name]), _short(answer), who, answer.get("people", {}).get("not_looked_at"))
        for name, answer in summary["pipelines"].items()
    ]


def _short(answer: dict[str, Any]) -> str:
    if answer["status"] != "ok":
        return str(answer["status"])
    if "call" in answer:
        return str(answer["call"])
    if "count" in answer:
        return f"{answer['count']}, {answer['per_mm2']:.1f}/mm² ({answer['low']:.1f}–{answer['high']:.1f})"
    return str(answer.get("group", ""))
