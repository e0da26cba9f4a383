"""``wsikit view``: napari with slide and overlays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def view(
        stores: Annotated[list[Path], typer.Argument(metavar="STORE…", help="Slide stores (.zarr), a run's folder, or slides.")],
        screenshot: Annotated[Path | None, typer.Option("--screenshot", metavar="PNG", help="Save a picture of the viewer and leave.")] = None,
    ) -> None:
        """Open napari: slide, heat maps, tissue, hotspot and mitoses.

        \b
        Example: wsikit view out/slides/a.zarr
        Example: xvfb-run wsikit view out/slides/a.zarr --screenshot a.png
        """
        from wsikit.errors import UsageError, how_to_install

        for path in stores:
            if not path.exists():
                raise UsageError(f"{path}: no such store or slide; check the path")
        require_display()
        try:
            from wsikit.view import app as viewer
        except ImportError as e:
            raise UsageError(f"napari is not installed ({e}); {how_to_install('napari')}") from e
        if screenshot is not None:
            viewer.screenshot(stores, screenshot)
            typer.echo(str(screenshot))
        else:
            viewer.run(stores)


def require_display() -> None:
    """A viewer needs a screen.

    Raises
    ------
    UsageError
        There is none.
    """
    import os
    import sys

    from wsikit.errors import UsageError

    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError("there is no screen here; on a machine without one, run: xvfb-run wsikit view … --screenshot PNG")
