"""Every reader on every format that it accepts, and on the public slide."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from wsikit.geometry import Level, Size
from wsikit.readers import Facts, Reader, candidates, registry
from wsikit.readers.array import ArrayReader
from wsikit.slide import open_slide
from wsikit.testing import conformance
from wsikit.testing.conformance import CHECKS, Open, check_pixels, check_reader, check_refusals


def openers(path: Path) -> list[Open]:
    return [partial(open_slide, path, reader=reader.name) for reader in candidates(path)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_format(check: Callable[[Open], None], format_name: str, made) -> None:
    for open_ in openers(made(format_name).path):
        check(open_)


def test_pixels(format_name: str, made) -> None:
    slide = made(format_name)
    assert openers(slide.path)
    for open_ in openers(slide.path):
        check_pixels(open_, slide.truth, slide.error)


def test_mpp(format_name: str, made) -> None:
    """The reader that is chosen knows it; the others know the same or nothing."""
    slide = made(format_name)
    expected = pytest.approx((slide.mpp, slide.mpp), rel=1e-5) if slide.mpp else None
    first, *others = [open_().mpp for open_ in openers(slide.path)]
    assert first == expected
    for found in others:
        assert found is None or found == expected


def test_every_reader_has_a_format(format_names, made) -> None:
    """A new reader needs a format in conftest.py that it accepts, or it would not be checked."""
    assert {reader.name for name in format_names for reader in candidates(made(name).path)} == set(registry())


@pytest.mark.parametrize("name", sorted(registry()))
def test_what_is_no_slide_is_refused(name: str) -> None:
    check_refusals(registry()[name])


def test_public_slide(cmu: Path) -> None:
    check_reader(partial(open_slide, cmu, reader="openslide"))
    check_reader(partial(open_slide, cmu))


class Shifted(ArrayReader):
    """Coarser levels lie one pixel off."""

    name = "broken"

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        if level == 0:
            return super().read(0, x, y, w, h)
        size = self.facts.levels[level].size
        return np.roll(super().read(level, 0, 0, *size), 1, axis=1)[y : y + h, x : x + w].copy()


class Mixed(ArrayReader):
    """A pixel depends on the size of the request."""

    name = "broken"

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        return super().read(level, x, y, w, h) ^ np.uint8(w % 2)


class Lent(ArrayReader):
    """Answers are the reader's own memory."""

    name = "broken"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._levels = [super(Lent, self).read(v.index, 0, 0, *v.size).copy() for v in super().facts.levels]

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        return self._levels[level][y : y + h, x : x + w]


class Rounded(ArrayReader):
    """Downsamples by powers of two whatever the sizes are."""

    name = "broken"

    @property
    def facts(self) -> Facts:
        full = super().facts.levels[0]
        return Facts(vendor="array", levels=(full, Level(1, Size(full.size.w // 2 - 9, full.size.h // 2), (2.0, 2.0))))


class Unordered(ArrayReader):
    """The coarsest level comes first but one."""

    name = "broken"

    @property
    def facts(self) -> Facts:
        first, *rest = super().facts.levels
        rest = [*rest, Level(2, Size(first.size.w // 4, first.size.h // 4), (4.0, 4.0))]
        return Facts(vendor="array", levels=(first, *(Level(i, v.size, v.downsample) for i, v in enumerate(reversed(rest), 1))))


class Unsafe(ArrayReader):
    """Close leaves the reader class unusable."""

    name = "broken"
    closed = 0

    def close(self) -> None:
        type(self).closed += 1

    def read(self, level: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        return super().read(level, x, y, w, h) ^ np.uint8(type(self).closed & 1)


class Restless(ArrayReader):
    """Half of its files are new each time."""

    name = "broken"
    calls = 0

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        cls.calls += 1
        return [path] if cls.calls % 2 else [path, path]


BROKEN = {
    Shifted: "check_pyramid",
    Mixed: "check_crops",
    Lent: "check_crops",
    Rounded: "check_levels",
    Unordered: "check_levels",
    Unsafe: "check_close",
    Restless: "check_digest",
}


@pytest.mark.parametrize("reader", BROKEN, ids=lambda reader: reader.__name__)
def test_a_broken_reader_is_caught(reader: type[Reader], made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry(), "broken", reader)
    with pytest.raises(AssertionError):
        getattr(conformance, BROKEN[reader])(partial(open_slide, made("array.npy").path, reader="broken", trusted=True))


def test_a_reader_that_guesses_is_caught(tmp_path: Path) -> None:
    class Guess(ArrayReader):
        def __init__(self, path: Path) -> None:
            self._image = np.zeros((4, 4, 3), np.uint8)

    with pytest.raises(AssertionError, match="no slide"):
        check_refusals(Guess)


def test_wrong_pixels_are_caught(made) -> None:
    slide = made("array.npy")
    with pytest.raises(AssertionError, match="grey levels"):
        check_pixels(partial(open_slide, slide.path), np.roll(slide.truth, 1, 0))
