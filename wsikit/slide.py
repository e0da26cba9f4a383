"""A slide: its levels, its resolution and its pixels, whichever reader opens it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np

from wsikit.colour import ICC_CHOICES, KEEP, SRGB, ToSrgb
from wsikit.errors import DamagedSlideError, MissingResolutionError, RegionError, UsageError
from wsikit.gate import admit
from wsikit.geometry import Level, Region, Size
from wsikit.grid import Raster, make_raster, raster_at
from wsikit.location import locate
from wsikit.readers import Facts, Reader, find_reader
from wsikit.resample import resample
from wsikit.resolution import choose_mpp, contradiction
from wsikit.salvage import read_around

_MAX_READ_PX = 2**28
WHITE = 255
T = TypeVar("T")


class _Handle:
    """One thread's open reader, and the lock that keeps another thread from closing it while it reads."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.process = reader, os.getpid()
        self.lock, self.closed, self.plane = threading.Lock(), False, ""

    def close(self) -> None:
        with self.lock:
            if not self.closed and self.process == os.getpid():
                self.reader.close()
            self.closed = True


class Slide:
    """A whole-slide image, opened right here; `open_slide` looks at the file in a process of its own first.

    Pickles as its path; opens one handle per process and thread, when first read.

    Attributes
    ----------
    path : Path
        Where it is; an address is a path too.
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
    bounds : Region
        The scanned part of level 0: all of it, unless the scanner says that the rest is empty.
    focal_plane : str
        Which of ``facts.focal_planes`` is read; empty where the slide has one.
    icc : str
        ``srgb`` where the slide's colour profile is applied, ``keep`` where pixels are as stored.
    warnings : tuple of str
        What a person should look at: an objective that contradicts the mpp.

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

    def __init__(
        self,
        path: str | Path,
        *,
        mpp: float | None = None,
        mpp_source: str = "override",
        reader: str | None = None,
        focal_plane: str | None = None,
        icc: str = KEEP,
    ) -> None:
        self.path = locate(path)
        self._arguments = {"mpp": mpp, "mpp_source": mpp_source, "reader": reader, "focal_plane": focal_plane, "icc": icc}
        self._opener: type[Reader] = find_reader(self.path, reader)
        self._local = threading.local()
        self._handles: WeakSet[_Handle] = WeakSet()
        self.focal_plane = ""
        facts = self._with_reader(lambda r: r.facts)
        self.facts: Facts = facts
        self.focal_plane = _chosen_plane(self.path, facts, focal_plane)
        self._to_srgb = self._colours(icc)
        self.icc = SRGB if self._to_srgb else KEEP
        self.reader = self._opener.name
        self.levels: tuple[Level, ...] = facts.levels
        self.size: Size = facts.levels[0].size
        self._resolution = choose_mpp(facts.clues, facts.objective, mpp, mpp_source)
        self.mpp = self._resolution.mpp
        self.mpp_source = self._resolution.source
        self.properties = facts.properties
        self.bounds = (facts.bounds or Region(0, 0, *self.size)).clip(self.size)
        self.warnings = tuple(filter(None, [contradiction(self._resolution, facts.objective, facts.vendor)]))

    def _handle(self) -> _Handle:
        """The handle of this thread, opened when it is first needed."""
        handle: _Handle | None = getattr(self._local, "handle", None)
        # a forked child would share file positions with its parent
        if handle is None or handle.closed or handle.process != os.getpid():
            handle = self._local.handle = _Handle(self._opener(self.path))
            self._handles.add(handle)
        if handle.plane != self.focal_plane:
            handle.reader.focus(self.focal_plane)
            handle.plane = self.focal_plane
        return handle

    def _with_reader(self, use: Callable[[Reader], T]) -> T:
        while True:
            handle = self._handle()
            with handle.lock:
                if not handle.closed:  # by another thread, just now
                    return use(handle.reader)

    def _colours(self, icc: str) -> ToSrgb | None:
        if icc not in ICC_CHOICES:
            raise UsageError(f"icc '{icc}': choose {' or '.join(ICC_CHOICES)}")
        if icc == KEEP or not self.facts.icc:
            return None
        try:
            return ToSrgb(self.facts.icc)
        except DamagedSlideError as e:
            raise DamagedSlideError(f"{self.path}: {e}") from e

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

    def read_raster(self, raster: Raster, x: int, y: int, w: int, h: int, lost: list[Region] | None = None) -> np.ndarray:
        """Pixels of a raster, white beyond the slide: uint8 (h, w, 3). See `wsikit.resample` for exactness.

        Raises
        ------
        DamagedSlideError
            The file cannot be decoded there.
        RegionError
            The region is too large to hold.
        """
        window = raster.source_window(x, y, w, h)
        return resample(self.read_level(raster.level, window, lost), (x, y), (w, h), raster.step)

    def read_level(self, level: int, region: Region, lost: list[Region] | None = None) -> np.ndarray:
        """Pixels of a stored level, white beyond the slide: uint8 (h, w, 3); the region in px of that level.

        With a list ``lost``, what cannot be decoded is white too, and its boxes in level-0 px are added there.

        Raises
        ------
        DamagedSlideError
            The file cannot be decoded there, and there is no list ``lost``.
        RegionError
            There is no such level, or the region is empty or too large to hold.
        """
        if not 0 <= level < len(self.levels):
            raise RegionError(f"{self.path}: there is no level {level}; levels are 0 to {len(self.levels) - 1}")
        if region.is_empty:
            raise RegionError(f"{self.path}: {region} holds no pixel; give x, y, width and height")
        if region.w * region.h > _MAX_READ_PX:
            raise RegionError(f"{self.path}: {region.w} × {region.h} px at once; read up to {_MAX_READ_PX // 2**20} Mpx, by blocks")
        inside = region.clip(self.levels[level].size)
        if inside == region:
            return self._read_inside(level, region, lost)
        out = np.full((region.h, region.w, 3), WHITE, np.uint8)
        if not inside.is_empty:
            x, y = inside.x - region.x, inside.y - region.y
            out[y : y + inside.h, x : x + inside.w] = self._read_inside(level, inside, lost)
        return out

    def _read_inside(self, level: int, box: Region, lost: list[Region] | None = None) -> np.ndarray:
        try:
            pixels = self._with_reader(lambda r: r.read(level, box.x, box.y, box.w, box.h))
        except DamagedSlideError:
            self._local.handle.close()  # OpenSlide's handles fail for good after one error, also where the slide is whole
            if lost is None:
                raise
            pixels, gaps = read_around(lambda part: self._read_inside(level, part), box)
            lost += [self.levels[level].to_level0(gap).clip(self.size) for gap in gaps]
            return pixels
        return self._to_srgb(pixels) if self._to_srgb else pixels

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

    def read_low_power(self, raster: Raster, strip_px: int = 2**25, lost: list[Region] | None = None) -> np.ndarray:
        """A whole raster, read in strips so that memory stays bounded: uint8 (H, W, 3); for ``lost`` see `read_level`."""
        out = np.empty((raster.size.h, raster.size.w, 3), np.uint8)
        rows = max(1, int(strip_px / (raster.size.w * raster.step[0] * raster.step[1])))
        for y in range(0, raster.size.h, rows):
            h = min(rows, raster.size.h - y)
            out[y : y + h] = self.read_raster(raster, 0, y, raster.size.w, h, lost)
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

    def associated(self, name: str) -> tuple[np.ndarray, bytes]:
        """One of ``facts.associated`` (label, macro, thumbnail): uint8 (H, W, 3 or 4), and its colour profile. It may show a patient's name.

        Raises
        ------
        UsageError
            There is none of that name that can be read.
        DamagedSlideError
            It cannot be decoded.
        """
        return self._with_reader(lambda r: r.associated(name))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, or of the sorted digests of all files that make up the slide."""
        digests = sorted(_sha256(p) for p in self._opener.files(self.path))
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def close(self) -> None:
        """Let go of the file, in every thread of this process; reading opens it again."""
        for handle in list(self._handles):
            handle.close()
        self._handles = WeakSet()

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


