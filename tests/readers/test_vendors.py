"""Slides as scanners of several makers write them: read rightly through every reader that takes them, bounds, padding and gaps included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import wsikit as wk
from wsikit.errors import UnsupportedFormatError
from wsikit.geometry import Region
from wsikit.readers import candidates
from wsikit.testing.conformance import CHECKS
from wsikit.testing.vendors import write_hamamatsu_vms, write_philips, write_scn, write_ventana

MPP = 0.5
JPEG_ERROR = 3.0
AT = (1216, 1024)  # whole pixels of the third level: OpenSlide mixes four otherwise


def half(rgb: np.ndarray) -> np.ndarray:
    h, w = rgb.shape[0] // 2, rgb.shape[1] // 2
    return rgb[: 2 * h, : 2 * w].reshape(h, 2, w, 2, 3).mean((1, 3)).round().astype(np.uint8)


@pytest.fixture(scope="module")
def levels(picture: np.ndarray) -> list[np.ndarray]:
    """The picture, cut to 1024 × 768 px, and two smaller ones."""
    first = np.ascontiguousarray(picture[:768, :1024])
    return [first, half(first), half(half(first))]


WRITERS: dict[str, Callable[..., None]] = {
    "philips.tiff": write_philips,
    "leica.scn": partial(write_scn, at=AT, size=(3072, 2560)),
    "ventana.bif": write_ventana,
    "hamamatsu.vms": lambda path, levels, mpp: write_hamamatsu_vms(path, levels[0], mpp),
}


@pytest.fixture(scope="module")
def slide(levels: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One of `WRITERS`'s slides, written when first asked for."""
    folder = tmp_path_factory.mktemp("vendors")

    def make(name: str) -> Path:
        if not (folder / name).exists():
            WRITERS[name](folder / name, levels, MPP)
        return folder / name

    return make


@pytest.mark.parametrize("name", WRITERS)
def test_conformance(name: str, slide) -> None:
    found = [r.name for r in candidates(slide(name))]
    assert found == (["native", "openslide"] if name == "philips.tiff" else ["openslide"])
    for reader in found:
        for check in CHECKS:
            check(partial(wk.open_slide, slide(name), reader=reader))


@pytest.mark.parametrize("name", WRITERS)
def test_pixels_and_facts(name: str, slide, levels) -> None:
    with wk.open_slide(slide(name)) as s:
        assert s.facts.vendor == name.split(".")[0]
        assert s.mpp == pytest.approx((MPP, MPP), rel=1e-3)
        assert s.mpp_source == "file metadata"
        x, y = AT if name == "leica.scn" else (0, 0)
        h, w = levels[0].shape[:2]
        found = s.read((x, y, w, h)).astype(int)
        assert np.abs(found - levels[0]).mean() < JPEG_ERROR
        assert s.facts.objective == (None if name == "philips.tiff" else 20)


def test_bounds_of_a_scanned_area(slide, levels) -> None:
    """Around it is nothing, which is white."""
    h, w = levels[0].shape[:2]
    with wk.open_slide(slide("leica.scn")) as s:
        assert s.size == (3072, 2560)
        assert s.bounds == Region(*AT, w, h)
        assert (s.read((0, 0, AT[0], AT[1])) == 255).all()


@pytest.mark.parametrize("missing", [False, True])
def test_philips_tiles_are_openslides_pixels(missing: bool, levels, tmp_path: Path) -> None:
    """Also beyond the picture, where each level is padded, and where a tile is not there."""
    path = tmp_path / "a.tiff"
    write_philips(path, levels, MPP, missing=missing)
    with wk.open_slide(path) as ours, wk.open_slide(path, reader="openslide") as theirs:
        assert ours.reader == "native"
        assert ours.levels == theirs.levels
        for level in ours.levels:
            box = Region(0, 0, *level.size)
            assert np.array_equal(ours.read_level(level.index, box), theirs.read_level(level.index, box))
        assert missing == bool((ours.read((0, 0, 256, 256)) == 255).all())


def test_the_files_that_an_index_names_are_part_of_the_slide(slide) -> None:
    path = slide("hamamatsu.vms")
    before = wk.open_slide(path).digest
    picture = path.with_name("hamamatsu-img.jpg")
    data = picture.read_bytes()
    picture.write_bytes(data[:-2] + b"\0" + data[-2:])
    assert wk.open_slide(path).digest != before
    picture.write_bytes(data)
    assert wk.open_slide(path).digest == before


@pytest.mark.parametrize("name", [n for n in WRITERS if n != "hamamatsu.vms"])
def test_a_vendors_tiff_is_not_read_as_a_plain_one(name: str, slide) -> None:
    """Its first image may be a label or a macro, its tiles may overlap."""
    with pytest.raises(UnsupportedFormatError, match="which OpenSlide reads"):
        wk.open_slide(slide(name), reader="tiff")
