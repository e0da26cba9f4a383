"""What people use instead, each in an environment of its own that knows nothing of wsikit, written as their own documentation has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from job import Job

Work = Callable[[], int]
Read = Callable[[int, int], np.ndarray]


def _read_all(job: Job, make: Callable[[], Read]) -> Work:
    """Reads every tile; each thread has a reader of its own."""
    corners = job.corners()
    make()(*corners[0])

    def some(part: list[Any]) -> None:
        read = make()
        for x, y in part:
            read(x, y)

    def work() -> int:
        job.threads(some, corners)
        return len(corners) * job.tile**2

    job.facts["probe"] = make()
    return work


@contextmanager
def openslide_read(job: Job) -> Iterator[Work]:
    """openslide-python, its Pillow picture as RGB."""
    import openslide

    def make() -> Read:
        slide = openslide.OpenSlide(job.slide)
        return lambda x, y: np.asarray(slide.read_region((x, y), 0, (job.tile, job.tile)).convert("RGB"))

    yield _read_all(job, make)


@contextmanager
def tiffslide_read(job: Job) -> Iterator[Work]:
    """tiffslide, straight to arrays."""
    import tiffslide

    def make() -> Read:
        slide = tiffslide.TiffSlide(job.slide)
        return lambda x, y: slide.read_region((x, y), 0, (job.tile, job.tile), as_array=True)

    yield _read_all(job, make)


@contextmanager
def cucim_read(job: Job) -> Iterator[Work]:
    """cuCIM on the CPU, tile by tile."""
    from cucim import CuImage

    def make() -> Read:
        slide = CuImage(job.slide)
        return lambda x, y: np.asarray(slide.read_region((x, y), (job.tile, job.tile), 0))

    yield _read_all(job, make)


@contextmanager
def cucim_batch(job: Job) -> Iterator[Work]:
    """cuCIM's own loader: batches of 64 tiles, one worker thread a core."""
    from cucim import CuImage

    corners = job.corners()
    slide = CuImage(job.slide)
    np.asarray(slide.read_region(corners[0], (job.tile, job.tile), 0))

    def work() -> int:
        batches = slide.read_region(corners, (job.tile, job.tile), 0, num_workers=job.cores, batch_size=64)
        n = sum(np.asarray(batch).reshape(-1, job.tile, job.tile, 3).shape[0] for batch in batches)
        return min(n, len(corners)) * job.tile**2

    yield work


@contextmanager
def tia_read(job: Job) -> Iterator[Work]:
    """TIAToolbox's patch extractor, at level 0."""
    patches = _tia_patches(job)

    def work() -> int:
        return sum(patch.shape[0] * patch.shape[1] for patch in patches(None))

    job.facts["probe"] = lambda x, y: next(iter(patches(1)))
    yield work


def _tia_patches(job: Job) -> Callable[[int | None], Any]:
    from tiatoolbox.tools.patchextraction import get_patch_extractor
    from tiatoolbox.wsicore.wsireader import WSIReader

    slide = WSIReader.open(job.slide)
    centres = np.array(job.corners()) + job.tile // 2 - 1  # so that its tiles begin where the stored ones do
    size = (job.tile, job.tile)

    def patches(take: int | None) -> Any:
        return get_patch_extractor("point", input_img=slide, locations_list=centres[:take], patch_size=size, resolution=0, units="level")

    next(iter(patches(1)))
    return patches


def _some_tiles(job: Job) -> list[np.ndarray]:
    import openslide

    slide = openslide.OpenSlide(job.slide)
    return [np.array(slide.read_region(c, 0, (job.tile, job.tile)).convert("RGB")) for c in job.corners()]


def _target(job: Job) -> np.ndarray:
    import openslide

    return np.array(openslide.OpenSlide(job.slide).read_region(job.target, 0, (job.tile, job.tile)).convert("RGB"))


def _each(job: Job, normalise: Callable[[np.ndarray], Any], tiles: list[np.ndarray]) -> Work:
    normalise(tiles[0])

    def work() -> int:
        for tile in tiles:
            normalise(tile)
        return len(tiles) * job.tile**2

    return work


