"""The slide store: one OME-Zarr 0.5 folder per slide that models, viewers and people read.

::

    <slide_id>.zarr/
      0 1 2 …            stain-normalised pixels (c, y, x), finest first; overview power only when pixels are not kept
      labels/tissue      1 tissue, 2 ink or dense blood, 3 scanner black
      labels/quality     the same with inks by colour, folds, and what is neither
      overlays/<name>    heat maps
      tables/<pipeline>  columns, one row per tile or detection
    <slide_id>.receipts.jsonl   what was committed
    <slide_id>.json             the slide's result
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from wsikit.errors import DamagedStoreError, StoreError, StoreMismatchError
from wsikit.store.columns import Table
from wsikit.store.image import Placement, read_array

SCHEMA = 1
LABELS = {1: ("tissue", [0, 158, 115, 90]), 2: ("ink or dense blood", [213, 94, 0, 160]), 3: ("scanner black", [0, 0, 0, 160])}
KINDS = {
    1: ("tissue", [0, 158, 115, 90]),
    2: ("green ink", [0, 200, 0, 160]),
    3: ("blue ink", [0, 114, 178, 160]),
    4: ("red ink or dense blood", [213, 94, 0, 160]),
    5: ("black", [0, 0, 0, 160]),
    6: ("fold", [240, 228, 66, 160]),
    7: ("neither tissue nor glass", [204, 121, 167, 160]),
}


@dataclass(frozen=True)
class Overlay:
    """A heat map: float32 (C, H, W), NaN where nothing was scored; its channels' names and its place."""

    values: np.ndarray
    channels: tuple[str, ...]
    placement: Placement


