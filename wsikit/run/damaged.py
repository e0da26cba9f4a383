"""What of a finished slide could not be decoded: where, how much of its tissue, and what is counted without it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from wsikit.errors import DamagedSlideError
from wsikit.geometry import Region
from wsikit.run.job import Job
from wsikit.run.ledger import receipts_path
from wsikit.run.plan import DAMAGED
from wsikit.store import SlideStore
from wsikit.store.columns import write_table
from wsikit.store.receipts import read_receipts


@contextlib.contextmanager
def advice(job: Job) -> Iterator[None]:
    """Say, of a slide that cannot be decoded somewhere, that such places can be left out.

    Raises
    ------
    DamagedSlideError
        Something inside met such a place.
    """
    try:
        yield
    except DamagedSlideError as e:
        raise DamagedSlideError(str(e) if job.max_damaged else f"{e}; or leave such places out with wsikit score --max-damaged 0.001") from e


def collect(store: SlideStore, most: float) -> None:
    """Write ``tables/damaged``, what the blocks could not decode, where there is any.

    Raises
    ------
    DamagedSlideError
        It is more than the share ``most`` of the tissue.
    OutputError
        The disk is full or cannot be written.
    """
    boxes = places(store)
    if not boxes:
        return
    share, first = tissue_share(store, boxes), boxes[0]
    if share > most:
        raise DamagedSlideError(
            f"{len(boxes)} squares, {share:.3%} of the tissue, cannot be decoded, more than the {most:.3%} of --max-damaged; the first at x {first.x}, "
            f"y {first.y} of level 0; copy the slide again from the scanner"
        )
    columns = {"origin": np.array([(r.x, r.y) for r in boxes], np.int64), "size": np.array([(r.w, r.h) for r in boxes], np.int64)}
    write_table(store.path / "tables" / DAMAGED, columns, {"task": DAMAGED, "tissue_share": share})


def places(store: SlideStore) -> list[Region]:
    """The boxes, in level-0 px, that could not be decoded, by the receipts."""
    found = {Region(*box) for receipt in read_receipts(receipts_path(store.path)) for box in receipt.damaged}
    return sorted(found.union(unseen(store)), key=lambda r: (r.y, r.x, r.w, r.h))


def unseen(store: SlideStore) -> list[Region]:
    """The boxes that not even the low-power picture shows, so that nobody knows whether they are tissue."""
    return [Region(*box) for box in store.attributes["survey"]["damaged"]]


def summary(store: SlideStore) -> dict[str, Any]:
    """What a slide's result says of it."""
    boxes = places(store)
    return {"squares": len(boxes), "tissue_share": tissue_share(store, boxes), "boxes": [[r.x, r.y, r.w, r.h] for r in boxes]}


def tissue_share(store: SlideStore, boxes: list[Region]) -> float:
    """What share of the tissue lies in these boxes? What the low-power picture does not show counts as tissue."""
    tissue, (dx, dy) = store.tissue() == 1, store.attributes["survey"]["raster"]["downsample"]

    def window(box: Region) -> tuple[slice, slice]:
        return slice(int(box.y / dy), math.ceil(box.y1 / dy)), slice(int(box.x / dx), math.ceil(box.x1 / dx))

    for box in unseen(store):
        tissue[window(box)] = True
    left = tissue.copy()
    for box in boxes:
        left[window(box)] = False
    total = int(tissue.sum())
    return round(1 - float(left.sum()) / total, 6) if total else 0.0
