"""A slide: its levels, its resolution and its pixels, whichever reader opens it."""

from __future__ import annotations

import hashlib
import os
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.errors import DamagedSlideError, MissingResolutionError, RegionError, UsageError
from wsikit.geometry import Level, Region, Size
from wsikit.grid import Raster, make_raster, raster_at
from wsikit.readers import Facts, Reader, find_reader
from wsikit.resample import resample
from wsikit.resolution import choose_mpp

_MAX_READ_PX = 2**28
WHITE = 255


class Slide:
    """A whole-slide image. Pickles as its path; opens one handle per process and thread, when first read.

    Attributes
    ----------
    path : Path
    size : Size
        Width and height of level 0.
    levels : tuple of Level
        Finest first.
    mpp : (float, float) or None
        µm per level-0 px along x and y; None when nothing believable is known.
    mpp_source : str
        ``file metadata``, ``tiff resolution``, ``objective (approximate)``, ``override``, ``csv``; empty without mpp.
    reader : str
        Which way in was chosen.
    properties : dict
        Allow-listed metadata; never patient data.

    Raises
    ------
    SlideNotFoundError, UnsupportedFormatError, DamagedSlideError, UsageError
        See `open_slide`.

    Examples
    --------
    >>> with Slide("a.svs") as slide:                        # doctest: +SKIP
    ...     slide.thumbnail(512).dtype
    dtype('uint8')
    """

    def __init__(self, path: str | Path, *, mpp: float | None = None, mpp_source: str = "override", reader: str | None = None) -> None:
        self.path = Path(path)
        self._arguments = {"mpp": mpp, "mpp_source": mpp_source, "reader": reader}
        self._opener: type[Reader] = find_reader(self.path, reader)
        self._local = threading.local()
        facts = self._handle.facts
        self.facts: Facts = facts
        self.reader = self._opener.name
        self.levels: tuple[Level, ...] = facts.levels
        self.size: Size = facts.levels[0].size
        self._resolution = choose_mpp(facts.clues, facts.objective, mpp, mpp_source)
        self.mpp = self._resolution.mpp
        self.mpp_source = self._resolution.source
        self.properties = facts.properties

    @property
    def _handle(self) -> Reader:
        handle: Reader | None = getattr(self._local, "handle", None)
        if handle is None or self._local.process != os.getpid():  # a forked child would share file positions with its parent
            handle = self._local.handle = self._opener(self.path)
            self._local.process = os.getpid()
        return handle

    @property
    def is_phantom(self) -> bool:
        """Whether the file says that it is synthetic tissue made by wsikit."""
        return self.properties.get("wsikit.phantom") == "1"

    @property
    def mpp_refusal(self) -> str:
        """Why there is no mpp, and what to pass; empty when there is one."""
        return self._resolution.refusal

    def require_mpp(self) -> tuple[float, float]:
        """µm per level-0 px (x, y).

        Raises
        ------
        MissingResolutionError
            There is none to believe; the message says what to pass.
        """
        if self.mpp is None:
            raise MissingResolutionError(f"{self.path}: {self.mpp_refusal}")
        return self.mpp

    def raster(self, mpp: float, *, upsample: bool = False) -> Raster:
        """The slide at ``mpp`` µm/px, read from the nearest finer level.

        Raises
        ------
        MissingResolutionError
            The slide has no mpp.
        ResolutionMismatchError
            The slide is more than 1.1 × coarser and ``upsample`` is false.
        """
        return make_raster(self.levels, self.require_mpp(), mpp, upsample=upsample)

    def read_raster(self, raster: Raster, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a raster, white beyond the slide: uint8 (h, w, 3). See `wsikit.resample` for exactness.

        Raises
        ------
        DamagedSlideError
            The file cannot be decoded there.
        RegionError
            The region is too large to hold.
        """
        window = raster.source_window(x, y, w, h)
        return resample(self.read_level(raster.level, window), (x, y), (w, h), raster.step)

    def read_level(self, level: int, region: Region) -> np.ndarray:
        """Pixels of a stored level, white beyond the slide: uint8 (h, w, 3); the region in px of that level."""
        if not 0 <= level < len(self.levels):
            raise RegionError(f"{self.path}: there is no level {level}; levels are 0 to {len(self.levels) - 1}")
        if region.is_empty:
            raise RegionError(f"{self.path}: {region} holds no pixel; give x, y, width and height")
        if region.w * region.h > _MAX_READ_PX:
            raise RegionError(f"{self.path}: {region.w} × {region.h} px at once; read up to {_MAX_READ_PX // 2**20} Mpx, by blocks")
        inside = region.clip(self.levels[level].size)
        if inside == region:
            return self._read_inside(level, region)
        out = np.full((region.h, region.w, 3), WHITE, np.uint8)
        if not inside.is_empty:
            x, y = inside.x - region.x, inside.y - region.y
            out[y : y + inside.h, x : x + inside.w] = self._read_inside(level, inside)
        return out

    def _read_inside(self, level: int, box: Region) -> np.ndarray:
        try:
            return self._handle.read(level, box.x, box.y, box.w, box.h)
        except DamagedSlideError:
            self.close()  # OpenSlide's handles fail for good after one error, also where the slide is whole
            raise

    def read(self, region: Region | tuple[int, int, int, int], mpp: float | None = None) -> np.ndarray:
        """Pixels of a level-0 region, at level 0 or at ``mpp`` µm/px: uint8 (H, W, 3), white beyond the slide.

        With ``mpp``, the pixels are those of the raster anchored at the slide's origin that lie nearest to
        the region, so neighbouring regions fit without a seam.

        Raises
        ------
        RegionError
            The region is empty or too large to hold.
        MissingResolutionError, ResolutionMismatchError, UsageError
            See `raster`.
        DamagedSlideError
            The file cannot be decoded there.
        """
        r = region if isinstance(region, Region) else Region(*region)
        if mpp is None or r.is_empty:
            return self.read_level(0, r)
        raster = self.raster(mpp)
        (dx, dy) = raster.downsample
        x, y = round(r.x / dx), round(r.y / dy)
        return self.read_raster(raster, x, y, max(1, round(r.w / dx)), max(1, round(r.h / dy)))

    def low_power(self, max_px: int) -> Raster:
        """The raster, by a power of two from level 0, whose longer side has at most ``max_px``.

        Raises
        ------
        UsageError
            ``max_px`` is no number of pixels.
        """
        if max_px < 1:
            raise UsageError(f"a picture of {max_px} px cannot be; give 1 or more")
        factor = 1
        while max(self.size) > max_px * factor:
            factor *= 2
        return self.reduced(factor)

    def reduced(self, factor: int) -> Raster:
        """The raster with ``factor × factor`` level-0 px a pixel, read from the nearest finer level."""
        level = max((lv for lv in self.levels if max(lv.downsample) <= factor * 1.001), key=lambda lv: lv.index)
        step = (factor / level.downsample[0], factor / level.downsample[1])
        return raster_at(level, self.mpp or (1.0, 1.0), step)

    def read_low_power(self, raster: Raster, strip_px: int = 2**25) -> np.ndarray:
        """A whole raster, read in strips so that memory stays bounded: uint8 (H, W, 3)."""
        out = np.empty((raster.size.h, raster.size.w, 3), np.uint8)
        rows = max(1, int(strip_px / (raster.size.w * raster.step[0] * raster.step[1])))
        for y in range(0, raster.size.h, rows):
            h = min(rows, raster.size.h - y)
            out[y : y + h] = self.read_raster(raster, 0, y, raster.size.w, h)
        return out

    def thumbnail(self, max_px: int = 1024) -> np.ndarray:
        """The whole slide, its longer side at most ``max_px``: uint8 (H, W, 3).

        Raises
        ------
        DamagedSlideError
            The file cannot be decoded.
        UsageError
            ``max_px`` is no number of pixels.
        """
        return self.read_low_power(self.low_power(max_px))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, or of the sorted digests of all files that make up the slide."""
        digests = sorted(_sha256(p) for p in self._opener.files(self.path))
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def close(self) -> None:
        """Let go of this thread's handle; reading opens it again."""
        if (handle := getattr(self._local, "handle", None)) is not None:
            handle.close()
            self._local.handle = None

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self._arguments)

    def __repr__(self) -> str:
        mpp = f"{self.mpp[0]:.4g} × {self.mpp[1]:.4g} µm/px" if self.mpp else "mpp unknown"
        return f"<Slide {self.path.name}: {self.size.w} × {self.size.h} px, {mpp}, {self.reader}>"


def _reopen(path: str, arguments: dict[str, Any]) -> Slide:
    return Slide(path, **arguments)


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def open_slide(path: str | Path, *, mpp: float | None = None, reader: str | None = None) -> Slide:
    """Open a slide of any supported kind.

    Parameters
    ----------
    path : a file, or a folder of DICOM instances
    mpp : µm per level-0 px, over whatever the file says
    reader : which way in to use, rather than the best one (see ``wsikit info``)

    Raises
    ------
    SlideNotFoundError, UnsupportedFormatError, DamagedSlideError
        The file is missing, of no known kind, or broken.
    UsageError
        No reader has that name.

    Examples
    --------
    >>> slide = open_slide("a.svs")                         # doctest: +SKIP
    >>> slide.mpp                                           # doctest: +SKIP
    (0.5, 0.5)
    >>> slide.read((0, 0, 512, 512), mpp=1.0).shape         # doctest: +SKIP
    (256, 256, 3)
    """
    return Slide(path, mpp=mpp, reader=reader)