class SlideStore:
    """A slide store, read; `open_store` opens one.

    Attributes
    ----------
    path : Path
        The folder.
    attributes : dict
        What the store says of itself: slide facts, plan, stain, model cards.

    Raises
    ------
    StoreMismatchError
        The folder is not a wsikit store, or of another schema.

    Examples
    --------
    >>> store = open_store("out/slides/a.zarr")              # doctest: +SKIP
    >>> store.result["pipelines"]["sts-subtype"]["call"]     # doctest: +SKIP
    'LMS'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._root = zarr.open_group(str(self.path), mode="r", zarr_format=3)
            self.attributes: dict[str, Any] = dict(self._root.attrs["wsikit"])
        except (FileNotFoundError, KeyError, ValueError, TypeError) as e:
            raise StoreMismatchError(f"{self.path}: not a wsikit slide store; give the .zarr folder below a run's slides folder") from e
        if self.attributes.get("schema") != SCHEMA:
            raise StoreMismatchError(f"{self.path}: store schema {self.attributes.get('schema')}, this wsikit reads {SCHEMA}; score the slide again")

    @property
    def slide_id(self) -> str:
        """How the run calls the slide."""
        return self.path.name.removesuffix(".zarr")

    @property
    def mpp(self) -> tuple[float, float]:
        """µm per level-0 px of the slide."""
        x, y = self.attributes["slide"]["mpp"]
        return x, y

    def levels(self) -> list[tuple[zarr.Array, Placement]]:
        """The stored pixels, finest first, with their places."""
        return [(self._array(p), place) for p, place in _datasets(self._root)]

    def image(self, mpp: float | None = None) -> zarr.Array:
        """Pixels uint8 (3, H, W): the coarsest level that still has ``mpp`` µm/px or finer; without, the finest.

        Where pixels were not kept, all there is has about 8 µm/px.

        Raises
        ------
        DamagedStoreError
            They are missing, or their metadata damaged.
        """
        levels = self.levels()
        fine = [array for array, place in levels if mpp is not None and max(place.scale) <= mpp * 1.02]
        return fine[-1] if fine else levels[0][0]

    def tissue(self) -> np.ndarray:
        """The tissue label, uint8 (H, W), on the low-power raster: see `LABELS`."""
        return read_array(self._array("labels/tissue/0"))

    def region(self, pipeline: str) -> np.ndarray | None:
        """Where a model of regions found its region: bool (H, W) on the low-power raster; None where none was drawn."""
        if f"labels/{pipeline}/0" not in self._root:
            return None
        return read_array(self._array(f"labels/{pipeline}/0")) == 1

    def kinds(self) -> np.ndarray:
        """The quality label, uint8 (H, W), on the low-power raster: see `KINDS`."""
        return read_array(self._array("labels/quality/0"))

    def tables(self) -> dict[str, Table]:
        """Columns of every pipeline that was scored, by its name.

        Raises
        ------
        DamagedStoreError
            Their metadata are damaged.
        """
        return {name: Table(group) for name, group in sorted(self._groups("tables"))}

    def overlays(self) -> list[str]:
        """Names of the heat maps."""
        return sorted(name for name, _ in self._groups("overlays"))

    def channels(self, name: str) -> tuple[str, ...]:
        """Names of a heat map's channels, without reading it."""
        ome: Any = dict(self._groups("overlays"))[name].attrs["ome"]
        return tuple(c["label"] for c in ome["omero"]["channels"])

    def about_overlay(self, name: str) -> dict[str, Any]:
        """Where a heat map is from, where it says so itself: its attribute ``wsikit``."""
        return dict(dict(self._groups("overlays"))[name].attrs.get("wsikit", {}))

    def overlay(self, name: str) -> Overlay:
        """A heat map by its name.

        Raises
        ------
        StoreError
            There is none; the message lists what there is.
        """
        groups = dict(self._groups("overlays"))
        if name not in groups:
            raise StoreError(f"{self.path}: no overlay '{name}'; there are: {', '.join(sorted(groups)) or '(none)'}")
        group = groups[name]
        return Overlay(read_array(self._array(f"overlays/{name}/0")), self.channels(name), _datasets(group)[0][1])

    @property
    def result(self) -> dict[str, Any]:
        """The slide's result, as in ``<slide_id>.json``.

        Raises
        ------
        StoreError
            The slide was not finished, or the file is damaged.
        """
        path = self.path.with_suffix(".json")
        if not path.exists():
            raise StoreError(f"{path}: the slide has no result yet; run the same wsikit score again to finish it")
        try:
            value: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError as e:
            raise DamagedStoreError(f"{path}: damaged, it is not JSON any more; run wsikit score again to repair it") from e
        return value

    def _groups(self, name: str) -> list[tuple[str, zarr.Group]]:
        try:
            group = self._root.get(name)
            return list(group.groups()) if isinstance(group, zarr.Group) else []
        except (ValueError, TypeError) as e:
            raise DamagedStoreError(f"{self.path}: the metadata below {name} are damaged; run wsikit verify on the run folder") from e

    def _array(self, name: str) -> zarr.Array:
        try:
            array = self._root[name]
        except KeyError as e:
            raise DamagedStoreError(f"{self.path}: array {name} is missing; run wsikit verify on the run folder") from e
        except (ValueError, TypeError) as e:
            raise DamagedStoreError(f"{self.path}: the metadata of array {name} are damaged; run wsikit verify on the run folder") from e
        assert isinstance(array, zarr.Array)
        return array


def _datasets(group: zarr.Group) -> list[tuple[str, Placement]]:
    ome: Any = group.attrs["ome"]
    out = []
    for dataset in ome["multiscales"][0]["datasets"]:
        scale, translation = (t[t["type"]] for t in dataset["coordinateTransformations"])
        out.append((dataset["path"], Placement((scale[-1], scale[-2]), (translation[-1], translation[-2]))))
    return out


def open_store(path: str | Path) -> SlideStore:
    """Open the store of one slide.

    Raises
    ------
    StoreMismatchError
        The folder is not a wsikit store, or of another schema.

    Examples
    --------
    >>> store = open_store("out/slides/a.zarr")              # doctest: +SKIP
    >>> "probability" in store.tables()["sts-subtype"]       # doctest: +SKIP
    True
    """
    return SlideStore(path)


__all__ = ["KINDS", "LABELS", "SCHEMA", "Overlay", "SlideStore", "Table", "open_store"]
