"""OME-Zarr metadata, 0.4 and 0.5: axes, levels, resolution and channels of an image. Everything in it is untrusted text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from wsikit.errors import UnsupportedFormatError
from wsikit.readers._channels import Channel, default_channel
from wsikit.resolution import Clue

_UNIT_UM = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6, "angstrom": 1e-4, "inch": 25400.0}
_AXES = frozenset("tczyx")
_RGB_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
_MOST_LEVELS = 50


@dataclass(frozen=True)
class Multiscale:
    """One image: ``axes`` such as ``cyx``, the path and scale (one number an axis) of each level, finest first."""

    axes: str
    paths: tuple[str, ...]
    scales: tuple[tuple[float, ...], ...]
    units: tuple[str, ...]

    def clue(self) -> tuple[Clue, ...]:
        """Its resolution: none without units, 0, which is refused, in a unit that is no length."""
        unit_x, unit_y = (self.units[self.axes.index(a)] for a in "xy")
        if not unit_x and not unit_y:
            return ()
        x, y = (self.scales[0][self.axes.index(a)] for a in "xy")
        return (Clue("file metadata", x * _UNIT_UM.get(unit_x, 0.0), y * _UNIT_UM.get(unit_y, 0.0)),)


def multiscale_of(attributes: Mapping[str, Any], where: str) -> Multiscale:
    """The first image that a group's attributes tell of.

    Raises
    ------
    UnsupportedFormatError
        There is none, or it is not as OME-Zarr 0.4 or 0.5 has it.
    """
    stated = image_attributes(attributes).get("multiscales")
    try:
        first = stated[0]  # type: ignore[index]
        axes = "".join(str(a["name"]).lower() for a in first["axes"])
        units = tuple(str(a.get("unit", "")) for a in first["axes"])
        whole = _scale(first, len(axes))
        paths = tuple(_inside(str(d["path"])) for d in first["datasets"][:_MOST_LEVELS])
        scales = tuple(tuple(a * b for a, b in zip(_scale(d, len(axes)), whole, strict=True)) for d in first["datasets"][:_MOST_LEVELS])
    except (TypeError, KeyError, IndexError, ValueError, AttributeError) as e:
        raise UnsupportedFormatError(f"{where}: no OME-Zarr image as versions 0.4 and 0.5 have it ({e!r}); convert it anew") from e
    if not paths or len(set(axes)) < len(axes) or not set("yx") <= set(axes) <= _AXES:
        raise UnsupportedFormatError(f"{where}: an image with the axes {axes}; slides have y and x, and may have t, c and z")
    return Multiscale(axes, paths, scales, units)


def image_attributes(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the metadata lies: under ``ome`` since 0.5."""
    ome = attributes.get("ome")
    return ome if isinstance(ome, Mapping) else attributes


def _scale(entry: Mapping[str, Any], n: int) -> tuple[float, ...]:
    for transform in entry.get("coordinateTransformations", []):
        if transform["type"] == "scale":
            scale = tuple(float(v) for v in transform["scale"])
            if len(scale) != n or not all(math.isfinite(v) for v in scale):
                raise ValueError(f"a scale {scale} for {n} axes")
            return scale
    return (1.0,) * n


def _inside(path: str) -> str:
    """The path of an array, if it lies inside the group."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path:
        raise ValueError(f"a level at '{path}'")
    return path


def channels_of(attributes: Mapping[str, Any], count: int) -> tuple[Channel, ...]:
    """The channels by name and colour, where the file lists as many as there are; three without a word are red, green and blue."""
    omero = image_attributes(attributes).get("omero")
    stated = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(stated, list) or len(stated) != count or not all(isinstance(c, Mapping) for c in stated):
        if count == 3 and not stated:
            return tuple(Channel(name, colour) for name, colour in zip("rgb", _RGB_COLOURS, strict=True))
        return tuple(default_channel(i, count) for i in range(count))
    return tuple(_channel(c, i, count) for i, c in enumerate(stated))


def _channel(stated: Mapping[str, Any], index: int, count: int) -> Channel:
    plain = default_channel(index, count, str(stated.get("label", "")))
    text = str(stated.get("color", "")).lstrip("#")[:6]
    try:
        colour = (int(text[:2], 16), int(text[2:4], 16), int(text[4:6], 16))
    except ValueError:
        return plain
    return Channel(plain.name, colour)
