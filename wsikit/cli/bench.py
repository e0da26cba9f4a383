"""``wsikit bench``: how fast is this machine, and what holds it up?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsikit.cli.options import Workers
from wsikit.cli.output import Json, show_facts, show_json

MODEL = "phantom-sts-subtype"


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def bench(
        slide: Annotated[Path | None, typer.Argument(help="A slide. [default: the public sample slide]")] = None,
        model: Annotated[str | None, typer.Option("--model", help="The model to time. [default: phantom-sts-subtype]")] = None,
        slides_per_hour: Annotated[bool, typer.Option("--slides-per-hour", help="Score a part of the slide: how many such slides an hour?")] = False,
        pipeline: Annotated[list[str] | None, typer.Option("--pipeline", help="For --slides-per-hour, as for wsikit score; repeatable.")] = None,
        workers: Workers = None,
        as_json: Json = False,
    ) -> None:
        """Time each stage on one slide, and name the bottleneck. Decoding, reading, resampling, stain, encoding and inference, alone and together.

        \b
        Example: wsikit bench a.svs --model phantom-mitosis
        Example: wsikit bench a.svs --slides-per-hour --pipeline mitosis --pipeline sts-subtype

        Beside other toolkits, from slide to Zarr: benchmarks/run.py tile
        """
        check_asked(slides_per_hour, model, pipeline, workers)
        from wsikit.bench import bench_slide
        from wsikit.bench.predict import predict
        from wsikit.sample import sample_slide

        path = slide or sample_slide()
        facts = predict(path, pipeline, workers=workers) if slides_per_hour else bench_slide(path, model or MODEL)
        if as_json:
            show_json(facts)
        else:
            lists = {k: ", ".join(f"{name} {value}" for name, value in v.items()) for k, v in facts.items() if isinstance(v, dict)}
            show_facts(facts | lists)


def check_asked(slides_per_hour: bool, model: str | None, pipeline: list[str] | None, workers: int | None) -> None:
    """Stages are timed with one model in this process, slides an hour with pipelines on workers; an option of the other would change nothing.

    Raises
    ------
    UsageError
        One was given.
    """
    from wsikit.errors import UsageError

    if slides_per_hour and model is not None:
        raise UsageError("--model is what stages are timed with; slides an hour are those of --pipeline, a name or a TOML file that names its model")
    if not slides_per_hour and (pipeline or workers is not None):
        raise UsageError(f"{'--pipeline' if pipeline else '--workers'} is for --slides-per-hour; without it one process times the stages with --model")
