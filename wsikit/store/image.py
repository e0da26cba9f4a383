"""Pixels, labels and heat maps as OME-Zarr 0.5 images, whole shards at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from wsikit.errors import DamagedStoreError
from wsikit.grid import Raster
from wsikit.resample import shrink
from wsikit.store.codec import parse_codec
from wsikit.store.durable import disk_errors

RGB_CHANNELS = [
    {"label": name, "color": colour, "active": True, "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
    for name, colour in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
]


@dataclass(frozen=True)
class Placement:
    """Where an image lies on the slide: µm per pixel, and µm of the first pixel's centre, x and y.

    The centre of level-0 pixel (0, 0) is at 0 µm, as OME-Zarr and napari have it.
    """

    scale: tuple[float, float]
    translation: tuple[float, float]

    @classmethod
    def of(cls, downsample: tuple[float, float], mpp0: tuple[float, float]) -> Placement:
        """The placement of pixels that cover ``downsample`` level-0 px each, from the slide's origin."""
        scale = (downsample[0] * mpp0[0], downsample[1] * mpp0[1])
        return cls(scale, ((downsample[0] - 1) / 2 * mpp0[0], (downsample[1] - 1) / 2 * mpp0[1]))

    @classmethod
    def of_raster(cls, raster: Raster) -> Placement:
        """The placement of a raster's pixels."""
        mpp0 = (raster.mpp[0] / raster.downsample[0], raster.mpp[1] / raster.downsample[1])
        return cls.of(raster.downsample, mpp0)


def create_array(
    group: Path,
    name: str,
    shape: Sequence[int],
    dtype: str,
    fill: float | None,
    *,
    chunk: Sequence[int],
    shard: Sequence[int] | None = None,
    axes: str = "cyx",
    codec: str = "zstd:1",
) -> zarr.Array:
    """An empty array whose chunks lie in shards; with ``fill`` None every chunk is written, else those with another value."""
    array: zarr.Array = zarr.create_array(
        store=str(group / name),
        shape=tuple(shape),
        dtype=dtype,
        chunks=tuple(chunk),
        shards=tuple(shard) if shard else None,
        fill_value=0 if fill is None else fill,
        **parse_codec(codec).zarr_arguments(),
        dimension_names=list(axes),
        config={"write_empty_chunks": fill is None},
        overwrite=True,
    )
    return array


def read_array(array: zarr.Array, rows: slice = slice(None)) -> np.ndarray:
    """All of an array, or some of its first axis.

    Raises
    ------
    DamagedStoreError
        Its bytes are not those that were written.
    """
    # zarr takes an empty file, as a power cut leaves it, for one that was never written
    if any(p.is_file() and not p.stat().st_size for p in Path(array.store.root, array.path, "c").rglob("*")):
        raise DamagedStoreError(f"{array.store_path}: damaged (an empty file); run wsikit verify on the run folder")
    try:
        return np.asarray(array[rows])
    except (ValueError, RuntimeError, TypeError, IndexError) as e:
        raise DamagedStoreError(f"{array.store_path}: damaged ({' '.join(str(e).split())[:100]}); run wsikit verify on the run folder") from e


def write_group(path: Path, attributes: dict[str, Any]) -> None:
    """A Zarr v3 group with these attributes; what is already below it stays."""
    with disk_errors(path):
        group = zarr.open_group(str(path), mode="a", zarr_format=3)
        group.attrs.update(attributes)


def multiscales(name: str, places: Sequence[Placement], axes: str = "cyx") -> list[dict[str, Any]]:
    """OME-Zarr 0.5 ``multiscales`` metadata for datasets ``0``, ``1``, …"""
    kinds = {"c": {"type": "channel"}, "y": {"type": "space", "unit": "micrometer"}, "x": {"type": "space", "unit": "micrometer"}}
    lead = [1.0] * (len(axes) - 2)
    datasets = [
        {
            "path": str(i),
            "coordinateTransformations": [
                {"type": "scale", "scale": [*lead, p.scale[1], p.scale[0]]},
                {"type": "translation", "translation": [*(0.0 for _ in lead), p.translation[1], p.translation[0]]},
            ],
        }
        for i, p in enumerate(places)
    ]
    return [{"name": name, "axes": [{"name": a, **kinds[a]} for a in axes], "datasets": datasets}]


def write_image(
    path: Path, name: str, levels: Sequence[np.ndarray], places: Sequence[Placement], *, fill: float, extra: dict[str, Any] | None = None, chunk: int = 512
) -> None:
    """A small image with all its levels, each in one shard.

    Parameters
    ----------
    levels : arrays (C, H, W), or (H, W) for labels, finest first
    extra : more ``ome`` metadata (``omero``, ``image-label``)

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    axes = "cyx" if levels[0].ndim == 3 else "yx"
    write_group(path, {"ome": {"version": "0.5", "multiscales": multiscales(name, places, axes), **(extra or {})}})
    for i, level in enumerate(levels):
        h, w = level.shape[-2:]
        lead = level.shape[:-2]
        edge = (min(chunk, h), min(chunk, w))
        whole = (-(-h // edge[0]) * edge[0], -(-w // edge[1]) * edge[1])
        with disk_errors(path):
            array = create_array(path, str(i), level.shape, level.dtype.str, fill, chunk=(*lead, *edge), shard=(*lead, *whole), axes=axes)
            array[...] = level


def coarser(rgb: np.ndarray, factor: int = 4) -> np.ndarray:
    """uint8 (H, W, C) averaged by a factor; the last rows and columns are repeated to a whole multiple."""
    h, w = rgb.shape[:2]
    if h % factor or w % factor:  # a block's sides are whole multiples, and a copy of it takes as long as half its decoding
        rgb = np.pad(rgb, ((0, -h % factor), (0, -w % factor), (0, 0)), mode="edge")
    return shrink(rgb, factor)
