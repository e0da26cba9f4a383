"""The label images of a store: what the low-power picture is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from wsikit.grid import Raster
from wsikit.run.ledger import commit_layout_file
from wsikit.store import KINDS, LABELS
from wsikit.store.image import Placement, write_group, write_image
from wsikit.survey import Survey
from wsikit.tissue.mask import DARK, FOLD, GLASS, INKS, OTHER, TISSUE

LABELS_OF_STORE = ("tissue", "quality")
_TISSUE_OF = {GLASS: 0, TISSUE: 1, FOLD: 1, DARK: 3, OTHER: 0} | dict.fromkeys(INKS.values(), 2)


def write_labels(path: Path, found: Survey, n_levels: int) -> None:
    """``labels/tissue`` and ``labels/quality`` on the low-power raster, with as many levels as the image, as OME-Zarr wants.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    kind = found.mask.kind
    tissue = np.array([_TISSUE_OF[k] for k in range(len(_TISSUE_OF))], np.uint8)[kind]
    labels = {"tissue": (tissue, LABELS), "quality": (kind, KINDS)}
    write_group(path / "labels", {"ome": {"version": "0.5", "labels": list(labels)}})
    for name, (label, meaning) in labels.items():
        _write_label(path / "labels" / name, label, meaning, found.raster, n_levels)


def write_region(path: Path, pipeline: str, mask: np.ndarray, raster: Raster, colour: Sequence[int]) -> None:
    """``labels/<pipeline>``: a region that a model found, bool (H, W) on the low-power raster, listed beside the store's own labels.

    Raises
    ------
    OutputError
        The disk is full or cannot be written.
    """
    group = zarr.open_group(str(path / "labels"), mode="r")
    ome: Any = group.attrs["ome"]
    _write_label(path / "labels" / pipeline, mask.astype(np.uint8), {1: (pipeline, [*colour, 110])}, raster, len(_levels(path / "labels/tissue")))
    if pipeline not in ome["labels"]:
        write_group(path / "labels", {"ome": {**ome, "labels": [*ome["labels"], pipeline]}})
        commit_layout_file(path, path / "labels/zarr.json")


def _levels(label: Path) -> list[Any]:
    ome: Any = zarr.open_group(str(label), mode="r").attrs["ome"]
    return list(ome["multiscales"][0]["datasets"])


def _write_label(path: Path, label: np.ndarray, meaning: Mapping[int, tuple[str, Any]], raster: Raster, n_levels: int) -> None:
    levels, places, downsample = [label], [Placement.of_raster(raster)], raster.downsample
    mpp0 = (raster.mpp[0] / downsample[0], raster.mpp[1] / downsample[1])
    while len(levels) < n_levels:
        downsample = (downsample[0] * 2, downsample[1] * 2)
        levels.append(levels[-1][::2, ::2])  # labels are picked, never averaged
        places.append(Placement.of(downsample, mpp0))
    colours = [{"label-value": v, "rgba": rgba} for v, (_, rgba) in meaning.items()]
    names = [{"label-value": v, "name": name} for v, (name, _) in meaning.items()]
    extra = {"image-label": {"colors": colours, "properties": names, "source": {"image": "../../"}}}
    write_image(path, path.name, levels, places, fill=0, extra=extra)
