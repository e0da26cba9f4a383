"""The interface of openslide-python on top of wsikit's readers, so that other tools read what wsikit reads.

>>> import sys, wsikit.openslide_compat as compat
>>> sys.modules["openslide"] = compat                                  # doctest: +SKIP
>>> with compat.open_slide("a.ome.tif") as slide:                      # doctest: +SKIP
...     slide.read_region((0, 0), 0, (256, 256)).mode
'RGBA'

As there: regions are RGBA and transparent beyond the slide, errors stick, a closed slide raises ``ctypes.ArgumentError``. Not as there:
missing tiles are white; a region that starts between two pixels of a level starts at the nearer one; properties are the allow-listed ones
(no comments, names or dates); a cache is accepted and not needed.
"""

from __future__ import annotations

import io
import operator
import os
from collections.abc import Iterator, Mapping
from ctypes import ArgumentError
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from wsikit import __version__
from wsikit.errors import SlideNotFoundError, UnsupportedFormatError, WsikitError
from wsikit.geometry import Region, Size
from wsikit.readers import candidates
from wsikit.readers.openslide import library_version
from wsikit.slide import Slide

PROPERTY_NAME_COMMENT = "openslide.comment"
PROPERTY_NAME_VENDOR = "openslide.vendor"
PROPERTY_NAME_QUICKHASH1 = "openslide.quickhash-1"
PROPERTY_NAME_BACKGROUND_COLOR = "openslide.background-color"
PROPERTY_NAME_OBJECTIVE_POWER = "openslide.objective-power"
PROPERTY_NAME_MPP_X = "openslide.mpp-x"
PROPERTY_NAME_MPP_Y = "openslide.mpp-y"
PROPERTY_NAME_BOUNDS_X = "openslide.bounds-x"
PROPERTY_NAME_BOUNDS_Y = "openslide.bounds-y"
PROPERTY_NAME_BOUNDS_WIDTH = "openslide.bounds-width"
PROPERTY_NAME_BOUNDS_HEIGHT = "openslide.bounds-height"
__library_version__ = library_version()
_PICTURES = ("image", "array")


class OpenSlideError(Exception):
    """A slide that cannot be read."""


class OpenSlideVersionError(OpenSlideError):
    """A library that is too old; wsikit never raises it."""


class OpenSlideUnsupportedFormatError(OpenSlideError):
    """A file that no reader knows."""


class OpenSlideCache:
    """Accepted for the interface's sake: wsikit decodes each tile once as it is."""

    def __init__(self, capacity: int) -> None:
        """Take a number of bytes."""
        try:
            self.capacity = operator.index(capacity)
        except TypeError as e:
            raise ArgumentError(f"a cache of {capacity!r} bytes cannot be") from e
        if self.capacity < 0:
            raise ArgumentError(f"a cache of {capacity} bytes cannot be")


class AbstractSlide:
    """What a slide and a picture have in common."""

    def __enter__(self) -> AbstractSlide:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @classmethod
    def detect_format(cls, filename: str | bytes | os.PathLike[Any]) -> str | None:
        """What kind of file it is; None where no reader takes it."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file."""
        raise NotImplementedError

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """Width and height of each level."""
        raise NotImplementedError

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 px per pixel of each level; a picture has one."""
        return (1.0,)

    @property
    def properties(self) -> Mapping[str, str]:
        """Metadata by name; a picture has none."""
        return {}

    @property
    def associated_images(self) -> Mapping[str, Image.Image]:
        """Label, macro and thumbnail, read when they are asked for; a picture has none."""
        return {}

    @property
    def _icc(self) -> bytes:
        raise NotImplementedError

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """RGBA of ``size`` px of a level, from ``location`` in level-0 px."""
        raise NotImplementedError

    def set_cache(self, cache: OpenSlideCache) -> None:
        """Take a cache, and do without it."""
        if not isinstance(cache, OpenSlideCache):
            raise TypeError("not an OpenSlideCache")

    @property
    def level_count(self) -> int:
        """How many levels there are."""
        return len(self.level_dimensions)

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height of level 0."""
        return self.level_dimensions[0]

    @property
    def color_profile(self) -> ImageCms.ImageCmsProfile | None:
        """The colour profile, where there is one."""
        return ImageCms.ImageCmsProfile(io.BytesIO(self._icc)) if self._icc else None

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """The coarsest level that is at least as fine."""
        return max((i for i, d in enumerate(self.level_downsamples) if d <= downsample), default=0)

    def get_thumbnail(self, size: tuple[int, int]) -> Image.Image:
        """The whole slide as RGB, within ``size``, on the background colour."""
        level = self.get_best_level_for_downsample(max(n / m for n, m in zip(self.dimensions, size, strict=True)))
        whole = self.read_region((0, 0), level, self.level_dimensions[level])
        out = Image.new("RGB", whole.size, f"#{self.properties.get(PROPERTY_NAME_BACKGROUND_COLOR, 'ffffff')}")
        out.paste(whole, None, whole)
        out.thumbnail(size, Image.Resampling.LANCZOS)
        return self._with_profile(out)

    def _with_profile(self, image: Image.Image) -> Image.Image:
        if self._icc:
            image.info["icc_profile"] = self._icc
        return image


