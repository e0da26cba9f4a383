"""Open napari on slides, stores and runs, or only take its picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("NAPARI_ASYNC", "1")  # tiles arrive without blocking; said before napari starts, so that nobody's settings are changed

import napari
from qtpy.QtCore import QTimer

from wsikit.view.call import Call
from wsikit.view.cases import Cases
from wsikit.view.drop import Drops
from wsikit.view.review import ReviewPanel
from wsikit.view.score import Run
from wsikit.view.session import Session, find_targets, session_of
from wsikit.view.tools import Navigator, settled

CANVAS_PX = (1150, 1880)
PANELS = {"Navigator": Navigator, "Call": Call, "Review": ReviewPanel, "Cases": Cases, "Run": Run}


def open_viewer(paths: Sequence[Path], *, show: bool = True, panels: bool = True) -> Any:
    """A viewer with the slide, store or run, and its panels.

    Raises
    ------
    SlideError, StoreError
        It cannot be opened.
    """
    targets = find_targets(paths)  # before a window opens, so that an error leaves none behind
    viewer: Any = napari.Viewer(title="wsikit", show=show)
    try:
        dress(viewer)
        session_of(viewer).show(targets)
        if panels:
            add_panels(viewer)
        session_of(viewer).fit_view()
    except BaseException:
        viewer.close()
        raise
    return viewer


def dress(viewer: Any) -> None:
    """A light canvas with scale bar and text, that takes what is dropped on it."""
    overlays = viewer.canvas.overlays
    overlays.text.visible = overlays.scale_bar.visible = True
    overlays.text.position, overlays.text.color, overlays.text.font_size = "top_left", "black", 9
    overlays.scale_bar.color = "black"
    viewer.theme = "light"
    session = session_of(viewer)
    session.drops = session.drops or Drops(session)


def add_panels(viewer: Any) -> dict[str, Any]:
    """All panels at the right, one behind the other but the navigator; those that are there stay."""
    there = dict(viewer.window.dock_widgets)
    first = None
    for name, panel in PANELS.items():
        if name not in there:
            there[name] = panel(viewer)
            dock = viewer.window.add_dock_widget(there[name], name=name, area="right", tabify=name not in ("Navigator", "Call"))
            first = dock if name == "Call" else first
    if first is not None:
        QTimer.singleShot(0, first, first.raise_)  # its tab is there when the window has been laid out
    return there


def show_paths(paths: Sequence[Path]) -> Session:
    """What a plugin does with what was dropped on a viewer.

    Raises
    ------
    SlideError, StoreError
        It cannot be opened.
    """
    viewer = napari.current_viewer()
    assert viewer is not None
    session = session_of(viewer)
    session.open(paths)
    dress(session.viewer)
    add_panels(session.viewer)
    return session


def screenshot(paths: Sequence[Path], out: Path) -> None:
    """Draw the layers as `open_viewer` would show them, layer list, panels and all, and save a PNG.

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
        session_of(viewer).add_all()
        session_of(viewer).fit_view()
        session_of(viewer).fit_outlines()
        settled(viewer)
        image = viewer.screenshot(canvas_only=False, flash=False)
        out.parent.mkdir(parents=True, exist_ok=True)
        imwrite(out, image[..., :3], extension=".png")
    finally:
        viewer.close()


def run(paths: Sequence[Path]) -> None:
    """Show the viewer until its window is closed."""
    open_viewer(paths)
    napari.run()
