"""What of a finished slide could not be decoded: where, how much of its tissue, and what is counted without it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.errors import DamagedSlideError
from wsikit.geometry import Region
from wsikit.run.ledger import receipts_path
from wsikit.run.plan import DAMAGED, grid_of
from wsikit.salvage import without_cells
from wsikit.store import SlideStore
from wsikit.store.columns import write_table
from wsikit.store.receipts import read_receipts


def collect(path: Path, store: SlideStore, most: float) -> None:
    """Write ``tables/damaged``, what the blocks could not decode, where there is any.

    Raises
    ------
    DamagedSlideError
        It is more than the share ``most`` of the tissue.
    OutputError
        The disk is full or cannot be written.
    """
    boxes = sorted({*places(store), *(Region(*box) for r in read_receipts(receipts_path(path)) for box in r.damaged)}, key=lambda r: (r.y, r.x, r.w, r.h))
    if not boxes:
        return
    share, first = tissue_share(store, boxes), boxes[0]
    if share > most:
        raise DamagedSlideError(
            f"{len(boxes)} squares, {share:.3%} of the tissue, cannot be decoded, more than the {most:.3%} of --max-damaged; the first at x {first.x}, "
            f"y {first.y} of level 0; copy the slide again from the scanner"
        )
    columns = {"origin": np.array([(r.x, r.y) for r in boxes], np.int64), "size": np.array([(r.w, r.h) for r in boxes], np.int64)}
    write_table(path / "tables" / DAMAGED, columns, {"task": DAMAGED, "tissue_share": share})


def places(store: SlideStore) -> list[Region]:
    """The boxes, in level-0 px, that could not be decoded."""
    table = store.tables().get(DAMAGED)
    return [] if table is None else [Region(x, y, w, h) for (x, y), (w, h) in zip(table["origin"].tolist(), table["size"].tolist(), strict=True)]


def summary(store: SlideStore) -> dict[str, Any]:
    """What a slide's result says of it."""
    boxes = places(store)
    return {"squares": len(boxes), "tissue_share": tissue_share(store, boxes), "boxes": [[r.x, r.y, r.w, r.h] for r in boxes]}


def tissue_share(store: SlideStore, boxes: list[Region]) -> float:
    """What share of the tissue lies in these boxes?"""
    tissue, (dx, dy) = store.tissue() == 1, store.attributes["survey"]["raster"]["downsample"]
    left = tissue.copy()
    for box in boxes:
        left[int(box.y / dy) : math.ceil(box.y1 / dy), int(box.x / dx) : math.ceil(box.x1 / dx)] = False
    total = int(tissue.sum())
    return round(1 - float(left.sum()) / total, 6) if total else 0.0


def scored_tissue(store: SlideStore, name: str) -> tuple[np.ndarray, float]:
    """The tissue that a pipeline has seen, bool (H, W) on the low-power raster, and its mm²: without tiles that could not be decoded."""
    survey, tissue = store.attributes["survey"], store.tissue() == 1
    table = store.tables().get(name)
    dropped = table.attributes.get("dropped", []) if table is not None else []
    if not dropped:
        return tissue, survey["tissue_mm2"]
    grid = grid_of({k: store.attributes["stages"][name][k] for k in ("raster", "tile_px", "overlap_px")})
    seen = without_cells(tissue, tuple(survey["raster"]["downsample"]), grid, np.array(dropped))
    return seen, survey["tissue_mm2"] * float(seen.sum()) / max(1, int(tissue.sum()))
