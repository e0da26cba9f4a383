"""``wsikit bench``: how fast is this machine, and what holds it up?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsikit.cli.options import Workers
from wsikit.cli.output import Json, show_facts, show_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def bench(
        slide: Annotated[Path | None, typer.Argument(help="A slide. [default: the public sample slide]")] = None,
        model: Annotated[str, typer.Option("--model", help="The model to time.")] = "phantom-sts-subtype",
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
        from wsikit.bench import bench_slide
        from wsikit.bench.predict import predict
        from wsikit.sample import sample_slide

        path = slide or sample_slide()
        facts = predict(path, pipeline, workers=workers) if slides_per_hour else bench_slide(path, model)
        if as_json:
            show_json(facts)
        else:
            lists = {k: ", ".join(f"{name} {value}" for name, value in v.items()) for k, v in facts.items() if isinstance(v, dict)}
            show_facts(facts | lists)
