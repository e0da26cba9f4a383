"""What wsikit does, stage by stage and together; and the decoder's own speed, which is the floor under all of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from job import Job

import wsikit as wk
from wsikit.cut import normalise
from wsikit.geometry import Region
from wsikit.run import tile_slides
from wsikit.run.engine import Where, open_pool
from wsikit.run.job import Pixels
from wsikit.run.plan import BLOCK_PX, chunk_px
from wsikit.sample import sample_slide
from wsikit.store.codec import parse_codec
from wsikit.store.direct import write_later
from wsikit.store.shard import encode_shard
from wsikit.survey import survey

Work = Callable[[], int]


@contextmanager
def decode_floor(job: Job) -> Iterator[Work]:
    """libjpeg-turbo on the slide's own compressed tiles, which lie in memory; one picture buffer a thread."""
    with tifffile.TiffFile(job.slide) as tif:
        page = tif.pages[0]
        w, h, tables = page.tilewidth, page.tilelength, page.jpegtables
        across = -(-page.imagewidth // w)
        wanted = sorted({y // h * across + x // w for x, y in job.corners()})
        data = [_segment(tif, page.dataoffsets[i], page.databytecounts[i]) for i in wanted]

    def decode(part: list[bytes]) -> None:
        out = np.empty((h, w, 3), np.uint8)
        for tile in part:
            imagecodecs.jpeg8_decode(tile, tables=tables, out=out)

    def work() -> int:
        job.threads(decode, data)
        return len(data) * w * h

    decode(data[:50])
    yield work


def _segment(tif: tifffile.TiffFile, offset: int, count: int) -> bytes:
    tif.filehandle.seek(offset)
    return bytes(tif.filehandle.read(count))


def _blocks(job: Job, side: int = BLOCK_PX) -> list[tuple[Region, int]]:
    """The boxes of the tissue tiles of each block, and how many tiles it has."""
    corners = np.array(job.corners())
    blocks = {}
    for key in sorted({(y // side, x // side) for x, y in corners.tolist()}):
        mine = corners[((corners // side)[:, ::-1] == key).all(1)]
        (x, y), (x1, y1) = mine.min(0).tolist(), (mine.max(0) + job.tile).tolist()
        blocks[key] = (Region(x, y, x1 - x, y1 - y), len(mine))
    return list(blocks.values())


@contextmanager
def read_blocks(job: Job) -> Iterator[Work]:
    """Every block that has tissue, through `Slide.read_level`, as a run reads them."""
    slide = wk.open_slide(job.slide, reader=job.options.get("reader"))
    blocks = _blocks(job)
    job.facts |= {"reader": slide.reader, "probe": lambda x, y: slide.read((x, y, job.tile, job.tile))}
    slide.read_level(0, blocks[0][0])

    def work() -> int:
        return sum((slide.read_level(0, box), n * job.tile**2)[1] for box, n in blocks)

    yield work


@contextmanager
def read_resample(job: Job) -> Iterator[Work]:
    """The same at another resolution, area-resampled from level 0; counted in level-0 px."""
    slide = wk.open_slide(job.slide)
    raster = slide.raster(job.options["mpp"])
    step = raster.downsample[0]
    boxes = [(int(b.x / step), int(b.y / step), int(b.w / step), int(b.h / step), n) for b, n in _blocks(job)]
    job.facts |= {"reader": slide.reader, "level": raster.level, "step": round(raster.step[0], 4)}
    slide.read_raster(raster, *boxes[0][:4])

    def work() -> int:
        return sum((slide.read_raster(raster, *box), n * job.tile**2)[1] for *box, n in boxes)

    yield work


def _pictures(job: Job) -> list[np.ndarray]:
    """The fullest blocks of tissue, as the slide has them: uint8 (S, S, 3)."""
    slide, side = wk.open_slide(job.slide), job.options["side"]
    return [slide.read((x, y, side, side)) for x, y in job.fullest(side, job.options["count"])]


@contextmanager
def stain(job: Job) -> Iterator[Work]:
    """The slide's Macenko fit applied to blocks that lie in memory."""
    fit = survey(wk.open_slide(job.slide)).stain
    pictures = _pictures(job)
    job.facts |= {"trusted": fit.trusted}
    normalise(pictures[0][:1024], fit)

    def work() -> int:
        return sum((normalise(p, fit), p[..., 0].size)[1] for p in pictures)

    yield work


@contextmanager
def shards(job: Job) -> Iterator[Work]:
    """Blocks as shards on the disk (``write``), or only encoded in memory."""
    pictures = _pictures(job)
    codec, folder = parse_codec(job.options["codec"]), Path(job.scratch)
    chunk = chunk_px(len(pictures[0]), job.tile)
    sum(map(len, encode_shard(pictures[0][: 4 * chunk, : 4 * chunk], chunk, codec)))

    def work() -> int:
        for i, picture in enumerate(pictures):
            parts = encode_shard(picture, chunk, codec)
            if job.options["write"]:
                write_later(folder / str(i), parts).result()
            else:
                sum(map(len, parts))
        return sum(p[..., 0].size for p in pictures)

    yield work


@contextmanager
def tile(job: Job) -> Iterator[Work]:
    """`wsikit tile` in a run whose workers are up and warm, as they are from the second slide of an archive on.

    With ``slides``, that many: the slide under several names, so that one's survey goes on beside another's blocks.
    """
    workers, pixels = job.options["workers"], Pixels(mpp=0.5, tile_px=job.tile, codec=job.options.get("codec", "zstd:1"))
    folder = Path(job.scratch)
    with ExitStack() as stack:
        where = {"workers": 0}
        if workers:
            pool = stack.enter_context(open_pool(Where(workers)))
            job.facts["cpu_seconds"] = None  # it is spent in other processes
            where = {"scheduler": pool.executor._client.scheduler.address}  # the engine's own workers, kept between two runs
        tile_slides(_copies(folder.parent / "warm", max(1, 2 * workers)), folder.parent / "warm-up", pixels=pixels, **where)

        slides = _links(job.slide, folder.parent / "slides", job.options.get("slides", 1))

        def work() -> int:
            run = tile_slides(slides, folder / "run", pixels=pixels, **where)
            if run.failed:
                raise RuntimeError(str(run.failed))
            job.facts["seconds_of"] = run.seconds
            return len(slides) * len(job.corners()) * job.tile**2

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
def tile_command(job: Job) -> Iterator[Work]:
    """`wsikit tile` as a command, from the shell's prompt to the shell's prompt: interpreter, imports and workers are started for one slide."""

    def work() -> int:
        command = [sys.executable, "-m", "wsikit", "tile", job.slide, "-o", str(Path(job.scratch) / "run"), "--mpp", "0.5", "--tile", str(job.tile)]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
        job.facts |= {"seconds": time.perf_counter() - start, "cpu_seconds": None}
        return len(job.corners()) * job.tile**2

    yield work
