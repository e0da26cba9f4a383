"""What every reader must do. Run it on a file of your own format when you add a reader.

>>> from functools import partial
>>> from wsikit.slide import open_slide
>>> check_reader(partial(open_slide, "mine.xyz", reader="xyz"))        # doctest: +SKIP

Each check takes a function that opens the slide anew, and raises AssertionError with what is wrong.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from wsikit.errors import WsikitError
from wsikit.geometry import Region, Size
from wsikit.grid import raster_at
from wsikit.readers import Reader, registry
from wsikit.resample import resample, source_span
from wsikit.resolution import is_believable
from wsikit.slide import WHITE, Slide

Open = Callable[[], Slide]
WINDOW_PX = 2048
PICKLE_BYTES = 1024
LEVEL_ERROR = 12.0  # mean grey levels between a level and level 0 made as small: JPEG and odd sizes cost a few, a shift or a mix-up tens
LEVEL_SHIFT_PX = 1
RASTER_STEP = 2.7


def require(condition: bool, message: str) -> None:
    """Raise AssertionError, also under ``python -O``."""
    if not condition:
        raise AssertionError(message)


def same(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Require two pictures to be equal in every pixel."""
    require(found.shape == expected.shape, f"{what}: shape {found.shape} and not {expected.shape}")
    differ = int((found != expected).any(-1).sum())
    require(differ == 0, f"{what}: {differ} of {found.shape[0] * found.shape[1]} pixels differ")


def boxes(size: Size, count: int = 6, seed: int = 0) -> Iterator[Region]:
    """Boxes inside an image: single pixels in its corners, its last column and row, then random ones."""
    w, h = size
    yield from (Region(x, y, 1, 1) for x in {0, w - 1} for y in {0, h - 1})
    yield Region(w - 1, 0, 1, h)
    yield Region(0, h - 1, w, 1)
    rng = np.random.default_rng(seed)
    for _ in range(count):
        x, y = int(rng.integers(w)), int(rng.integers(h))
        yield Region(x, y, int(rng.integers(1, w - x + 1)), int(rng.integers(1, h - y + 1)))


def _windows(slide: Slide) -> Iterator[tuple[int, Region, np.ndarray]]:
    """Of each level its lower right part, which holds the edges that are cut short, with its pixels."""
    for level in slide.levels:
        w, h = min(WINDOW_PX, level.size.w), min(WINDOW_PX, level.size.h)
        region = Region(level.size.w - w, level.size.h - h, w, h)
        yield level.index, region, slide.read_level(level.index, region).copy()


def _crop(pixels: np.ndarray, box: Region) -> np.ndarray:
    return pixels[box.y : box.y1, box.x : box.x1]


def _moved(box: Region, by: Region) -> Region:
    return Region(box.x + by.x, box.y + by.y, box.w, box.h)


def check_levels(open_: Open) -> None:
    """Levels are numbered from 0, finest first, each smaller, with downsamples that are those of their sizes."""
    with open_() as slide:
        require([v.index for v in slide.levels] == list(range(len(slide.levels))), "levels are not numbered 0, 1, …")
        full = slide.levels[0]
        require(full.downsample == (1.0, 1.0), f"level 0 has the downsample {full.downsample}")
        require(full.size == slide.size and min(slide.size) >= 1, f"level 0 is {full.size}, the slide {slide.size}")
        for before, level in zip(slide.levels, slide.levels[1:], strict=False):
            require(min(level.size) >= 1, f"level {level.index} is {level.size}")
            require(all(b < a for a, b in zip(level.downsample, before.downsample, strict=True)), f"level {level.index} is not coarser than the one before")
            for n, size, downsample in zip(slide.size, level.size, level.downsample, strict=True):
                require(abs(n / downsample - size) <= 1, f"level {level.index} has {size} px where a downsample of {downsample:.4f} makes {n / downsample:.1f}")


def check_resolution(open_: Open) -> None:
    """The mpp is believable and its source is named, or there is none and the refusal says what to pass."""
    with open_() as slide:
        if slide.mpp is None:
            require(slide.mpp_source == "" and "mpp" in slide.mpp_refusal, "without an mpp there is no refusal that says what to pass")
        else:
            require(all(map(is_believable, slide.mpp)) and bool(slide.mpp_source), f"mpp {slide.mpp} from '{slide.mpp_source}'")


