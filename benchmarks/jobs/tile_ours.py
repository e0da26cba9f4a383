"""What wsikit does from slide to Zarr, stage by stage and together; and the floors under it: decoder, memory, encoders, disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from task import Task

import wsikit as wk
from wsikit.cut import normalise
from wsikit.geometry import Region
from wsikit.run import tile_slides
from wsikit.run.engine import Where, open_pool
from wsikit.run.job import Pixels
from wsikit.run.plan import BLOCK_PX, chunk_px
from wsikit.sample import sample_slide
from wsikit.store.codec import _compressor as zstd_compressor
from wsikit.store.codec import encode_jpeg, parse_codec
from wsikit.store.direct import write_later
from wsikit.store.shard import encode_shard
from wsikit.survey import survey

Work = Callable[[], int]
COPIES = 20  # one is over before a clock notices


@contextmanager
def decode_floor(task: Task) -> Iterator[Work]:
    """libjpeg-turbo on the slide's own compressed tiles, which lie in memory; one picture buffer a thread."""
    with tifffile.TiffFile(task.slide) as tif:
        page = tif.pages[0]
        w, h, tables = page.tilewidth, page.tilelength, page.jpegtables
        across = -(-page.imagewidth // w)
        wanted = sorted({y // h * across + x // w for x, y in task.corners()})
        data = [_segment(tif, page.dataoffsets[i], page.databytecounts[i]) for i in wanted]

    def decode(part: list[bytes]) -> None:
        out = np.empty((h, w, 3), np.uint8)
        for tile in part:
            imagecodecs.jpeg8_decode(tile, tables=tables, out=out)

    def work() -> int:
        task.threads(decode, data)
        return len(data) * w * h

    decode(data[:50])
    yield work


def _segment(tif: tifffile.TiffFile, offset: int, count: int) -> bytes:
    tif.filehandle.seek(offset)
    return bytes(tif.filehandle.read(count))


@contextmanager
def copy_floor(task: Task) -> Iterator[Work]:
    """NumPy's copy of whole blocks, each core into one buffer: what changes every pixel cannot be faster than the memory."""
    pictures = _pictures(task)
    rows = [p[y : y + 256] for p in pictures for y in range(0, len(p), 256)]

    def copy(part: list[np.ndarray]) -> None:
        out = np.empty_like(part[0])
        for rgb in part:
            np.copyto(out[: len(rgb)], rgb)

    def work() -> int:
        for _ in range(COPIES):
            task.threads(copy, rows)
        return COPIES * sum(p[..., 0].size for p in pictures)

    copy(rows)
    yield work


@contextmanager
def encode_floor(task: Task) -> Iterator[Work]:
    """libzstd on planes that lie apart already, with wsikit's settings, or libjpeg-turbo on whole chunks; nothing is kept."""
    chunks = [c for p in _pictures(task) for c in _chunks(p, task.tile)]
    if task.options["codec"] == "jpeg:90":
        items: list[Any] = [np.ascontiguousarray(c) for c in chunks]
    else:
        items = [np.ascontiguousarray(c.transpose(2, 0, 1)).tobytes() for c in chunks]

    def encode(part: list[Any]) -> None:
        compress = zstd_compressor(1, threading.get_ident()).compress
        for item in part:
            encode_jpeg(item, 90) if isinstance(item, np.ndarray) else compress(item)

    def work() -> int:
        task.threads(encode, items)
        return sum(c[..., 0].size for c in chunks)

    encode(items[:8])
    yield work


def _chunks(picture: np.ndarray, side: int) -> Iterator[np.ndarray]:
    for y in range(0, len(picture) - side + 1, side):
        yield from (picture[y : y + side, x : x + side] for x in range(0, picture.shape[1] - side + 1, side))


@contextmanager
def disk_floor(task: Task) -> Iterator[Work]:
    """One plain file per block of bytes as many as its shard has, written and synced."""
    pictures, codec = _pictures(task), parse_codec(task.options["codec"])
    shards = [b"".join(encode_shard(p, chunk_px(len(p), task.tile), codec)) for p in pictures]

    def work() -> int:
        for i, data in enumerate(shards):
            with (Path(task.scratch) / str(i)).open("wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
        return sum(p[..., 0].size for p in pictures)

    yield work


def _blocks(task: Task, side: int = BLOCK_PX) -> list[tuple[Region, int]]:
    """The boxes of the tissue tiles of each block, and how many tiles it has."""
    corners = np.array(task.corners())
    blocks = {}
    for key in sorted({(y // side, x // side) for x, y in corners.tolist()}):
        mine = corners[((corners // side)[:, ::-1] == key).all(1)]
        (x, y), (x1, y1) = mine.min(0).tolist(), (mine.max(0) + task.tile).tolist()
        blocks[key] = (Region(x, y, x1 - x, y1 - y), len(mine))
    return list(blocks.values())


@contextmanager
def read_blocks(task: Task) -> Iterator[Work]:
    """Every block that has tissue, through `Slide.read_level`, as a run reads them."""
    slide = wk.open_slide(task.slide, reader=task.options.get("reader"))
    blocks = _blocks(task)
    task.facts |= {"reader": slide.reader, "probe": lambda x, y: slide.read((x, y, task.tile, task.tile))}
    slide.read_level(0, blocks[0][0])

    def work() -> int:
        return sum((slide.read_level(0, box), n * task.tile**2)[1] for box, n in blocks)

    yield work


@contextmanager
def read_resample(task: Task) -> Iterator[Work]:
    """The same at another resolution, area-resampled from level 0; counted in level-0 px."""
    slide = wk.open_slide(task.slide)
    raster = slide.raster(task.options["mpp"])
    step = raster.downsample[0]
    boxes = [(int(b.x / step), int(b.y / step), int(b.w / step), int(b.h / step), n) for b, n in _blocks(task)]
    task.facts |= {"reader": slide.reader, "level": raster.level, "step": round(raster.step[0], 4)}
    slide.read_raster(raster, *boxes[0][:4])

    def work() -> int:
        return sum((slide.read_raster(raster, *box), n * task.tile**2)[1] for *box, n in boxes)

    yield work


def _pictures(task: Task) -> list[np.ndarray]:
    """The fullest blocks of tissue, as the slide has them: uint8 (S, S, 3)."""
    slide, side = wk.open_slide(task.slide), task.options["side"]
    return [slide.read((x, y, side, side)) for x, y in task.fullest(side, task.options["count"])]


@contextmanager
def stain(task: Task) -> Iterator[Work]:
    """The slide's Macenko fit applied to blocks that lie in memory."""
    fit = survey(wk.open_slide(task.slide)).stain
    pictures = _pictures(task)
    task.facts |= {"trusted": fit.trusted}
    normalise(pictures[0][:1024], fit)

    def work() -> int:
        return sum((normalise(p, fit), p[..., 0].size)[1] for p in pictures)

    yield work


@contextmanager
def shards(task: Task) -> Iterator[Work]:
    """Blocks as shards on the disk."""
    pictures = _pictures(task)
    codec, folder = parse_codec(task.options["codec"]), Path(task.scratch)
    chunk = chunk_px(len(pictures[0]), task.tile)
    sum(map(len, encode_shard(pictures[0][: 4 * chunk, : 4 * chunk], chunk, codec)))

    def work() -> int:
        for i, picture in enumerate(pictures):
            parts = encode_shard(picture, chunk, codec)
            write_later(folder / str(i), parts).result()
        return sum(p[..., 0].size for p in pictures)

    yield work


@contextmanager
def tile(task: Task) -> Iterator[Work]:
    """`wsikit tile` in a run whose workers are up and warm, as they are from the second slide of an archive on.

    With ``slides``, that many: the slide under several names, so that one's survey goes on beside another's blocks.
    """
    workers, pixels = task.options["workers"], Pixels(mpp=0.5, tile_px=task.tile, codec=task.options.get("codec", "zstd:1"))
    folder = Path(task.scratch)
    with ExitStack() as stack:
        where = {"workers": 0}
        if workers:
            pool = stack.enter_context(open_pool(Where(workers)))
            task.facts["cpu_seconds"] = None  # it is spent in other processes
            where = {"scheduler": pool.executor._client.scheduler.address}  # the engine's own workers, kept between two runs
        tile_slides(_copies(folder.parent / "warm", max(1, 2 * workers)), folder.parent / "warm-up", pixels=pixels, **where)

        slides = _links(task.slide, folder.parent / "slides", task.options.get("slides", 1))

        def work() -> int:
            run = tile_slides(slides, folder / "run", pixels=pixels, **where)
            if run.failed:
                raise RuntimeError(str(run.failed))
            task.facts["seconds_of"] = run.seconds
            return len(slides) * len(task.corners()) * task.tile**2

        yield work


def _links(slide: str, folder: Path, count: int) -> list[Path]:
    """The slide, as that many files: names of one file would be done once."""
    if count == 1:
        return [Path(slide)]
    folder.mkdir()
    found = [folder / f"{i}{Path(slide).suffix}" for i in range(count)]
    for path in found:
        shutil.copyfile(slide, path)
    return found


def _copies(folder: Path, count: int) -> list[Path]:
    """The sample slide under several names: small slides to warm workers up with."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"warm{i}.svs" for i in range(count)]
    for path in paths:
        if not path.exists():
            path.write_bytes(sample_slide().read_bytes())
    return paths


@contextmanager
def tile_command(task: Task) -> Iterator[Work]:
    """`wsikit tile` as a command, from the shell's prompt to the shell's prompt: interpreter, imports and workers are started for one slide."""

    def work() -> int:
        command = [sys.executable, "-m", "wsikit", "tile", task.slide, "-o", str(Path(task.scratch) / "run"), "--mpp", "0.5", "--tile", str(task.tile)]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
        task.facts |= {"seconds": time.perf_counter() - start, "cpu_seconds": None}
        return len(task.corners()) * task.tile**2

    yield work