def _chosen_plane(path: Path, facts: Facts, wanted: str | None) -> str:
    if wanted is None or wanted == facts.focal_plane:
        return facts.focal_plane
    if wanted not in facts.focal_planes:
        there = f"it has {', '.join(facts.focal_planes)}" if facts.focal_planes else "it has one"
        raise UsageError(f"{path}: there is no focal plane '{wanted}'; {there}")
    return wanted


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def open_slide(
    path: str | Path,
    *,
    mpp: float | None = None,
    mpp_source: str = "override",
    reader: str | None = None,
    focal_plane: str | None = None,
    icc: str = KEEP,
    trusted: bool = False,
) -> Slide:
    """Open a slide of any supported kind, after a look at it in a process of its own (see `wsikit.gate`).

    Parameters
    ----------
    path : a file, a folder of DICOM instances, an OME-Zarr folder, or an address (``s3://``, ``gs://``, ``https://``) of a TIFF or OME-Zarr
    mpp : µm per level-0 px, over whatever the file says
    mpp_source : what to call the source of that mpp
    trusted : open it here at once: for files that were written by yourself
    reader : which way in to use, rather than the best one (see ``wsikit info``)
    focal_plane : which of ``slide.facts.focal_planes`` to read; by default the middle one
    icc : ``srgb`` applies the slide's colour profile, where it has one

    Raises
    ------
    SlideNotFoundError, UnsupportedFormatError, DamagedSlideError
        The file is missing, of no known kind, or broken.
    UnsafeSlideError
        Opening it crashes, hangs or takes more than 4 GiB.
    UsageError
        No reader or focal plane has that name, or an address is given without the extra ``cloud``.

    Examples
    --------
    >>> slide = open_slide("a.svs")                         # doctest: +SKIP
    >>> slide.mpp                                           # doctest: +SKIP
    (0.5, 0.5)
    >>> slide.read((0, 0, 512, 512), mpp=1.0).shape         # doctest: +SKIP
    (256, 256, 3)
    """
    reader = reader if trusted else admit(path, reader)
    return Slide(path, mpp=mpp, mpp_source=mpp_source, reader=reader, focal_plane=focal_plane, icc=icc)
