"""What a viewer and a reader get of a run: a heat map as an OME-Zarr image, and the overview picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from case import Case, Floor, Setup
from task import Task

STAGE, FLOOR, DISK, PNG = "overlay", "floor", "disk, heat map", "Pillow, picture"
CELLS, CLASSES = 700, 5  # a side: 2 gigapixels in tiles of 64 px, more than any grid has
Work = Callable[[], int]


def cases(setup: Setup) -> list[Case]:
    """Each as slides a second."""
    side = {"side": 100 if setup.quick else CELLS}
    return [
        Case(FLOOR, DISK, "jobs.overlay:plain_file", options=side, unit="slides"),
        Case(STAGE, "wsikit, heat map", "jobs.overlay:heat", options=side, unit="slides", floors=(Floor(FLOOR, DISK, "disk"),)),
        Case(FLOOR, PNG, "jobs.overlay:plain_png", unit="slides"),
        Case(STAGE, "wsikit, picture", "jobs.overlay:picture", unit="slides", floors=(Floor(FLOOR, PNG),)),
    ]


def _values(side: int) -> np.ndarray:
    return np.random.default_rng(0).random((side * side, CLASSES), np.float32)


@contextmanager
def heat(task: Task) -> Iterator[Work]:
    """Tile probabilities of five classes onto the grid, and written."""
    from wsikit.geometry import Size
    from wsikit.grid import Raster, TileGrid
    from wsikit.overlay.heat import heat_map, heat_placement
    from wsikit.store.image import write_image

    side = task.options["side"]
    grid = TileGrid(Raster(0, (1.0, 1.0), (1.0, 1.0), Size(64 * side, 64 * side), (0.25, 0.25)), 64)
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    values = _values(side)

    def work() -> int:
        write_image(Path(task.scratch) / "heat", "heat", [heat_map(grid, cells, values)], [heat_placement(grid)], fill=float("nan"))
        return 1

    work()
    yield work


@contextmanager
def plain_file(task: Task) -> Iterator[Work]:
    """The same bytes as one file."""
    data = _values(task.options["side"]).tobytes()

    def work() -> int:
        (Path(task.scratch) / "heat").write_bytes(data)
        return 1

    work()
    yield work


@contextmanager
def picture(task: Task) -> Iterator[Work]:
    """`write_overview`: the slide, and each heat map over it."""
    from stretched import phantom_run

    from wsikit.overlay.picture import write_overview
    from wsikit.store import open_store

    store = open_store(phantom_run(Path(task.scratch).parent) / "slides/lms.zarr")

    def work() -> int:
        write_overview(store, Path(task.scratch) / "lms.png")
        return 1

    work()
    yield work


@contextmanager
def plain_png(task: Task) -> Iterator[Work]:
    """Pillow writing that very picture."""
    from PIL import Image
    from stretched import phantom_run

    with Image.open(phantom_run(Path(task.scratch).parent) / "slides/lms.png") as im:
        rgb = im.convert("RGB")

    def work() -> int:
        rgb.save(BytesIO(), "PNG", optimize=False)
        return 1

    work()
    yield work