class OpenSlide(AbstractSlide):
    """A slide through whichever of wsikit's readers suits it best."""

    def __init__(self, filename: str | bytes | os.PathLike[Any]) -> None:
        """Open it.

        Raises
        ------
        OpenSlideUnsupportedFormatError, OpenSlideError
            No reader knows it, or it is damaged; the message says why.
        """
        self._filename, self._error, self._closed = filename, "", False
        path = _path(filename)
        try:
            self._slide = Slide(path, reader=next((r.name for r in candidates(path) if r.name not in _PICTURES), None))
        except (UnsupportedFormatError, SlideNotFoundError) as e:
            raise OpenSlideUnsupportedFormatError(str(e)) from e
        except WsikitError as e:
            raise OpenSlideError(str(e)) from e
        if self._slide.reader in _PICTURES:
            raise OpenSlideUnsupportedFormatError(f"{path}: a plain picture; ImageSlide opens it")
        self._profile = self._slide.facts.icc

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._filename!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._filename,)

    @classmethod
    def detect_format(cls, filename: str | bytes | os.PathLike[Any]) -> str | None:
        """The vendor; None where no reader takes the file."""
        try:
            slide = cls(filename)
        except OpenSlideError:
            return None
        vendor = slide.properties[PROPERTY_NAME_VENDOR]
        slide.close()
        return vendor

    def _open(self) -> Slide:
        if self._closed:
            raise ArgumentError("this slide is closed")
        if self._error:
            raise OpenSlideError(self._error)
        return self._slide

    def close(self) -> None:
        """Let go of the file."""
        if self._closed:
            raise ArgumentError("this slide is closed")
        self._closed = True
        self._slide.close()

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """Width and height of each level."""
        return tuple((v.size.w, v.size.h) for v in self._open().levels)

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 px per pixel of each level, the mean of x and y."""
        return tuple(sum(v.downsample) / 2 for v in self._open().levels)

    @property
    def properties(self) -> Mapping[str, str]:
        """Allow-listed metadata under OpenSlide's names."""
        return _PropertyMap(self)

    @property
    def associated_images(self) -> Mapping[str, Image.Image]:
        """Label, macro and thumbnail, read when they are asked for: they may show a patient's name."""
        return _AssociatedImageMap(self)

    @property
    def _icc(self) -> bytes:
        self._open()
        return self._profile

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """RGBA of ``size`` px of a level, from ``location`` in level-0 px; transparent beyond the slide, and at levels that do not exist."""
        slide, (w, h) = self._open(), size
        if w < 0 or h < 0:
            raise OpenSlideError(f"a region of {w} × {h} px cannot be")
        out = np.zeros((h, w, 4), np.uint8)
        if 0 <= level < len(slide.levels) and w and h:
            there = slide.levels[level]
            x, y = (round(p / d) for p, d in zip(location, there.downsample, strict=True))
            inside = Region(x, y, w, h).clip(there.size)
            if not inside.is_empty:
                part = out[inside.y - y : inside.y1 - y, inside.x - x : inside.x1 - x]
                part[..., :3], part[..., 3] = self._read(level, inside), 255
        return self._with_profile(Image.fromarray(out))

    def _read(self, level: int, box: Region) -> np.ndarray:
        try:
            return self._slide.read_level(level, box)
        except WsikitError as e:
            self._error = str(e)
            raise OpenSlideError(str(e)) from e

    def _associated(self, name: str) -> Image.Image:
        try:
            pixels, icc = self._open().associated(name)
        except WsikitError as e:
            self._error = str(e)
            raise OpenSlideError(str(e)) from e
        image = Image.fromarray(pixels)
        if icc:
            image.info["icc_profile"] = self._profile if icc == self._profile else icc
        return image


