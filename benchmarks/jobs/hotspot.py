"""The densest window of a gigapixel slide, by its shape and the number of mitoses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from case import Case, Floor, Setup
from task import Task

STAGE, FLOOR = "hotspot", "floor"
SIZE, DOWNSAMPLE, MPP = (49_152, 40_960), (32.0, 32.0), (0.25, 0.25)  # 2.0 gigapixels, 126 mm²
Work = Callable[[], int]


def cases(setup: Setup) -> list[Case]:
    """The floor puts each mitosis into its cell and adds up the cells once, which any exact way has to do; a KD tree is what people write."""
    found = []
    for n in (1000,) if setup.quick else (1000, 100_000):
        said = f"{n:,} mitoses"
        found.append(Case(FLOOR, f"cells, {said}", "jobs.hotspot:cells", options={"n": n}, unit="slides"))
        floors = (Floor(FLOOR, f"cells, {said}"),)
        found += [
            Case(STAGE, f"wsikit, {shape}, {said}", "jobs.hotspot:ours", options={"n": n, "shape": shape}, unit="slides", floors=floors)
            for shape in ("square", "circle", "fields")
        ]
        found.append(Case(STAGE, f"KD tree, circle, {said}", "jobs.hotspot:tree", options={"n": n}, unit="slides", floors=floors))
    return found


def slide(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mitoses float64 (N, 2) x, y in level-0 px, and tissue bool (H, W) on a raster of 32 px."""
    rng = np.random.default_rng(0)
    tissue = np.zeros((round(SIZE[1] / DOWNSAMPLE[1]), round(SIZE[0] / DOWNSAMPLE[0])), bool)
    tissue[100:-100, 100:-100] = True
    return rng.random((n, 2)) * (np.array(SIZE) - 6400) + 3200, tissue


def _again(work: Callable[[], object]) -> Work:
    """So often that a clock notices: slides done."""

    def often() -> int:
        for _ in range(TIMES):
            work()
        return TIMES

    work()
    return often


TIMES = 5


@contextmanager
def ours(task: Task) -> Iterator[Work]:
    """The densest window: 2 mm², or ten fields of it, in steps of 16 µm."""
    from wsikit.aggregate.hotspot import Ground, Window

    position, tissue = slide(task.options["n"])
    window = Window(2.0, task.options["shape"])
    yield _again(lambda: Ground(tissue, DOWNSAMPLE, MPP, window).hotspot(position))


@contextmanager
def cells(task: Task) -> Iterator[Work]:
    """Mitoses into cells of 16 µm, and sums over those cells and over those of the tissue: NumPy alone."""
    position, tissue = slide(task.options["n"])
    step = 16 / np.array(MPP)
    columns, rows = (int(v) for v in np.ceil(np.array(SIZE) / step))
    fine = np.repeat(np.repeat(tissue, 2, 0), 2, 1)[:rows, :columns].astype(np.float64)

    def work() -> None:
        column, row = (position / step).astype(np.int64).T
        counts = np.bincount(row * columns + column, minlength=rows * columns).reshape(rows, columns)
        for values in (counts.astype(np.float64), fine):
            np.cumsum(np.cumsum(values, 0), 1)

    yield _again(work)


@contextmanager
def tree(task: Task) -> Iterator[Work]:
    """SciPy's KD tree asked at every place of the same lattice; tissue is not looked at."""
    from scipy.spatial import cKDTree

    position, _ = slide(task.options["n"])
    radius = np.sqrt(2.0 / np.pi) * 1000
    x, y = (np.arange(8, side * MPP[0], 16.0) for side in SIZE)
    places = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)

    def work() -> int:
        found = cKDTree(position * MPP[0]).query_ball_point(places[:: task.options.get("every", 50)], radius, return_length=True)
        return int(found.argmax())

    work()

    def some() -> float:
        work()
        return 1 / 50  # of all places

    yield some  # type: ignore[misc]
