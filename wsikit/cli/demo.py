"""``wsikit demo``: the main job, on a real slide and on phantoms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from wsikit.cli.options import Workers


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def demo(
        out: Annotated[Path, typer.Option("-o", "--out", help="Where to write.")] = Path("wsikit-demo"),
        slide: Annotated[Path | None, typer.Option("--slide", help="Use this slide instead of the public one.")] = None,
        workers: Workers = None,
    ) -> None:
        """The whole job on a public slide and on phantoms of known truth. A few minutes on two cores.

        Example: wsikit demo -o demo/
        """
        import contextlib
        import time

        from wsikit import demo as steps
        from wsikit.cli.progress import RunProgress

        started = time.monotonic()
        with contextlib.ExitStack() as stack:

            def progress(slides: int) -> Callable[[Any], None]:
                stack.pop_all().close()
                return stack.enter_context(RunProgress(slides, every_slide=False))

            watch = steps.Watch(typer.echo, progress)
            runs = [steps.real_slide(out, slide, watch, workers)]
            runs += steps.phantom_cohort(out, watch, workers)
        steps.closing(runs, typer.echo)
        typer.echo(f"\n   done in {time.monotonic() - started:.0f} s")