def _torchstain(job: Job) -> Callable[[np.ndarray], np.ndarray]:
    """torchstain's Macenko, fitted to each tile as it always is; tiles on which its fit breaks stay as they are."""
    import torch
    import torchstain

    backend = job.options.get("backend", "torch")
    normalizer = torchstain.normalizers.MacenkoNormalizer(backend=backend)

    def put(tile: np.ndarray) -> Any:
        return torch.from_numpy(tile.copy()).permute(2, 0, 1).float() if backend == "torch" else tile

    normalizer.fit(put(_target(job)))
    job.facts["not_normalised"] = 0

    def normalise(tile: np.ndarray) -> np.ndarray:
        try:
            out, _, _ = normalizer.normalize(I=put(tile), stains=False)
        except Exception:  # it breaks in several ways where a tile is pale
            job.facts["not_normalised"] += 1
            return tile
        return np.asarray(out).astype(np.uint8)

    return normalise


@contextmanager
def torchstain_apply(job: Job) -> Iterator[Work]:
    """torchstain on tiles that lie in memory."""
    yield _each(job, _torchstain(job), _some_tiles(job))


def _tia_macenko(job: Job) -> Callable[[np.ndarray], np.ndarray]:
    """TIAToolbox's Macenko: fitted to each tile (its own way), or with one matrix for the slide."""
    from tiatoolbox.tools.stainnorm import get_normalizer

    target = _target(job)
    fitted = get_normalizer("macenko")
    fitted.fit(target)
    normalizer = fitted
    if job.options.get("fixed"):
        normalizer = get_normalizer("custom", stain_matrix=fitted.extractor.get_stain_matrix(target))
        normalizer.fit(target)
    job.facts["not_normalised"] = 0

    def normalise(tile: np.ndarray) -> np.ndarray:
        try:
            return normalizer.transform(tile)
        except Exception:
            job.facts["not_normalised"] += 1
            return tile

    return normalise


@contextmanager
def tia_apply(job: Job) -> Iterator[Work]:
    """TIAToolbox's stain code on tiles that lie in memory."""
    yield _each(job, _tia_macenko(job), _some_tiles(job))


def _image_array(job: Job, size: tuple[int, int], shard: int | None = None) -> Any:
    """A Zarr image of a chunk per tile, zstd level 1: a file per chunk, or per shard of that many px a side."""
    import zarr

    shape, chunk = (size[1], size[0], 3), (job.tile, job.tile, 3)
    compressor = zarr.codecs.ZstdCodec(level=1)
    shards = (shard, shard, 3) if shard else None
    return zarr.create_array(f"{job.scratch}/image.zarr", shape=shape, chunks=chunk, shards=shards, dtype="u1", fill_value=255, compressors=[compressor])


@contextmanager
def zarr_shards(job: Job) -> Iterator[Work]:
    """zarr-python writing whole shards of tissue, one shard at a time."""
    import openslide

    side, count = job.options["side"], job.options["count"]
    slide = openslide.OpenSlide(job.slide)
    pictures = [np.asarray(slide.read_region(c, 0, (side, side)).convert("RGB")) for c in job.fullest(side, count)]
    array = _image_array(job, (side, side * count), side)

    def work() -> int:
        for i, picture in enumerate(pictures):
            array[i * side : (i + 1) * side] = picture
        return sum(p[..., 0].size for p in pictures)

    yield work


@contextmanager
def script(job: Job) -> Iterator[Work]:
    """The script that people write: read a tile with OpenSlide, normalise it with torchstain, put it into a Zarr array."""
    import openslide

    slide = openslide.OpenSlide(job.slide)
    corners, t = job.corners(), job.tile
    normalise = _torchstain(job)
    array = _image_array(job, slide.dimensions)

    def work() -> int:
        for x, y in corners:
            tile = np.asarray(slide.read_region((x, y), 0, (t, t)).convert("RGB"))
            array[y : y + t, x : x + t] = normalise(tile)
        return len(corners) * t**2

    yield work


@contextmanager
def tia_together(job: Job) -> Iterator[Work]:
    """The same with TIAToolbox's reader, extractor and Macenko."""
    patches, corners, t = _tia_patches(job), job.corners(), job.tile
    normalise = _tia_macenko(job)
    array = _image_array(job, (max(x for x, _ in corners) + t, max(y for _, y in corners) + t))

    def work() -> int:
        for (x, y), patch in zip(corners, patches(None), strict=True):
            array[y : y + t, x : x + t] = normalise(patch)
        return len(corners) * t**2

    yield work
