"""What people use instead, each in an environment of its own that knows nothing of wsikit, written as their own documentation has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
from task import Task

Work = Callable[[], int]
Read = Callable[[int, int], np.ndarray]


def _read_all(task: Task, make: Callable[[], Read]) -> Work:
    """Reads every tile; each thread has a reader of its own."""
    corners = task.corners()
    make()(*corners[0])

    def some(part: list[Any]) -> None:
        read = make()
        for x, y in part:
            read(x, y)

    def work() -> int:
        task.threads(some, corners)
        return len(corners) * task.tile**2

    task.facts["probe"] = make()
    return work


@contextmanager
def openslide_read(task: Task) -> Iterator[Work]:
    """openslide-python, its Pillow picture as RGB."""
    import openslide

    def make() -> Read:
        slide = openslide.OpenSlide(task.slide)
        return lambda x, y: np.asarray(slide.read_region((x, y), 0, (task.tile, task.tile)).convert("RGB"))

    yield _read_all(task, make)


@contextmanager
def tiffslide_read(task: Task) -> Iterator[Work]:
    """tiffslide, straight to arrays."""
    import tiffslide

    def make() -> Read:
        slide = tiffslide.TiffSlide(task.slide)
        return lambda x, y: slide.read_region((x, y), 0, (task.tile, task.tile), as_array=True)

    yield _read_all(task, make)


@contextmanager
def cucim_read(task: Task) -> Iterator[Work]:
    """cuCIM on the CPU, tile by tile."""
    from cucim import CuImage

    def make() -> Read:
        slide = CuImage(task.slide)
        return lambda x, y: np.asarray(slide.read_region((x, y), (task.tile, task.tile), 0))

    yield _read_all(task, make)


@contextmanager
def cucim_batch(task: Task) -> Iterator[Work]:
    """cuCIM's own loader: batches of 64 tiles, one worker thread a core."""
    from cucim import CuImage

    corners = task.corners()
    slide = CuImage(task.slide)
    np.asarray(slide.read_region(corners[0], (task.tile, task.tile), 0))

    def work() -> int:
        batches = slide.read_region(corners, (task.tile, task.tile), 0, num_workers=task.cores, batch_size=64)
        n = sum(np.asarray(batch).reshape(-1, task.tile, task.tile, 3).shape[0] for batch in batches)
        return min(n, len(corners)) * task.tile**2

    yield work


@contextmanager
def tia_read(task: Task) -> Iterator[Work]:
    """TIAToolbox's patch extractor, at level 0."""
    patches = _tia_patches(task)

    def work() -> int:
        return sum(patch.shape[0] * patch.shape[1] for patch in patches(None))

    task.facts["probe"] = lambda x, y: next(iter(patches(1)))
    yield work


def _tia_patches(task: Task) -> Callable[[int | None], Any]:
    from tiatoolbox.tools.patchextraction import get_patch_extractor
    from tiatoolbox.wsicore.wsireader import WSIReader

    slide = WSIReader.open(task.slide)
    centres = np.array(task.corners()) + task.tile // 2 - 1  # so that its tiles begin where the stored ones do
    size = (task.tile, task.tile)

    def patches(take: int | None) -> Any:
        return get_patch_extractor("point", input_img=slide, locations_list=centres[:take], patch_size=size, resolution=0, units="level")

    next(iter(patches(1)))
    return patches


def _some_tiles(task: Task) -> list[np.ndarray]:
    import openslide

    slide = openslide.OpenSlide(task.slide)
    return [np.array(slide.read_region(c, 0, (task.tile, task.tile)).convert("RGB")) for c in task.corners()]


def _target(task: Task) -> np.ndarray:
    import openslide

    return np.array(openslide.OpenSlide(task.slide).read_region(task.target, 0, (task.tile, task.tile)).convert("RGB"))


def _each(task: Task, normalise: Callable[[np.ndarray], Any], tiles: list[np.ndarray]) -> Work:
    normalise(tiles[0])

    def work() -> int:
        for tile in tiles:
            normalise(tile)
        return len(tiles) * task.tile**2

    return work


def _torchstain(task: Task) -> Callable[[np.ndarray], np.ndarray]:
    """torchstain's Macenko, fitted to each tile as it always is; tiles on which its fit breaks stay as they are."""
    import torch
    import torchstain

    backend = task.options.get("backend", "torch")
    normalizer = torchstain.normalizers.MacenkoNormalizer(backend=backend)

    def put(tile: np.ndarray) -> Any:
        return torch.from_numpy(tile.copy()).permute(2, 0, 1).float() if backend == "torch" else tile

    normalizer.fit(put(_target(task)))
    task.facts["not_normalised"] = 0

    def normalise(tile: np.ndarray) -> np.ndarray:
        try:
            out, _, _ = normalizer.normalize(I=put(tile), stains=False)
        except Exception:  # it breaks in several ways where a tile is pale
            task.facts["not_normalised"] += 1
            return tile
        return np.asarray(out).astype(np.uint8)

    return normalise


