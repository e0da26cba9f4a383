"""The resolution that files state, through the reader that opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import wsikit as wk
from wsikit.errors import MissingResolutionError

PICTURE = np.full((300, 400, 3), 200, np.uint8)
CM, INCH, NO_UNIT = "CENTIMETER", "INCH", "NONE"


def aperio(path: Path, words: str, **options: Any) -> Path:
    description = f"Aperio Image Library v11.2.1\r\n400x300 (256x256) JPEG/RGB Q=90|{words}"
    tifffile.imwrite(path, PICTURE, tile=(256, 256), photometric="rgb", compression="jpeg", description=description, metadata=None, **options)
    return path


def plain(path: Path, x: float, y: float, unit: str, *, tiled: bool = True) -> Path:
    """Tiled TIFFs are OpenSlide's, the others are read by their strips."""
    tifffile.imwrite(path, PICTURE, photometric="rgb", metadata=None, resolution=(x, y), resolutionunit=unit, tile=(256, 256) if tiled else None)
    return path


def ome(path: Path, **sizes: Any) -> Path:
    tifffile.imwrite(path, PICTURE, photometric="rgb", ome=True, metadata={"axes": "YXS", **sizes})
    return path


def rewrite(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("words", "mpp", "source"),
    [
        ("AppMag = 20|MPP = 0.4990", 0.499, "file metadata"),
        ("AppMag = 20|MPP = 0,4990", 0.499, "file metadata"),
        ("AppMag = 40|MPP = 0.4990", 0.499, "file metadata"),
        ("AppMag = 40", 0.25, "objective (approximate)"),
        ("AppMag = 20", 0.5, "objective (approximate)"),
    ],
)
def test_aperio(words: str, mpp: float, source: str, tmp_path: Path) -> None:
    slide = wk.open_slide(aperio(tmp_path / "a.svs", words))
    assert slide.mpp == (mpp, mpp)
    assert slide.mpp_source == source
    assert slide.require_mpp() == (mpp, mpp)


@pytest.mark.parametrize("value", ["0", "-1", "1e308", "nan", "0.01", "250"])
def test_aperio_with_an_impossible_mpp_is_refused_although_its_objective_is_known(value: str, tmp_path: Path) -> None:
    slide = wk.open_slide(aperio(tmp_path / "a.svs", f"AppMag = 20|MPP = {value}"))
    assert slide.mpp is None
    with pytest.raises(MissingResolutionError, match=r"a\.svs: by its file metadata .*--mpp-override"):
        slide.raster(1.0)


def test_nothing_stated(tmp_path: Path) -> None:
    slide = wk.open_slide(aperio(tmp_path / "a.svs", "Filename = 17"))
    assert slide.mpp is None
    with pytest.raises(MissingResolutionError, match=r"states no resolution.*--mpp-override, or an mpp column in the CSV"):
        slide.read((0, 0, 9, 9), mpp=0.5)
    assert slide.read((0, 0, 9, 9)).shape == (9, 9, 3)
    assert wk.open_slide(slide.path, mpp=0.25).mpp == (0.25, 0.25)


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize(("per_unit", "unit", "mpp"), [(20_000, CM, 0.5), (50_800, INCH, 0.5), (40_000, CM, 0.25)])
def test_centimetres_and_inches(per_unit: float, unit: str, mpp: float, tiled: bool, tmp_path: Path) -> None:
    slide = wk.open_slide(plain(tmp_path / "a.tif", per_unit, per_unit, unit, tiled=tiled))
    assert slide.mpp == pytest.approx((mpp, mpp))
    assert slide.mpp_source == "tiff resolution"


@pytest.mark.parametrize("tiled", [True, False])
def test_axes_stay_apart(tiled: bool, tmp_path: Path) -> None:
    slide = wk.open_slide(plain(tmp_path / "a.tif", 20_000, 40_000, CM, tiled=tiled))
    assert slide.mpp == pytest.approx((0.5, 0.25))
    raster = slide.raster(1.0)
    assert raster.step == pytest.approx((2.0, 4.0))
    assert slide.read((0, 0, 400, 300), mpp=1.0).shape == (75, 200, 3)


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize(("per_unit", "unit"), [(72, INCH), (1, CM), (10**9, CM)])
def test_printers_resolutions_are_refused(per_unit: float, unit: str, tiled: bool, tmp_path: Path) -> None:
    slide = wk.open_slide(plain(tmp_path / "a.tif", per_unit, per_unit, unit, tiled=tiled))
    assert slide.mpp is None
    assert "tiff resolution" in slide.mpp_refusal


def test_a_resolution_without_unit_says_nothing(tmp_path: Path) -> None:
    slide = wk.open_slide(plain(tmp_path / "a.tif", 20_000, 20_000, NO_UNIT, tiled=False))
    assert slide.mpp is None
    assert "states no resolution" in slide.mpp_refusal


def test_a_resolution_of_nought_by_nought_is_refused(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.tif", 20_000, 20_000, CM, tiled=False)
    with tifffile.TiffFile(path) as tif:
        at = tif.pages[0].tags["XResolution"].valueoffset
    data = bytearray(path.read_bytes())
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    assert wk.open_slide(path).mpp is None


@pytest.mark.parametrize("kind", [3, 4, 11])
def test_a_resolution_of_another_type_is_no_crash(kind: int, tmp_path: Path) -> None:
    """SHORT, LONG and FLOAT where a RATIONAL belongs."""
    path = plain(tmp_path / "a.tif", 20_000, 20_000, CM, tiled=False)
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[0].tags["XResolution"]
    data = bytearray(path.read_bytes())
    data[tag.offset + 2 : tag.offset + 4] = kind.to_bytes(2, "little")
    path.write_bytes(data)
    slide = wk.open_slide(path)
    assert slide.mpp is None or slide.mpp[1] == pytest.approx(0.5)


@pytest.mark.parametrize(("unit", "factor"), [("µm", 1.0), ("nm", 1e3), ("mm", 1e-3), ("cm", 1e-4), ("m", 1e-6)])
def test_ome_units(unit: str, factor: float, tmp_path: Path) -> None:
    sizes = {"PhysicalSizeX": 0.25 * factor, "PhysicalSizeXUnit": unit, "PhysicalSizeY": 0.5 * factor, "PhysicalSizeYUnit": unit}
    slide = wk.open_slide(ome(tmp_path / "a.ome.tif", **sizes))
    assert slide.mpp == pytest.approx((0.25, 0.5))
    assert slide.mpp_source == "file metadata"


def test_ome_with_one_axis_takes_its_unit_too(tmp_path: Path) -> None:
    assert wk.open_slide(ome(tmp_path / "a.ome.tif", PhysicalSizeX=250.0, PhysicalSizeXUnit="nm")).mpp == pytest.approx((0.25, 0.25))


@pytest.mark.parametrize(("old", "new", "mpp"), [(b'X="0.25"', b'X="0,25"', 0.25), (b'X="0.25"', b'X="nan1"', None), (b'X="0.25"', b'X="-0.2"', None)])
def test_ome_numbers(old: bytes, new: bytes, mpp: float | None, tmp_path: Path) -> None:
    path = rewrite(ome(tmp_path / "a.ome.tif", PhysicalSizeX=0.25, PhysicalSizeY=0.25), old, new)
    assert wk.open_slide(path).mpp == ((mpp, 0.25) if mpp else None)


def test_ome_in_a_unit_that_is_no_length_is_refused(tmp_path: Path) -> None:
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "pixel"}
    assert wk.open_slide(ome(tmp_path / "a.ome.tif", **sizes)).mpp is None
