"""Images of several channels, fluorescence for the most part, as a picture that a person can look at. No H&E pipeline takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wsikit.geometry import Region, Size

_PALETTE = ((0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 0, 255), (255, 255, 0), (0, 255, 255), (255, 255, 255))
_DARK, _BRIGHT = 0.1, 99.9  # percentiles that are shown black and full
_FIELDS, _FIELD_PX = 5, 256  # a side: where they are measured
_RGB_NAMES = (("r", "g", "b"), ("red", "green", "blue"))


@dataclass(frozen=True)
class Channel:
    """One channel: what it is called and in which colour (red, green, blue; 0 to 255) it is shown."""

    name: str
    colour: tuple[int, int, int]


def default_channel(index: int, count: int, name: str = "") -> Channel:
    """A channel whose file gives no colour: white when it is the only one."""
    return Channel(name or f"channel {index}", _PALETTE[-1] if count == 1 else _PALETTE[index % len(_PALETTE)])


def is_rgb(channels: Sequence[Channel], dtype: np.dtype) -> bool:
    """Whether three channels are the red, green and blue of one picture, by their names."""
    return dtype == np.uint8 and tuple(c.name.strip().lower() for c in channels) in _RGB_NAMES


def why_not_he(channels: Sequence[Channel], dtype: np.dtype) -> str:
    """The reason that H&E pipelines get."""
    what = f"{len(channels)} channels" if len(channels) > 1 else "one grey channel"
    return f"{what} of {dtype} (multi-channel or fluorescence?); it is no brightfield H&E stain, which is 8-bit RGB"


def fields(size: Size) -> list[Region]:
    """Boxes spread over an image, always the same ones."""
    w, h = min(_FIELD_PX, size.w), min(_FIELD_PX, size.h)
    xs, ys = (sorted({int(v) for v in np.linspace(0, n - side, _FIELDS)}) for n, side in ((size.w, w), (size.h, h)))
    return [Region(x, y, w, h) for y in ys for x in xs]


def windows(read: Callable[[int, Region], np.ndarray], size: Size, count: int) -> list[tuple[float, float]]:
    """What is shown black and what full in each channel, by fields of its coarsest level, which ``read`` (channel, box) gives."""
    found = []
    for channel in range(count):
        values = np.concatenate([read(channel, box).ravel() for box in fields(size)])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, (_DARK, _BRIGHT)) if values.size else (0.0, 1.0)
        found.append((float(low), float(max(high, low + 1e-6 * max(1.0, abs(low))))))
    return found


def compose(planes: Sequence[np.ndarray], channels: Sequence[Channel], shown: Sequence[tuple[float, float]]) -> np.ndarray:
    """Channels (h, w) of any numbers, each from black to its colour, added up: uint8 (h, w, 3)."""
    out = np.zeros((*planes[0].shape, 3), np.float32)
    for plane, channel, (low, high) in zip(planes, channels, shown, strict=True):
        share = np.clip((np.nan_to_num(plane.astype(np.float32)) - np.float32(low)) / np.float32(high - low), 0, 1)
        out += share[..., None] * np.array(channel.colour, np.float32)
    return np.minimum(out, 255).round().astype(np.uint8)