@contextmanager
def torchstain_apply(task: Task) -> Iterator[Work]:
    """torchstain on tiles that lie in memory."""
    yield _each(task, _torchstain(task), _some_tiles(task))


def _tia_macenko(task: Task) -> Callable[[np.ndarray], np.ndarray]:
    """TIAToolbox's Macenko: fitted to each tile (its own way), or with one matrix for the slide."""
    from tiatoolbox.tools.stainnorm import get_normalizer

    target = _target(task)
    fitted = get_normalizer("macenko")
    fitted.fit(target)
    normalizer = fitted
    if task.options.get("fixed"):
        normalizer = get_normalizer("custom", stain_matrix=fitted.extractor.get_stain_matrix(target))
        normalizer.fit(target)
    task.facts["not_normalised"] = 0

    def normalise(tile: np.ndarray) -> np.ndarray:
        try:
            return normalizer.transform(tile)
        except Exception:
            task.facts["not_normalised"] += 1
            return tile

    return normalise


@contextmanager
def tia_apply(task: Task) -> Iterator[Work]:
    """TIAToolbox's stain code on tiles that lie in memory."""
    yield _each(task, _tia_macenko(task), _some_tiles(task))


def _image_array(task: Task, size: tuple[int, int], shard: int | None = None) -> Any:
    """A Zarr image of a chunk per tile, zstd level 1: a file per chunk, or per shard of that many px a side."""
    import zarr

    shape, chunk = (size[1], size[0], 3), (task.tile, task.tile, 3)
    compressor = zarr.codecs.ZstdCodec(level=1)
    shards = (shard, shard, 3) if shard else None
    return zarr.create_array(f"{task.scratch}/image.zarr", shape=shape, chunks=chunk, shards=shards, dtype="u1", fill_value=255, compressors=[compressor])


@contextmanager
def zarr_shards(task: Task) -> Iterator[Work]:
    """zarr-python writing whole shards of tissue, one shard at a time."""
    import openslide

    side, count = task.options["side"], task.options["count"]
    slide = openslide.OpenSlide(task.slide)
    pictures = [np.asarray(slide.read_region(c, 0, (side, side)).convert("RGB")) for c in task.fullest(side, count)]
    array = _image_array(task, (side, side * count), side)

    def work() -> int:
        for i, picture in enumerate(pictures):
            array[i * side : (i + 1) * side] = picture
        return sum(p[..., 0].size for p in pictures)

    yield work


@contextmanager
def script(task: Task) -> Iterator[Work]:
    """The script that people write: read a tile with OpenSlide, normalise it with torchstain, put it into a Zarr array."""
    import openslide

    slide = openslide.OpenSlide(task.slide)
    corners, t = task.corners(), task.tile
    normalise = _torchstain(task)
    array = _image_array(task, slide.dimensions)

    def work() -> int:
        for x, y in corners:
            tile = np.asarray(slide.read_region((x, y), 0, (t, t)).convert("RGB"))
            array[y : y + t, x : x + t] = normalise(tile)
        return len(corners) * t**2

    yield work


@contextmanager
def tia_together(task: Task) -> Iterator[Work]:
    """The same with TIAToolbox's reader, extractor and Macenko."""
    patches, corners, t = _tia_patches(task), task.corners(), task.tile
    normalise = _tia_macenko(task)
    array = _image_array(task, (max(x for x, _ in corners) + t, max(y for _, y in corners) + t))

    def work() -> int:
        for (x, y), patch in zip(corners, patches(None), strict=True):
            array[y : y + t, x : x + t] = normalise(patch)
        return len(corners) * t**2

    yield work


def _lazyslide(task: Task) -> Any:
    """The slide with LazySlide's tissue and its tiles on the finest level."""
    import lazyslide
    import wsidata

    wsi = wsidata.open_wsi(task.slide)
    lazyslide.pp.find_tissues(wsi)
    lazyslide.pp.tile_tissues(wsi, task.tile, slide_mpp=wsi.properties.mpp, mpp=wsi.properties.mpp)
    task.facts |= {"reader": type(wsi.reader).__name__, "tiles": len(wsi["tiles"])}
    return wsi


@contextmanager
def lazyslide_read(task: Task) -> Iterator[Work]:
    """LazySlide's iterator over its own tiles, one after the other."""
    wsi = _lazyslide(task)

    def work() -> int:
        return sum(tile.image.shape[0] * tile.image.shape[1] for tile in islice(wsi.iter.tile_images("tiles"), task.take))

    next(iter(wsi.iter.tile_images("tiles")))
    yield work