def check_crops(open_: Open) -> None:
    """A region has the pixels of the whole, at every level: uint8 RGB in memory of its own."""
    with open_() as slide:
        for level, window, whole in _windows(slide):
            require(whole.dtype == np.uint8 and whole.shape == (window.h, window.w, 3), f"level {level}: {whole.dtype} {whole.shape}")
            for box in boxes(Size(window.w, window.h)):
                found = slide.read_level(level, _moved(box, window))
                same(found, _crop(whole, box), f"level {level}, {_moved(box, window)}")
                require(found.flags.writeable, f"level {level}, {box} is read-only")
                found[...] = 77
                same(slide.read_level(level, _moved(box, window)), _crop(whole, box), f"level {level}, {box} after the caller wrote into the first answer")


def check_edges(open_: Open) -> None:
    """Beyond the slide all is white, on every side and at every level; what lies inside stays in its place."""
    with open_() as slide:
        for level in slide.levels:
            (w, h), margin = level.size, 5
            for x, y in ((-margin, -margin), (w - margin, h - margin), (-margin, h - margin), (w - margin, -margin)):
                box = Region(x, y, 2 * margin, 2 * margin)
                inside = box.clip(level.size)
                expected = np.full((box.h, box.w, 3), WHITE, np.uint8)
                expected[inside.y - y : inside.y1 - y, inside.x - x : inside.x1 - x] = slide.read_level(level.index, inside)
                same(slide.read_level(level.index, box), expected, f"level {level.index}, {box}")
            for far in (Region(w, 0, 3, 3), Region(0, h, 3, 3), Region(-3, 0, 3, 3), Region(10 * w, -10 * h, 3, 3)):
                require(bool((slide.read_level(level.index, far) == WHITE).all()), f"level {level.index}, {far} lies beyond the slide and is not white")


def check_refused_regions(open_: Open) -> None:
    """Empty and absurd regions, and levels that do not exist, are refused by name."""
    with open_() as slide:
        pixel = Region(0, 0, 1, 1)
        absurd = [(0, Region(0, 0, 0, 5)), (0, Region(0, 0, 5, -1)), (0, Region(0, 0, 10**6, 10**6)), (len(slide.levels), pixel), (-1, pixel)]
        for level, box in absurd:
            try:
                slide.read_level(level, box)
            except WsikitError:
                continue
            raise AssertionError(f"level {level}, {box} was read")


def check_pyramid(open_: Open) -> None:
    """Each level shows the picture of level 0, in its place."""
    with open_() as slide:
        for level in slide.levels[1:]:
            side = max(1, min(*level.size, int(WINDOW_PX / max(level.downsample))))
            (x0, x1), (y0, y1) = (source_span(0, side, step) for step in level.downsample)
            small = resample(slide.read_level(0, Region(x0, y0, x1 - x0, y1 - y0)), (0, 0), (side, side), level.downsample).astype(float)
            found = slide.read_level(level.index, Region(0, 0, side, side)).astype(float)
            error = float(np.abs(found - small).mean())
            require(error <= LEVEL_ERROR, f"level {level.index} differs from level 0 by {error:.1f} grey levels on average")
            if side > 8 * LEVEL_SHIFT_PX:
                require(_best_shift(found, small) == (0, 0), f"level {level.index} is shifted against level 0 by {_best_shift(found, small)} px")


def _best_shift(found: np.ndarray, expected: np.ndarray) -> tuple[int, int]:
    """By how many px (x, y) a picture fits best on another, up to `LEVEL_SHIFT_PX`."""
    m = LEVEL_SHIFT_PX
    h, w = expected.shape[:2]
    inner = expected[m : h - m, m : w - m]
    errors = {(x, y): float(np.abs(found[m + y : h - m + y, m + x : w - m + x] - inner).mean()) for y in range(-m, m + 1) for x in range(-m, m + 1)}
    best = min(errors, key=errors.__getitem__)
    return best if errors[best] < 0.98 * errors[0, 0] else (0, 0)


