"""OpenSlide's interface on our readers: the same pixels and facts as OpenSlide's own, on formats that it does not know too."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Iterator
from ctypes import ArgumentError
from pathlib import Path
from types import ModuleType

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

import wsikit as wk
import wsikit.openslide_compat as compat

PICTURE = np.random.default_rng(3).integers(60, 250, (13, 17, 3), dtype=np.uint8).repeat(60, 0).repeat(60, 1)
H, W = PICTURE.shape[:2]


@pytest.fixture
def deepzoom(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """OpenSlide's deepzoom, importing ours where it asks for openslide."""
    where = importlib.util.find_spec("openslide.deepzoom")
    assert where is not None
    spec = importlib.util.spec_from_file_location("deepzoom_on_wsikit", where.origin)
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.setitem(sys.modules, "openslide", compat)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


@pytest.fixture
def ome(tmp_path: Path) -> Path:
    """An OME-TIFF of three levels, whose pyramid and mpp OpenSlide does not see."""
    path = tmp_path / "a.ome.tif"
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(PICTURE, subifds=2, photometric="rgb", tile=(256, 256), metadata={"axes": "YXS", **sizes})
        tif.write(PICTURE[::2, ::2], subfiletype=1, photometric="rgb", tile=(256, 256))
        tif.write(PICTURE[::4, ::4], subfiletype=1, photometric="rgb", tile=(256, 256))
    return path


def test_it_is_openslide_where_openslide_knows_the_file(phantom) -> None:
    with openslide.OpenSlide(phantom.path) as theirs, compat.OpenSlide(phantom.path) as ours:
        assert ours.dimensions == theirs.dimensions
        assert ours.level_dimensions == theirs.level_dimensions
        assert ours.level_downsamples == pytest.approx(theirs.level_downsamples)
        assert compat.OpenSlide.detect_format(phantom.path) == openslide.OpenSlide.detect_format(phantom.path)
        for name in ("vendor", "mpp-x", "mpp-y", "level-count", "level[1].width", "level[1].downsample"):
            a, b = ours.properties[f"openslide.{name}"], theirs.properties[f"openslide.{name}"]
            assert a == b or float(a) == pytest.approx(float(b)), name
        for downsample in (0.5, 1, 1.99, 2, 3.9, 4, 100):
            assert ours.get_best_level_for_downsample(downsample) == theirs.get_best_level_for_downsample(downsample)
        for location, level, size in (((0, 0), 0, (300, 200)), ((512, 256), 1, (300, 200)), ((-64, -64), 0, (100, 100)), ((2500, 2000), 0, (200, 200))):
            a, b = (np.asarray(s.read_region(location, level, size)).astype(int) for s in (ours, theirs))
            assert np.array_equal(a[..., 3], b[..., 3])
            assert np.array_equal(a[a[..., 3] > 0], b[a[..., 3] > 0])
        a, b = (np.asarray(s.get_thumbnail((300, 300))).astype(int) for s in (ours, theirs))
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1


