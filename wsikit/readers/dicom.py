"""DICOM whole-slide images through wsidicom (extra ``dicom``): what OpenSlide does not read, or would show in wrong colours."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wsikit.errors import DamagedSlideError, WsikitError
from wsikit.geometry import Level, Size
from wsikit.readers import Facts, Reader
from wsikit.readers._dicom import Instance, require_true_colours, series_of
from wsikit.resolution import Clue

if TYPE_CHECKING:
    from wsidicom.codec.decoder import Decoder

if find_spec("wsidicom") is None:
    raise ImportError("wsidicom is not installed")
# transfer syntaxes that OpenSlide 4.0.1 reads: native, JPEG baseline, JPEG 2000
_OPENSLIDE = frozenset(["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"])
_OPENSLIDE_COLOURS = ("RGB", "YBR_FULL_422", "YBR_ICT")
_JPEGS = "1.2.840.10008.1.2.4."  # JPEG, JPEG-LS and JPEG 2000, which all end with the same marker
_END, _PADDING = b"\xff\xd9", 64


class _Whole:
    """A decoder that makes nothing up: libjpeg fills the rest of a frame that stops early with grey."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def decode(self, frame: bytes) -> np.ndarray:
        """Pixels of a frame."""
        if _END not in frame[-_PADDING:]:
            raise ValueError("a frame stops early")
        return self._decoder.decode(frame)


class DicomReader(Reader):
    """All instances of a series as one slide."""

    name: ClassVar[str] = "dicom"

    @classmethod
    def accepts(cls, path: Path) -> int:
        """84 for what OpenSlide cannot read rightly, 70 for the rest."""
        try:
            volume = [i for i in series_of(path) if i.is_volume]
        except (WsikitError, OSError):
            return 0
        return 84 if any(map(_is_hard, volume)) else 70

    def __init__(self, path: Path) -> None:
        self._path = path
        files = series_of(path)
        self._volume = [i for i in files if i.is_volume]
        require_true_colours(self._volume, path, handled=True)
        import wsidicom  # takes half a second to load, which slides in other formats do not need

        try:
            self._slide = wsidicom.WsiDicom.open([i.path for i in files])
            self._levels = list(self._slide.pyramid)
            self._guard_frames()
        except Exception as e:  # wsidicom and pydicom raise many kinds
            raise DamagedSlideError(f"{path}: the DICOM slide cannot be opened ({' '.join(str(e).split())[:200]})") from e
        self._z = self._planes()[len(self._planes()) // 2]

    def _guard_frames(self) -> None:
        """Decode frames by their own word where the header claims other colours, and refuse those that stop early."""
        from wsidicom.codec.decoder import Decoder

        false = {i.photometric for i in self._volume if i.false_colours}
        for data in (part.image_data for level in self._levels for part in level.instances.values()):
            frames: Any = data
            if frames.photometric_interpretation in false:
                claim = "RGB" if frames.photometric_interpretation != "RGB" else "YBR_FULL"
                frames._decoder = Decoder.create(frames.transfer_syntax, frames.samples_per_pixel, frames.bits, frames.tile_size, claim)
            if str(frames.transfer_syntax).startswith(_JPEGS):
                frames._decoder = _Whole(frames._decoder)

    def _planes(self) -> list[float]:
        return sorted(self._levels[0].focal_planes)

    @property
    def facts(self) -> Facts:
        """Levels, pixel spacing, the optical path and the focal planes (µm from the lowest)."""
        sizes = [Size(v.size.width, v.size.height) for v in self._levels]
        first = max(self._volume, key=lambda i: i.width)
        planes = tuple(f"{z:g}um" for z in self._planes())
        spacing = self._slide.mpp
        return Facts(
            vendor="dicom",
            levels=tuple(Level(i, s, (sizes[0].w / s.w, sizes[0].h / s.h)) for i, s in enumerate(sizes)),
            clues=(Clue("file metadata", float(spacing.width), float(spacing.height)),) if spacing else (),
            objective=first.objective if first.objective and math.isfinite(first.objective) else None,
            icc=first.icc,
            not_he=_why_not_he(first),
            focal_planes=planes if len(planes) > 1 else (),
            focal_plane=planes[len(planes) // 2] if len(planes) > 1 else "",
            associated=tuple(n for n, there in (("label", self._slide.labels), ("macro", self._slide.overviews)) if there),
        )

    def focus(self, plane: str) -> None:
        """Read this focal plane from now on."""
        self._z = next(z for z in self._planes() if f"{z:g}um" == plane)

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        """Pixels of a level: uint8 (h, w, 3); frames that a sparse slide leaves out are white."""
        try:
            found = np.asarray(self._slide.read_region((x, y), self._levels[level].level, (w, h), z=self._z, as_array=True))
        except Exception as e:  # a codec's own exception classes
            why = " ".join(str(e).split())[:200]
            raise DamagedSlideError(f"{self._path}: level {level}, x {x}, y {y}, {w} × {h} px cannot be decoded ({why}); copy the slide again") from e
        if found.dtype != np.uint8 or found.shape[:2] != (h, w):
            raise DamagedSlideError(f"{self._path}: level {level} gives {found.dtype} {found.shape}; 8-bit samples are needed")
        return np.array(found if found.ndim == 3 else np.repeat(found[..., None], 3, -1))

    def close(self) -> None:
        """Let go of the files."""
        self._slide.close()

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """The files of the slide's series, and no other slide's."""
        return [i.path for i in series_of(path)]


def _is_hard(i: Instance) -> bool:
    """Whether OpenSlide refuses the file, or would show wrong colours."""
    if i.syntax not in _OPENSLIDE or i.photometric not in _OPENSLIDE_COLOURS:
        return True
    return i.planes > 1 or i.optical_paths > 1 or i.samples != 3 or i.false_colours


def _why_not_he(first: Instance) -> str:
    if "fluorescence" in first.light.lower():
        return f"its light is '{first.light}'; it is no brightfield H&E stain"
    if first.optical_paths > 1 or first.samples != 3:
        return f"{first.optical_paths} optical paths of {first.samples} samples (multi-channel or fluorescence?); it is no brightfield H&E stain"
    return ""


READER = DicomReader
