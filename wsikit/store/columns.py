"""What was found, as columns: one Zarr array per column, one row per tile or detection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from wsikit.errors import DamagedStoreError
from wsikit.store.durable import disk_errors
from wsikit.store.image import create_array, read_array, write_group

if TYPE_CHECKING:
    import pandas as pd

_CHUNK_ROWS, _SHARD_ROWS = 8192, 8192 * 64


class Table(Mapping[str, np.ndarray]):
    """The columns of one model, read when asked for.

    Tiles have ``origin`` int64 (N, 2) x, y of the upper-left corner and ``size`` float64 (N, 2), both level-0 px,
    ``tissue`` float32 (N,), ``probability`` float32 (N, K) and ``feature`` float16 (N, D); of a model of regions ``map`` uint8 (N, S·S), its
    probability in squares of each tile. Detections have ``position``
    float64 (M, 2) and ``size`` float32 (M, 2) in level-0 px, ``score`` float32 (M,) and ``class`` int64 (M,), and ``atypical``
    float32 (M,) from models that tell: the probability of an atypical mitosis.
    Quality has, for each tile that is not plain glass, shares of it (``tissue``, ``fold``, ``pen_<colour>``, ``black``, ``white``,
    ``other``), ``blur``, and the ``reason`` uint8 it is left out for. ``attributes`` holds the class names and where the columns came from.
    """

    def __init__(self, group: zarr.Group) -> None:
        self._group = group
        self.attributes: dict[str, Any] = dict(group.attrs)

    def __getitem__(self, name: str) -> np.ndarray:
        return read_array(self._column(name))

    def batches(self, *names: str, rows: int = _CHUNK_ROWS) -> Iterator[tuple[np.ndarray, ...]]:
        """These columns, some rows at a time: what a million detections take is the memory of a few thousand.

        Raises
        ------
        KeyError
            There is no such column.
        DamagedStoreError
            Its bytes are not those that were written.
        """
        arrays = [self._column(name) for name in names]
        for start in range(0, arrays[0].shape[0], rows):
            yield tuple(read_array(array, slice(start, start + rows)) for array in arrays)

    def _column(self, name: str) -> zarr.Array:
        if name not in self._group:
            raise KeyError(name)
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        # every shard of a column is written, so one that is not there was lost, and would read as zeros
        if array.size and array.nchunks_initialized < array.nchunks:
            raise DamagedStoreError(f"{array.store_path}: a file of this column is missing; run wsikit verify on the run folder")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._group.array_keys()))

    def __len__(self) -> int:
        return len(list(self._group.array_keys()))

    def to_pandas(self) -> pd.DataFrame:
        """All columns but features as a table; classes and coordinates become columns of their own."""
        import pandas as pd

        classes = self.attributes.get("classes", [])
        out: dict[str, np.ndarray] = {}
        for name in self:
            if name in ("feature", "map"):
                continue
            values = self[name]
            if name == "probability":
                out |= {f"p_{c}": values[:, i] for i, c in enumerate(classes)}
            elif name == "reason":
                out[name] = np.array(self.attributes["reasons"], dtype=object)[values]
            elif name == "class":
                out[name] = np.array(classes, dtype=object)[values] if len(values) else np.empty(0, object)
            elif values.ndim == 2:
                suffixes = ("w", "h") if name == "size" else ("x", "y")
                out |= {f"{name}_{s}": values[:, i] for i, s in enumerate(suffixes)}
            else:
                out[name] = values
        return pd.DataFrame(out)


def write_table(path: Path, columns: Mapping[str, np.ndarray], attributes: dict[str, Any]) -> None:
    """A group of columns of equal length.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    write_group(path, attributes)
    for name, values in columns.items():
        rest = values.shape[1:]
        rows = min(_CHUNK_ROWS, max(1, len(values)))
        shard = -(-min(_SHARD_ROWS, max(1, len(values))) // rows) * rows
        with disk_errors(path):
            axes = ["row", "column"][: values.ndim]
            array = create_array(path, name, values.shape, values.dtype.str, None, chunk=(rows, *rest), shard=(shard, *rest), axes=axes)  # type: ignore[arg-type]
            if len(values):
                array[...] = values