def check_rasters(open_: Open) -> None:
    """A resampled pixel is the same whichever region it is read in, in and beyond the slide."""
    with open_() as slide:
        for raster in (slide.reduced(4), raster_at(slide.levels[0], (1.0, 1.0), (RASTER_STEP, RASTER_STEP))):
            w, h = (min(n, 400) + 6 for n in raster.size)
            x, y = raster.size.w + 3 - w, raster.size.h + 3 - h
            whole = slide.read_raster(raster, x, y, w, h)
            for box in boxes(Size(w, h)):
                same(slide.read_raster(raster, x + box.x, y + box.y, box.w, box.h), _crop(whole, box), f"1/{raster.downsample[0]:.4g}, {box}")


def check_pickle(open_: Open) -> None:
    """An open slide travels to another process in a few bytes and is the same there."""
    with open_() as slide:
        region = Region(0, 0, min(slide.size.w, 300), min(slide.size.h, 300))
        pixels = slide.read_level(0, region)
        data = pickle.dumps(slide)
        require(len(data) <= PICKLE_BYTES, f"a pickled slide has {len(data)} bytes: it carries more than its path")
        with pickle.loads(data) as copy:  # noqa: S301 - made a line above
            facts = [(s.levels, s.mpp, s.mpp_source, s.reader, s.properties) for s in (slide, copy)]
            require(facts[0] == facts[1], f"a pickled slide says {facts[1]} and not {facts[0]}")
            same(copy.read_level(0, region), pixels, "a pickled slide")


def check_threads(open_: Open) -> None:
    """Several threads that read one slide at once get the same pixels as one."""
    with open_() as slide:
        level, window, whole = list(_windows(slide))[-1]
        todo = [*boxes(Size(window.w, window.h), 10)] * 2
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda box: slide.read_level(level, _moved(box, window)), todo))
        for box, pixels in zip(todo, found, strict=True):
            same(pixels, _crop(whole, box), f"level {level}, {box} in a thread")


def check_close(open_: Open) -> None:
    """Closing twice is no error, and reading after it opens the file again."""
    with open_() as slide:
        region = Region(0, 0, min(slide.size.w, 64), min(slide.size.h, 64))
        pixels = slide.read_level(0, region)
        slide.close()
        slide.close()
        same(slide.read_level(0, region), pixels, "after close")


def check_digest(open_: Open) -> None:
    """The digest is the same whenever it is taken, and for one file it is its SHA-256."""
    with open_() as slide, open_() as again:
        require(slide.digest == again.digest, "two digests of one slide differ")
        require(len(slide.digest) == 64, f"'{slide.digest}' is no SHA-256")
        if registry()[slide.reader].files(slide.path) == [slide.path]:
            require(slide.digest == hashlib.sha256(slide.path.read_bytes()).hexdigest(), "the digest is not the file's SHA-256")


CHECKS: tuple[Callable[[Open], None], ...] = (
    check_levels,
    check_resolution,
    check_crops,
    check_edges,
    check_refused_regions,
    check_pyramid,
    check_rasters,
    check_pickle,
    check_threads,
    check_close,
    check_digest,
)


def check_reader(open_: Open) -> None:
    """Run every check."""
    for check in CHECKS:
        check(open_)


def check_pixels(open_: Open, truth: np.ndarray, tolerance: float = 0.0) -> None:
    """Level 0 is this picture: exactly, or with a mean difference in grey levels of at most ``tolerance`` for lossy formats."""
    with open_() as slide:
        require(slide.size == (truth.shape[1], truth.shape[0]), f"the slide is {slide.size}, the picture {truth.shape}")
        found = slide.read_level(0, Region(0, 0, *slide.size))
        error = float(np.abs(found.astype(float) - truth).mean())
        require(error <= tolerance, f"level 0 differs from the truth by {error:.2f} grey levels on average")


def check_refusals(reader: type[Reader]) -> None:
    """Files that are no slides are never accepted with an error other than ours: empty, text, noise, a folder, nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = np.random.default_rng(0).bytes(4096)
        files = {"empty": b"", "text": b"a report, not a slide\n" * 40, "noise": noise}
        files |= {"tiff": b"II*\0" + noise, "png": b"\x89PNG\r\n\x1a\n" + noise, "jpg": b"\xff\xd8\xff" + noise}
        for stem, data in files.items():
            (folder / stem).write_bytes(data)
        for path in (*(folder / stem for stem in files), folder, folder / "missing"):
            require(reader.accepts(path) >= 0, f"{reader.name} has no opinion on {path.name}")
            try:
                reader(path).close()
            except WsikitError:
                continue
            raise AssertionError(f"{reader.name} opened {path.name}, which is no slide")
