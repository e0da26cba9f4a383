"""Training pixels, drawn through the same reading, tissue and stain code as scoring: from slides, from kept stores, from tile images."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wsikit.cut import normalise
from wsikit.errors import LabelsError, OutputError, ResolutionMismatchError, StoreMismatchError
from wsikit.grid import Raster, TileGrid
from wsikit.models._card import Card
from wsikit.slide import Slide, open_slide
from wsikit.stain import StainFit, get_method
from wsikit.store import SlideStore
from wsikit.store.durable import atomic_path, disk_errors
from wsikit.survey import Survey, survey
from wsikit.tissue import TissueMask

TILE_IMAGE_PX = 2048  # a JPEG or PNG up to this wide and high is taken for a picture of tissue that somebody chose, a larger one for a slide
_SAY_SECONDS = 20
LEAST_TILES = 1000  # room for so many is asked for before any are drawn; how many there will be is not known
_STAIN_PIXELS = 50_000  # of each tile image, for the stain fit of its patient
Log = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """Where tiles come from: a slide, a store with kept pixels, or a tile image. Images of one ``owner`` share a stain fit."""

    path: Path
    mpp: float | None = None
    owner: str = ""

    @property
    def whose(self) -> str:
        """The owner; the image itself where nobody is named."""
        return self.owner or str(self.path)


@dataclass(frozen=True)
class Look:
    """A slide as a model sees it: its raster, tissue and stain."""

    slide: Slide
    raster: Raster
    survey: Survey
    stain: StainFit

    @classmethod
    def at(cls, path: Path, card: Card, mpp: float | None = None) -> Look:
        """Open and survey a slide, or a store with kept pixels, for a card.

        Raises
        ------
        SlideError
            The slide cannot be used.
        LabelsError
            It is a store without kept pixels, or with those of another stain.
        """
        slide = open_slide(path, mpp=mpp, mpp_source="csv")
        store = _store_of(path)
        found = survey(slide, card.stain) if store is None else _kept_survey(slide, store, card)
        return cls(slide, raster_for(slide, card), found, found.stain)

    def read(self, x: int, y: int, side: int) -> np.ndarray:
        """A normalised square from raster px (x, y): uint8 (side, side, 3)."""
        return np.asarray(normalise(self.slide.read_raster(self.raster, x, y, side, side), self.stain))

    def cells(self, card: Card) -> np.ndarray:
        """The cells of the card's grid that hold enough tissue: int64 (N, 2) column, row."""
        grid = TileGrid(self.raster, card.tile_px, card.overlap_px)
        share = grid.covered(self.survey.mask.tissue, self.survey.raster.downsample)
        return grid.all_cells()[(share >= card.min_tissue) & (share > 0)]


def raster_for(slide: Slide, card: Card) -> Raster:
    """The pixel lattice of a slide at a card's µm/px.

    Raises
    ------
    ResolutionMismatchError
        The slide is coarser; the message names it, since labels have many.
    """
    try:
        return slide.raster(card.mpp)
    except ResolutionMismatchError as e:
        raise ResolutionMismatchError(f"{slide.path}: {e}") from e


def _store_of(path: Path) -> SlideStore | None:
    try:
        return SlideStore(path) if path.is_dir() and path.suffix == ".zarr" else None
    except StoreMismatchError:
        return None  # somebody else's OME-Zarr is a slide


def _kept_survey(slide: Slide, store: SlideStore, card: Card) -> Survey:
    """What a run found of a slide, on the raster of its kept pixels, which are normalised already."""
    a = store.attributes
    if not a.get("pixels"):
        raise LabelsError(f"{store.path}: the run kept no pixels; score or tile the slide with kept tiles, or name the slide itself")
    stain = StainFit.model_validate(a["stain"])
    if card.stain != stain.method or stain.target is not None:
        raise LabelsError(f"{store.path}: its pixels were kept with stain '{stain.method}', the model is to see '{card.stain}'; name the slide itself")
    kept, seen = Raster.from_json(a["pixels"]["raster"]), Raster.from_json(a["survey"]["raster"])
    downsample = (seen.downsample[0] / kept.downsample[0], seen.downsample[1] / kept.downsample[1])
    mask = TissueMask((store.tissue() == 1).astype(np.uint8), a["survey"]["white_point"])
    as_it_is = get_method("none").fit(np.empty((0, 3), np.uint8))
    return Survey(replace(seen, downsample=downsample), np.empty((0, 0, 3), np.uint8), mask, a["survey"]["brown_share"], as_it_is)