def test_it_reads_what_openslide_does_not(ome: Path) -> None:
    with compat.open_slide(ome) as slide:
        assert isinstance(slide, compat.OpenSlide)
        assert slide.level_dimensions == ((W, H), (W // 2, H // 2), (W // 4, H // 4))
        assert slide.properties[compat.PROPERTY_NAME_MPP_X] == "0.25"
        assert np.array_equal(np.asarray(slide.read_region((0, 0), 0, (W, H)))[..., :3], PICTURE)
        assert np.array_equal(np.asarray(slide.read_region((40, 80), 2, (90, 70)))[..., :3], PICTURE[::4, ::4][20:90, 10:100])


def test_deepzoom_on_top(ome: Path, deepzoom: ModuleType) -> None:
    with compat.open_slide(ome) as slide:
        pyramid = deepzoom.DeepZoomGenerator(slide, tile_size=128, overlap=1)
        top = pyramid.level_count - 1
        assert pyramid.level_dimensions[top] == (W, H)
        found = np.zeros((H, W, 3), np.uint8)
        columns, rows = pyramid.level_tiles[top]
        for column in range(columns):
            for row in range(rows):
                tile = np.asarray(pyramid.get_tile(top, (column, row)))
                x, y = max(0, column * 128 - 1), max(0, row * 128 - 1)
                found[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        assert np.array_equal(found, PICTURE)
        assert pyramid.get_dzi("png").startswith("<Image")


def test_labels_are_read_only_when_asked_for(made_label: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = openslide.lowlevel.read_associated_image
    monkeypatch.setattr(openslide.lowlevel, "read_associated_image", lambda slide, name: read.append(name) or whole(slide, name))
    with compat.OpenSlide(made_label) as slide:
        assert "label" in slide.associated_images
        assert sorted(slide.associated_images) == ["label", "thumbnail"]
        assert len(slide.associated_images) == 2
        slide.read_region((0, 0), 0, (100, 100))
        assert "Jane" not in repr(dict(slide.properties))
        assert read == []
        assert slide.associated_images["label"].size == (40, 30)
        assert read == ["label"]
        with pytest.raises(KeyError):
            slide.associated_images["macro"]


@pytest.fixture
def made_label(tmp_path: Path) -> Path:
    """An SVS with a label."""
    path = tmp_path / "a.svs"
    tiles = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(PICTURE, description="Aperio Image Library v1\r\n1020x780 (256x256)|AppMag = 20|MPP = 0.5|Patient = Jane Roe", **tiles)
        tif.write(PICTURE[:60, :80], description="Aperio thumbnail", photometric="rgb", compression="jpeg", rowsperstrip=16, metadata=None)
        tif.write(PICTURE[:30, :40], description="Aperio\r\nlabel 40x30", photometric="rgb", compression="lzw", metadata=None, subfiletype=1, rowsperstrip=30)
    return path


def test_errors_stick_and_closed_is_closed(ome: Path, tmp_path: Path) -> None:
    slide = compat.OpenSlide(ome)
    with pytest.raises(compat.OpenSlideError):
        slide.read_region((0, 0), 0, (-1, 5))
    slide.close()
    for use in (lambda: slide.dimensions, lambda: slide.properties["openslide.vendor"], slide.close):
        with pytest.raises(ArgumentError):
            use()
    data = bytearray(ome.read_bytes())
    with tifffile.TiffFile(ome) as tif:
        at = tif.pages[0].dataoffsets[0]
        entry = tif.pages[0].tags["TileByteCounts"].valueoffset
    del at
    data[entry : entry + 4] = (2**28).to_bytes(4, "little")
    (tmp_path / "b.ome.tif").write_bytes(data)
    slide = compat.OpenSlide(tmp_path / "b.ome.tif")
    with pytest.raises(compat.OpenSlideError, match=r"b\.ome\.tif"):
        slide.read_region((0, 0), 0, (10, 10))
    with pytest.raises(compat.OpenSlideError):
        _ = slide.dimensions


def test_what_is_no_slide(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a report")
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    for name in ("a.txt", "missing", "a.png"):
        with pytest.raises(compat.OpenSlideUnsupportedFormatError):
            compat.OpenSlide(tmp_path / name)
        assert compat.OpenSlide.detect_format(tmp_path / name) is None
    for nothing in (None, 3):
        with pytest.raises(ArgumentError):
            compat.OpenSlide(nothing)
    with compat.open_slide(str(tmp_path / "a.png").encode()) as picture:
        assert isinstance(picture, compat.ImageSlide)
        assert picture.dimensions == (W, H)
        assert np.array_equal(np.asarray(picture.read_region((10, 20), 0, (50, 40)))[..., :3], PICTURE[20:60, 10:60])
        assert np.asarray(picture.read_region((-5, -5), 0, (10, 10)))[..., 3].sum() == 25 * 255


def test_it_travels(ome: Path) -> None:
    slide = pickle.loads(pickle.dumps(compat.OpenSlide(ome)))
    assert slide.dimensions == (W, H)
    assert wk.open_slide(ome).size == (W, H)
