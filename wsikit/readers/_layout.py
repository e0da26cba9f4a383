"""What the pages of a TIFF are: levels, focal planes and channels of its first image."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from wsikit.errors import DamagedSlideError, UnsupportedFormatError
from wsikit.geometry import Region, Size
from wsikit.location import ReadAt
from wsikit.readers._channels import Channel, compose, default_channel, is_rgb, why_not_he, windows
from wsikit.readers._ome import ome_channels, ome_clues, pixels_of
from wsikit.readers._strips import RawStrips
from wsikit.readers._tiles import TiledLevel
from wsikit.resolution import Clue

GREY, _RGB, _YCBCR = (0, 1), 2, 6  # TIFF PhotometricInterpretation
_GIVES_RGB = (7, 50001)  # JPEG and WebP are decoded to RGB whatever they keep
_APERIO_YCBCR = 33003  # JPEG 2000 that says RGB and keeps YCbCr
_MOST_CHANNELS = 64


class TiffImage:
    """The first image of a file, level by level; ``plane`` is the focal plane that is read.

    Attributes
    ----------
    planes : names of the focal planes, empty when there is one
    channels : empty for RGB
    not_he : why it is no brightfield picture
    clues : the OME physical size
    """

    def __init__(self, tif: tifffile.TiffFile, path: Path) -> None:
        """Look at the pages.

        Raises
        ------
        UnsupportedFormatError
            Its colours or its axes are none that can be shown.
        DamagedSlideError
            Its levels cannot be those of one image.
        """
        series = tif.series[0]
        self.page: Any = series.keyframe
        pixels = pixels_of(tif.ome_metadata or "", path) if tif.is_ome else None
        self.clues: tuple[Clue, ...] = ome_clues(pixels) if pixels is not None else ()
        if pixels is not None and series.kind != "ome":  # tifffile makes do with the pages that are here
            raise UnsupportedFormatError(f"{path}: its OME-XML tells of planes or channels that are not in the file; put all of it into one OME-TIFF")
        axes = dict(zip(series.axes, series.shape, strict=True))
        lead = series.axes[: series.ndim - self.page.ndim]
        self._order = {axis: math.prod(axes[a] for a in lead[i + 1 :]) for i, axis in enumerate(lead)}
        _require_pyramid([_size(level.keyframe) for level in series.levels], path)
        coloured = _is_coloured(self.page) and axes.get("C", 1) == 1 if "C" in lead else _is_coloured(self.page)
        if set(lead) - {"Z", "C"} or not (coloured or self.page.photometric in GREY) or self.page.imagedepth != 1:
            raise UnsupportedFormatError(f"{path}: not a brightfield RGB image but {_what(series)}; H&E slides are 8-bit RGB")
        self.planes = tuple(f"z{i}" for i in range(axes["Z"])) if axes.get("Z", 1) > 1 else ()
        self.plane = len(self.planes) // 2
        self._in_page = 1 if coloured else self.page.samplesperpixel
        count = 0 if coloured else axes.get("C", 1) if "C" in lead else self._in_page
        if count and self.page.dtype.kind not in "uif":
            raise UnsupportedFormatError(f"{path}: its pixels are {self.page.dtype}, which is a mask and no picture of a slide")
        if count > _MOST_CHANNELS:
            raise UnsupportedFormatError(f"{path}: {count} channels; up to {_MOST_CHANNELS} can be shown")
        self.channels = _channels(tif, series, pixels, count)
        self._as_rgb = len(self.channels) == 3 and is_rgb(self.channels, self.page.dtype)
        self.not_he = why_not_he(self.channels, self.page.dtype) if self.channels and not self._as_rgb else ""
        needed = math.prod(axes[a] for a in lead)
        self._levels = [[_tiled(path, page, None if coloured else self._in_page) for page in level.pages] for level in series.levels]
        if any(len(pages) != needed for pages in self._levels):
            raise DamagedSlideError(f"{path}: its levels have {[len(p) for p in self._levels]} pages and not {needed} each; the file is damaged")

    @property
    def sizes(self) -> list[Size]:
        """Of each level."""
        return [pages[0].size for pages in self._levels]

    def read(self, source: int | ReadAt, level: int, box: Region) -> np.ndarray:
        """Pixels of a box inside a level: uint8 (h, w, 3).

        Raises
        ------
        DamagedSlideError
            A tile is cut off or cannot be decoded.
        """
        if not self.channels:
            return self._page(level, 0).read(source, box)
        planes = [self._channel(source, level, c, box) for c in range(len(self.channels))]
        if self._as_rgb:
            return np.stack(planes, -1)
        return compose(planes, self.channels, self._windows(source))

    def _page(self, level: int, channel: int) -> TiledLevel:
        plane = self.plane if self.planes else 0
        return self._levels[level][plane * self._order.get("Z", 0) + channel * self._order.get("C", 0)]

    def _channel(self, source: int | ReadAt, level: int, channel: int, box: Region) -> np.ndarray:
        page, sample = (0, channel) if self._in_page > 1 else (channel, 0)
        return self._page(level, page).read(source, box)[..., sample]

    def _windows(self, source: int | ReadAt) -> list[tuple[float, float]]:
        if self.plane not in self._known:
            last = len(self._levels) - 1
            self._known[self.plane] = windows(lambda c, box: self._channel(source, last, c, box), self.sizes[-1], len(self.channels))
        return self._known[self.plane]

    @cached_property
    def _known(self) -> dict[int, list[tuple[float, float]]]:
        return {}


def _tiled(path: Path, page: Any, samples: int | None) -> TiledLevel:
    if page is None:
        raise DamagedSlideError(f"{path}: a plane or channel is not in the file; copy it again, with the files that it refers to")
    whole = page.aspage()
    return (RawStrips if RawStrips.suits(whole) else TiledLevel)(path, whole, samples)


def _size(page: Any) -> Size:
    return Size(page.imagewidth, page.imagelength)


def _what(series: Any) -> str:
    page = series.keyframe
    return f"{series.axes} {tuple(series.shape)} {page.dtype}, {getattr(page.photometric, 'name', page.photometric)}"


def _channels(tif: tifffile.TiffFile, series: Any, pixels: Any, count: int) -> tuple[Channel, ...]:
    if pixels is not None:
        return ome_channels(pixels, count)
    return tuple(default_channel(i, count) for i in range(count))


def _require_pyramid(sizes: list[Size], path: Path) -> None:
    """Each level is smaller than the one before, and shows the same picture: its sides agree, to a pixel or 1 %, on the downsample."""
    for i, (before, size) in enumerate(pairwise(sizes), 1):
        scales = [(n / (1.01 * s + 1), n / (0.99 * s - 1) if s > 2 else math.inf) for n, s in zip(sizes[0], size, strict=True)]
        if size.w > before.w or size.h > before.h or size == before or max(s[0] for s in scales) > min(s[1] for s in scales):
            raise DamagedSlideError(f"{path}: level {i} of {size.w} × {size.h} px is no smaller picture of {sizes[0].w} × {sizes[0].h} px")


def _is_coloured(page: Any) -> bool:
    """Whether the samples come out as 8-bit red, green and blue: CMYK and CIELab do not, nor YCbCr outside of JPEG."""
    if page.dtype != np.uint8 or page.samplesperpixel not in (3, 4):
        return False
    if page.photometric == _YCBCR:
        return page.compression in _GIVES_RGB and page.planarconfig == 1
    return page.photometric == _RGB and page.compression != _APERIO_YCBCR