@contextmanager
def lazyslide_dataset(task: Task) -> Iterator[Work]:
    """LazySlide's PyTorch dataset in a loader with a worker process a core, started with the clock as a user starts them."""
    from torch.utils.data import DataLoader, Subset

    wsi = _lazyslide(task)
    images = wsi.ds.tile_images("tiles")
    some = Subset(images, range(min(task.take or len(images), len(images))))

    def work() -> int:
        task.facts["cpu_seconds"] = None  # it is spent in other processes
        loader = DataLoader(some, batch_size=64, num_workers=task.cores)
        return sum(len(batch["image"]) for batch in loader) * task.tile**2

    some[0]
    yield work


@contextmanager
def lazyslide_together(task: Task) -> Iterator[Work]:
    """LazySlide's tiles, normalised by torchstain (its own normalisation is deprecated), into a Zarr array."""
    wsi, normalise, t = _lazyslide(task), _torchstain(task), task.tile
    array = _image_array(task, tuple(wsi.properties.shape[::-1]))

    def work() -> int:
        n = 0
        for tile in islice(wsi.iter.tile_images("tiles"), task.take):
            out = normalise(np.ascontiguousarray(tile.image))
            array[tile.y : tile.y + t, tile.x : tile.x + t] = out[: array.shape[0] - tile.y, : array.shape[1] - tile.x]
            n += 1
        return n * t**2

    yield work


@contextmanager
def pathml_read(task: Task) -> Iterator[Work]:
    """PathML's reader of regions, which its tile generator and its pipelines use."""
    from pathml.core import SlideData

    def make() -> Read:
        slide = SlideData(task.slide, backend="openslide").slide
        return lambda x, y: slide.extract_region(location=(y, x), size=(task.tile, task.tile), level=0)

    yield _read_all(task, make)


@contextmanager
def pathml_apply(task: Task) -> Iterator[Work]:
    """PathML's Macenko, fitted to each tile as it always is, on tiles that lie in memory."""
    from pathml.preprocessing import StainNormalizationHE

    transform = StainNormalizationHE(target="normalize", stain_estimation_method="macenko")
    transform.fit_to_reference(_target(task))
    task.facts["not_normalised"] = 0

    def normalise(tile: np.ndarray) -> np.ndarray:
        try:
            return transform.F(tile)
        except Exception:  # a pale tile
            task.facts["not_normalised"] += 1
            return tile

    yield _each(task, normalise, _some_tiles(task))


def _tia_predictor(task: Task) -> Any:
    """TIAToolbox's patch predictor with a network of random weights."""
    import torch
    from tiatoolbox.models.architecture.vanilla import CNNModel
    from tiatoolbox.models.engine.patch_predictor import PatchPredictor

    torch.set_num_threads(task.cores)
    return PatchPredictor(CNNModel(task.options["model"], num_classes=5), batch_size=task.options["batch"], verbose=False)


def _tia_grid(task: Task) -> dict[str, Any]:
    side = task.options["side"]
    return {"input_resolutions": [{"resolution": 0.5, "units": "mpp"}], "patch_input_shape": (side, side), "stride_shape": (side, side)}


@contextmanager
def tia_predict(task: Task) -> Iterator[Work]:
    """TIAToolbox's patch predictor on tiles that lie in memory."""
    import openslide

    slide, side = openslide.OpenSlide(task.slide), (task.options["side"],) * 2
    images = np.stack([np.asarray(slide.read_region(c, 0, side).convert("RGB")) for c in task.corners()])
    predictor, grid = _tia_predictor(task), _tia_grid(task)

    def work() -> int:
        return len(predictor.run(images, patch_mode=True, output_type="dict", **grid)["predictions"])

    predictor.run(images[: task.options["batch"]], patch_mode=True, output_type="dict", **grid)
    yield work


@contextmanager
def tia_predict_slide(task: Task) -> Iterator[Work]:
    """TIAToolbox's patch predictor from a slide to its predictions as Zarr, on the tissue that it finds, with a process that reads."""
    import zarr

    predictor, grid, mpp = _tia_predictor(task), _tia_grid(task), {"mpp": (0.5, 0.5)}  # which it does not read from the phantom's TIFF
    patch = np.full((task.options["batch"], task.options["side"], task.options["side"], 3), 200, np.uint8)
    predictor.run(patch, patch_mode=True, output_type="dict", **grid)  # warms up

    def work() -> int:
        task.facts["cpu_seconds"] = None  # a part of it is spent in another process
        out = predictor.run([task.slide], patch_mode=False, output_type="zarr", save_dir=f"{task.scratch}/out", num_workers=1, wsireader_kwargs=mpp, **grid)
        return int(zarr.open(str(out[next(iter(out))]))["predictions"].shape[0])

    yield work
