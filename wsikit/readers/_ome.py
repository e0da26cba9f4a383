"""OME-XML: resolution, channels and focal planes as OME-TIFF states them."""

from __future__ import annotations

import xml.etree.ElementTree as ET  # entities, its one danger, are refused below
from pathlib import Path

from wsikit.errors import DamagedSlideError
from wsikit.readers._channels import Channel, default_channel
from wsikit.readers._said import said
from wsikit.resolution import Clue, parse_number

UNIT_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "in": 25400.0}
_MOST_XML = 64 * 1024**2


def pixels_of(xml: str, path: Path) -> ET.Element | None:
    """The ``Pixels`` element of the first image; None where there is none.

    Raises
    ------
    DamagedSlideError
        The XML cannot be parsed, or declares entities.
    """
    if len(xml) > _MOST_XML or "<!ENTITY" in xml or "<!DOCTYPE" in xml:
        raise DamagedSlideError(f"{path}: the OME-XML declares entities, or is longer than 64 MiB, as no OME-TIFF's is")
    try:
        return next((e for e in ET.fromstring(xml).iter() if e.tag.endswith("}Pixels")), None)  # noqa: S314
    except ET.ParseError as e:
        raise DamagedSlideError(f"{path}: the OME-XML cannot be parsed ({said(e)})") from e


def ome_clues(pixels: ET.Element) -> tuple[Clue, ...]:
    """The physical size; 0, which is refused, in a unit that is no length (``pixel``, ``reference frame``)."""
    if "PhysicalSizeX" not in pixels.attrib:
        return ()
    values = []
    for axis in "XY":
        stated = axis if f"PhysicalSize{axis}" in pixels.attrib else "X"
        size = parse_number(pixels.get(f"PhysicalSize{stated}"))
        values.append((size or 0.0) * UNIT_UM.get(pixels.get(f"PhysicalSize{stated}Unit", "µm"), 0.0))
    return (Clue("file metadata", values[0], values[1]),)


def ome_channels(pixels: ET.Element, count: int) -> tuple[Channel, ...]:
    """The channels by name and colour, where the file lists as many as there are."""
    stated = [e for e in pixels if e.tag.endswith("}Channel")]
    if len(stated) != count:
        return tuple(default_channel(i, count) for i in range(count))
    return tuple(_channel(e, i, count) for i, e in enumerate(stated))


def _channel(e: ET.Element, index: int, count: int) -> Channel:
    plain = default_channel(index, count, e.get("Name", ""))
    try:
        rgba = int(e.get("Color", "-1")) & 0xFFFFFFFF  # red, green, blue, alpha in a signed number; -1, white, stands for nothing said
    except ValueError:
        return plain
    colour = (rgba >> 24 & 255, rgba >> 16 & 255, rgba >> 8 & 255)
    return plain if colour in ((255, 255, 255), (0, 0, 0)) else Channel(plain.name, colour)