def is_tile_image(path: Path) -> bool:
    """Whether a file is a JPEG or PNG small enough to be a tile, and not a slide.

    Raises
    ------
    SlideError
        It cannot be opened.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        return False
    with open_slide(path) as slide:
        return slide.reader == "image" and max(slide.size) <= TILE_IMAGE_PX


def draw_to_disk(slides: Sequence[Source], card: Card, per_slide: int, path: Path, log: Log = lambda _: None) -> tuple[np.ndarray, np.ndarray]:
    """Up to ``per_slide`` tiles of each slide, evenly spread over its tissue; of a tile image all.

    They are in a file that is mapped, so that more than fit the memory can be learnt from. ``log`` hears every 20 seconds how far it has come.

    Returns
    -------
    images : uint8 (N, tile, tile, 3)
    slide : int64 (N,), which slide each is of

    Raises
    ------
    SlideError
        A slide cannot be used.
    LabelsError
        A store holds no pixels that can be used, or an image is smaller than a tile.
    OutputError
        The disk has no room for them.
    """
    return to_disk(drawn(slides, card, per_slide, log), len(slides) * per_slide, (card.tile_px, card.tile_px, 3), path)


def to_disk(found: Iterator[tuple[int, np.ndarray]], most: int, shape: tuple[int, int, int], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Tiles uint8 of a shape, at ``most`` so many, in a file that is mapped: all of them, and of which slide each is; drawn once.

    Raises
    ------
    OutputError
        The disk has no room for them.
    """
    owners = path.with_suffix(".npy")
    if not owners.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        least = min(most, LEAST_TILES) * math.prod(shape)
        if (free := shutil.disk_usage(path.parent).free) < least:
            raise OutputError(
                f"{path.parent}: at least {least / 1e9:.1f} GB of tiles come here, and {free / 1e9:.1f} GB are free; free some, or lower --per-slide"
            )
        owner = []
        with atomic_path(path) as tmp, tmp.open("wb") as f:
            for i, tile in found:
                f.write(np.ascontiguousarray(tile).data)
                owner.append(i)
        with atomic_path(owners) as tmp, tmp.open("wb") as f:
            np.save(f, np.array(owner, np.int64))
    with disk_errors(path):
        owned = np.load(owners)
        whole = (len(owned), *shape)
        return (np.memmap(path, np.uint8, "c", shape=whole) if len(owned) else np.empty(whole, np.uint8)), owned


def drawn(sources: Sequence[Source], card: Card, per_slide: int, log: Log = lambda _: None) -> Iterator[tuple[int, np.ndarray]]:
    """The tiles of `draw_to_disk` one by one, each with the number of its slide."""
    said = time.monotonic()
    picture = [is_tile_image(s.path) for s in sources]
    stains = stain_fits([s for s, is_picture in zip(sources, picture, strict=True) if is_picture], card)
    for i, source in enumerate(sources):
        if time.monotonic() - said > _SAY_SECONDS:
            said = time.monotonic()
            log(f"tiles of {i} of {len(sources)} slides and pictures are drawn")
        if picture[i]:
            yield from ((i, tile) for tile in tiles_of_image(source, card, stains[source.whose]))
        else:
            look = Look.at(source.path, card, source.mpp)
            for x, y in TileGrid(look.raster, card.tile_px, card.overlap_px).corners_px(evenly(look.cells(card), per_slide)).tolist():
                yield i, look.read(x, y, card.tile_px)
            look.slide.close()


def evenly(cells: np.ndarray, count: int) -> np.ndarray:
    """``count`` cells (N, 2), evenly spaced in the list of all."""
    if not len(cells):
        return cells
    return np.asarray(cells[np.unique(np.linspace(0, len(cells) - 1, min(count, len(cells))).round().astype(int))])


def stain_fits(pictures: Sequence[Source], card: Card) -> dict[str, StainFit]:
    """One fit for all tile images of an owner together, by `Source.whose`: a single tile has too little of each stain to be believed."""
    method, pixels = get_method(card.stain), dict[str, list[np.ndarray]]()
    for source in pictures:
        found = pixels.setdefault(source.whose, [])
        if card.stain != "none":  # which looks at no pixel
            with open_slide(source.path) as slide:
                flat = slide.read((0, 0, *slide.size)).reshape(-1, 3)
            found.append(flat[:: max(1, len(flat) // _STAIN_PIXELS)])
    return {whose: method.fit(np.concatenate(found) if found else np.empty((0, 3), np.uint8)) for whose, found in pixels.items()}


def tiles_of_image(source: Source, card: Card, stain: StainFit) -> Iterator[np.ndarray]:
    """All whole tiles of an image, row by row: uint8 (tile, tile, 3) each.

    Raises
    ------
    SlideError
        It cannot be read.
    LabelsError
        It is smaller than a tile.
    """
    with open_slide(source.path, mpp=source.mpp, mpp_source="csv") as slide:
        raster = raster_for(slide, card)
        grid = TileGrid(raster, card.tile_px)
        corners = grid.corners_px(grid.all_cells())
        whole = corners[(corners + card.tile_px <= np.array(raster.size)).all(1)]
        if not len(whole):
            w, h = raster.size
            raise LabelsError(f"{source.path}: has {w} × {h} px at {card.mpp:g} µm/px, a tile has {card.tile_px}; train with smaller tiles or at a finer --mpp")
        for x, y in whole.tolist():
            yield np.asarray(normalise(slide.read_raster(raster, x, y, card.tile_px, card.tile_px), stain))
