"""Open napari on stores and slides, or only take its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import napari

from wsikit.errors import StoreMismatchError
from wsikit.slide import open_slide
from wsikit.store import open_store
from wsikit.view.layers import headline, slide_layers, store_layers

CANVAS_PX = (1000, 1500)


def open_viewer(paths: Sequence[Path], *, show: bool = True) -> Any:
    """A viewer with the layers of all these stores, run folders and slides.

    Raises
    ------
    SlideError, StoreError
        One cannot be opened.
    """
    layers, text = [], ""
    for path in expand(paths):  # all of it before a window opens, so that an error leaves none behind
        if path.suffix == ".zarr":
            store = open_store(path)
            layers += store_layers(store)
            text = headline(path, store.result)
        else:
            layers += slide_layers(open_slide(path))
    viewer: Any = napari.Viewer(title="wsikit", show=show)
    viewer.text_overlay.text = text
    for data, options, kind in layers:
        getattr(viewer, f"add_{kind}")(data, **options)
    viewer.text_overlay.visible = True
    viewer.text_overlay.position = "top_left"
    viewer.text_overlay.color = "black"
    viewer.text_overlay.font_size = 9
    viewer.scale_bar.visible = True
    viewer.scale_bar.color = "black"
    viewer.theme = "light"
    viewer.reset_view()
    return viewer


def expand(paths: Sequence[Path]) -> list[Path]:
    """Stores and slides; a run's folder stands for all its stores.

    Raises
    ------
    StoreMismatchError
        A run's folder holds no store.
    """
    found: list[Path] = []
    for path in paths:
        if (path / "run.json").exists():
            stores = sorted((path / "slides").glob("*.zarr"))
            if not stores:
                raise StoreMismatchError(f"{path}: no slide of this run is finished yet")
            found += stores
        else:
            found.append(path)
    return found


def screenshot(paths: Sequence[Path], out: Path) -> None:
    """Draw the layers as `open_viewer` would show them, layer list and all, and save a PNG.

    Raises
    ------
    SlideError, StoreError
        A path cannot be opened.
    """
    from imageio.v3 import imwrite
    from qtpy.QtWidgets import QApplication

    viewer = open_viewer(paths, show=True)
    try:
        viewer.window.resize(CANVAS_PX[1], CANVAS_PX[0])
        QApplication.processEvents()  # the canvas takes its new size
        viewer.reset_view()
        QApplication.processEvents()
        image = viewer.screenshot(canvas_only=False, flash=False)
        out.parent.mkdir(parents=True, exist_ok=True)
        imwrite(out, image[..., :3], extension=".png")
    finally:
        viewer.close()


def run(paths: Sequence[Path]) -> None:
    """Show the viewer until its window is closed."""
    open_viewer(paths)
    napari.run()
