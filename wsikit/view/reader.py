"""What napari calls when something is dropped on it, or a sample is wanted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsikit.errors import WsikitError
from wsikit.readers import find_reader
from wsikit.sample import sample_slide
from wsikit.slide import open_slide
from wsikit.store import open_store
from wsikit.view.layers import slide_layers, store_layers
from wsikit.view.session import is_store

LayerData = tuple[Any, dict[str, Any], str]
NOTHING: list[Any] = [(None,)]  # how a reader says that it has shown everything itself


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """The function that reads this path, or None when it is not for wsikit."""
    first = Path(path[0] if isinstance(path, list) else path)
    if (first / "run.json").is_file():
        return show
    if first.suffix == ".zarr" and is_store(first):
        return show
    try:
        find_reader(first)
    except WsikitError:
        return None
    return show


def show(path: str | list[str]) -> list[LayerData]:
    """Show slides, stores and runs with their panels; without a window, their layers.

    Raises
    ------
    SlideError, StoreError
        One cannot be opened.
    """
    from napari import current_viewer

    paths = [Path(p) for p in (path if isinstance(path, list) else [path])]
    if current_viewer() is None:
        return read_layers(path)
    from wsikit.view.app import show_paths

    show_paths(paths)
    return NOTHING


def read_layers(path: str | list[str]) -> list[LayerData]:
    """Layers of slides and stores.

    Raises
    ------
    SlideError, StoreError
        One cannot be opened.
    """
    layers: list[LayerData] = []
    for p in map(Path, path if isinstance(path, list) else [path]):
        layers += store_layers(open_store(p)) if is_store(p) else slide_layers(open_slide(p))
    return layers


def sample_he() -> list[LayerData]:
    """CMU-1-Small-Region: H&E skin, Carnegie Mellon University, CC0.

    Raises
    ------
    SlideNotFoundError
        It could not be downloaded.
    """
    return slide_layers(open_slide(sample_slide()))


def sample_phantom() -> list[LayerData]:
    """A synthetic sarcoma slide with mitoses, made on the spot."""
    from wsikit.testing.phantom import Spec, write_phantom

    path = Path(tempfile.mkdtemp(prefix="wsikit-")) / "phantom.tif"
    write_phantom(path, Spec(11, "LMS", 2560, 2048, mitoses_per_mm2=25))
    return slide_layers(open_slide(path, trusted=True))