class _PropertyMap(Mapping[str, str]):
    def __init__(self, slide: OpenSlide) -> None:
        self._slide = slide

    def _all(self) -> dict[str, str]:
        s = self._slide._open()
        found = {PROPERTY_NAME_VENDOR: s.facts.vendor, "openslide.level-count": str(len(s.levels))}
        if s.mpp:
            found |= {PROPERTY_NAME_MPP_X: repr(s.mpp[0]), PROPERTY_NAME_MPP_Y: repr(s.mpp[1])}
        if s.facts.objective:
            found[PROPERTY_NAME_OBJECTIVE_POWER] = f"{s.facts.objective:g}"
        for v in s.levels:
            found |= {f"openslide.level[{v.index}].{k}": str(n) for k, n in zip(("width", "height", "downsample"), (*v.size, v.downsample[0]), strict=True)}
        if s.facts.bounds:
            b = s.bounds
            found |= {PROPERTY_NAME_BOUNDS_X: str(b.x), PROPERTY_NAME_BOUNDS_Y: str(b.y)}
            found |= {PROPERTY_NAME_BOUNDS_WIDTH: str(b.w), PROPERTY_NAME_BOUNDS_HEIGHT: str(b.h)}
        return found | {k: v for k, v in s.properties.items() if k not in found}

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._all()!r}>"


class _AssociatedImageMap(Mapping[str, Image.Image]):
    def __init__(self, slide: OpenSlide) -> None:
        self._slide = slide

    def __contains__(self, name: object) -> bool:  # a Mapping would read the image
        return name in self._slide._open().facts.associated

    def __getitem__(self, name: str) -> Image.Image:
        if name not in self:
            raise KeyError(name)
        return self._slide._associated(name)

    def __len__(self) -> int:
        return len(self._slide._open().facts.associated)

    def __iter__(self) -> Iterator[str]:
        return iter(self._slide._open().facts.associated)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {dict(self)!r}>"


class ImageSlide(AbstractSlide):
    """Any picture that Pillow opens, or a Pillow image, as a slide of one level."""

    def __init__(self, file: str | bytes | os.PathLike[Any] | Image.Image) -> None:
        """Open it; a Pillow image stays open when the slide is closed."""
        self._file, self._own = file, not isinstance(file, Image.Image)
        self._image: Image.Image | None = file if isinstance(file, Image.Image) else Image.open(_path(file))
        self._profile = bytes(self._image.info.get("icc_profile") or b"")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._file!r})"

    @classmethod
    def detect_format(cls, filename: str | bytes | os.PathLike[Any]) -> str | None:
        """Pillow's name of the format; None where it is no picture."""
        try:
            with Image.open(_path(filename)) as image:
                return image.format
        except OSError:
            return None

    def _open(self) -> Image.Image:
        if self._image is None:
            raise ValueError("this slide is closed")
        return self._image

    def close(self) -> None:
        """Let go of the picture."""
        if self._own and self._image is not None:
            self._image.close()
        self._image = None

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """The picture's width and height."""
        return (self._open().size,)

    @property
    def _icc(self) -> bytes:
        return self._profile

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """RGBA of ``size`` px from ``location``; transparent beyond the picture."""
        image, (w, h) = self._open(), size
        if level != 0 or w < 0 or h < 0:
            raise OpenSlideError(f"level {level}, {w} × {h} px: a picture has level 0, and regions are not negative")
        out = Image.new("RGBA", (w, h), (0, 0, 0, 0))
        box = Region(*location, w, h).clip(Size(*image.size))
        if not box.is_empty:
            out.paste(image.crop((box.x, box.y, box.x1, box.y1)).convert("RGBA"), (box.x - location[0], box.y - location[1]))
        return self._with_profile(out)


def open_slide(filename: str | bytes | os.PathLike[Any]) -> OpenSlide | ImageSlide:
    """A slide, or else a picture."""
    try:
        return OpenSlide(filename)
    except OpenSlideUnsupportedFormatError:
        return ImageSlide(filename)


def _path(filename: Any) -> Path:
    try:
        return Path(os.fsdecode(filename))
    except TypeError as e:
        raise ArgumentError(f"{filename!r} is no path") from e


__all__ = ["AbstractSlide", "ImageSlide", "OpenSlide", "OpenSlideCache", "OpenSlideError", "OpenSlideUnsupportedFormatError", "OpenSlideVersionError",
           "__library_version__", "__version__", "open_slide"]  # fmt: skip
