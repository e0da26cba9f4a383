"""Training pixels, drawn through the same reading, tissue and stain code as scoring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsikit.cut import normalise
from wsikit.grid import Raster, TileGrid
from wsikit.models._card import Card
from wsikit.slide import Slide, open_slide
from wsikit.stain import StainFit
from wsikit.survey import Survey, survey


@dataclass(frozen=True)
class Look:
    """A slide as a model sees it: its raster, tissue and stain."""

    slide: Slide
    raster: Raster
    survey: Survey
    stain: StainFit

    @classmethod
    def at(cls, path: Path, card: Card, mpp: float | None = None) -> Look:
        """Open and survey a slide for a card.

        Raises
        ------
        SlideError
            The slide cannot be used.
        """
        slide = open_slide(path, mpp=mpp, mpp_source="csv")
        found = survey(slide, card.stain)
        return cls(slide, slide.raster(card.mpp), found, found.stain)

    def read(self, x: int, y: int, side: int) -> np.ndarray:
        """A normalised square from raster px (x, y): uint8 (side, side, 3)."""
        return np.asarray(normalise(self.slide.read_raster(self.raster, x, y, side, side), self.stain))


def draw_tiles(
    slides: Sequence[tuple[Path, float | None]], card: Card, per_slide: int, on_slide: Callable[[int], None] = lambda _: None
) -> tuple[np.ndarray, np.ndarray]:
    """Up to ``per_slide`` tiles of each slide, evenly spread over its tissue.

    Returns
    -------
    images : uint8 (N, tile, tile, 3)
    slide : int64 (N,), which slide each is of

    Raises
    ------
    SlideError
        A slide cannot be used.
    """
    images, owner = [], []
    for i, (path, mpp) in enumerate(slides):
        look = Look.at(path, card, mpp)
        grid = TileGrid(look.raster, card.tile_px, card.overlap_px)
        share = grid.covered(look.survey.mask.tissue, look.survey.raster.downsample)
        cells = grid.all_cells()[(share >= card.min_tissue) & (share > 0)]
        chosen = cells[np.unique(np.linspace(0, len(cells) - 1, min(per_slide, len(cells))).round().astype(int))] if len(cells) else cells
        for x, y in grid.corners_px(chosen).tolist():
            images.append(look.read(x, y, card.tile_px))
            owner.append(i)
        look.slide.close()
        on_slide(i)
    side = card.tile_px
    return np.stack(images) if images else np.empty((0, side, side, 3), np.uint8), np.array(owner, np.int64)
