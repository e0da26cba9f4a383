"""What napari calls when a file is dropped on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsikit.errors import WsikitError
from wsikit.readers import find_reader
from wsikit.slide import open_slide
from wsikit.store import open_store
from wsikit.view.layers import slide_layers, store_layers

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """The function that reads this path into layers, or None when it is not for wsikit."""
    first = Path(path[0] if isinstance(path, list) else path)
    if first.suffix == ".zarr":
        return read_layers if (first / "zarr.json").exists() else None
    try:
        find_reader(first)
    except WsikitError:
        return None
    return read_layers


def read_layers(path: str | list[str]) -> list[LayerData]:
    """Layers of slides and stores.

    Raises
    ------
    SlideError, StoreError
        One cannot be opened.
    """
    layers: list[LayerData] = []
    for p in map(Path, path if isinstance(path, list) else [path]):
        layers += store_layers(open_store(p)) if p.suffix == ".zarr" else slide_layers(open_slide(p))
    return layers
