"""Several channels and focal planes: readable as a picture, by name, and no H&E slide."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import wsikit as wk
from wsikit.errors import UnsupportedFormatError, UsageError
from wsikit.survey import survey
from wsikit.testing.conformance import check_close, check_crops, check_pickle, check_reader, check_threads

H, W = 500, 610
MPP = 0.5


def ramp(dtype: Any = np.uint8, top: float = 200) -> np.ndarray:
    """From 0 at the left to ``top`` at the right: (H, W)."""
    return np.tile(np.linspace(0, top, W), (H, 1)).astype(dtype)


def write(path: Path, pixels: np.ndarray, axes: str, levels: int = 1, **metadata: Any) -> Path:
    """OME-TIFF, minisblack, with its pyramid in SubIFDs."""
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (128, 128), "compression": "deflate"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        sizes = {"PhysicalSizeX": MPP, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": MPP, "PhysicalSizeYUnit": "µm"}
        tif.write(pixels, subifds=levels - 1, metadata={"axes": axes, **sizes, **metadata}, **options)
        for i in range(1, levels):
            tif.write(pixels[..., :: 2**i, :: 2**i], subfiletype=1, **options)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.float32])
def test_channels_are_shown_in_their_colours(dtype: Any, tmp_path: Path) -> None:
    """Red rises to the right, green to the left; each from black to full whatever the numbers are."""
    top = {np.int8: 100, np.uint16: 4000, np.float32: 0.01}.get(dtype, 200)
    pixels = np.stack([ramp(dtype, top), ramp(dtype, top)[:, ::-1]])
    colours = {"Name": ["A", "B"], "Color": [-16776961, 16711935]}  # FF0000FF, 00FF00FF
    path = write(tmp_path / "a.ome.tif", pixels, "CYX", levels=2, Channel=colours)
    with wk.open_slide(path) as slide:
        assert slide.mpp == (MPP, MPP)
        assert [v.size for v in slide.levels] == [(W, H), (W // 2, H // 2)]
        for level in slide.levels:
            found = slide.read_level(level.index, wk.Region(0, 0, *level.size)).astype(float)
            share = np.linspace(0, 255, level.size.w)
            assert np.abs(found[..., 0] - share).max() < 6
            assert np.abs(found[..., 1] - share[::-1]).max() < 6
            assert (found[..., 2] == 0).all()


@pytest.mark.parametrize("shape", [(3, H, W), (5, H, W), (H, W)])
def test_readable_but_refused_for_he(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 99, shape, dtype=np.uint8)
    with wk.open_slide(write(tmp_path / "a.ome.tif", pixels, "CYX"[-len(shape) :])) as slide:
        assert slide.read((0, 0, W, H)).shape == (H, W, 3)
        assert "no brightfield H&E stain" in slide.facts.not_he
        with pytest.raises(UnsupportedFormatError, match=r"a\.ome\.tif: .*(multi-channel or fluorescence\?)"):
            survey(slide)
    run = wk.score([tmp_path / "a.ome.tif"], tmp_path / "run", pipelines=["sts-subtype"])
    assert "multi-channel or fluorescence" in run.failed["a"]


def test_three_channels_called_red_green_and_blue_are_a_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, H, W), dtype=np.uint8)
    with wk.open_slide(write(tmp_path / "a.ome.tif", pixels, "CYX", Channel={"Name": ["Red", "Green", "Blue"]})) as slide:
        assert slide.facts.not_he == ""
        assert np.array_equal(slide.read((0, 0, W, H)), np.moveaxis(pixels, 0, -1))


def test_channels_in_the_samples_of_one_page(tmp_path: Path) -> None:
    pixels = np.stack([ramp(), ramp()[:, ::-1]])
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="separate", tile=(128, 128), metadata=None)
    with wk.open_slide(tmp_path / "a.tif") as slide:
        found = slide.read((0, 0, W, H)).astype(float)
        assert "2 channels" in slide.facts.not_he
        assert np.abs(found[..., 2] - np.linspace(0, 255, W)).max() < 6
        assert np.abs(found[..., 1] - np.linspace(255, 0, W)).max() < 6


@pytest.mark.parametrize("axes", ["ZYXS", "CZYX", "ZCYX"])
def test_a_focal_plane_is_a_named_choice(axes: str, tmp_path: Path) -> None:
    """Plane z holds 40 (z + 1) everywhere; channels a ramp, of which plane z has z + 1 steps."""
    planes = 5
    if axes == "ZYXS":
        pixels = np.broadcast_to((40 * (np.arange(planes) + 1)).astype(np.uint8)[:, None, None, None], (planes, H, W, 3))
        path = tmp_path / "a.ome.tif"
        sizes = {"PhysicalSizeX": MPP, "PhysicalSizeY": MPP}
        tifffile.imwrite(path, pixels, photometric="rgb", ome=True, tile=(128, 128), metadata={"axes": axes, **sizes})
    else:
        stack = np.stack([(ramp() > 100) * np.uint8(z + 1) + (np.arange(W) % (z + 2) == 0) for z in range(planes)]).astype(np.uint8)
        pixels = np.stack([stack, stack * 0], axes.index("C"))
        path = write(tmp_path / "a.ome.tif", pixels, axes)
    with wk.open_slide(path) as slide:
        assert slide.facts.focal_planes == ("z0", "z1", "z2", "z3", "z4")
        assert slide.focal_plane == "z2"
        middle = slide.read((0, 0, W, H))
        chosen = wk.open_slide(path, focal_plane="z2")
        assert np.array_equal(chosen.read((0, 0, W, H)), middle)
    seen = {wk.open_slide(path, focal_plane=f"z{z}").read((0, 0, W, H)).tobytes() for z in range(planes)}
    assert len(seen) == planes
    if axes == "ZYXS":
        assert (wk.open_slide(path, focal_plane="z4").read((0, 0, 9, 9)) == 200).all()
    with pytest.raises(UsageError, match=r"no focal plane 'z5'; it has z0, z1, z2, z3, z4"):
        wk.open_slide(path, focal_plane="z5")
    for check in (check_crops, check_pickle, check_threads, check_close):
        check(partial(wk.open_slide, path, focal_plane="z1"))


def test_a_slide_with_one_plane_has_no_other(phantom: Any) -> None:
    with pytest.raises(UsageError, match="no focal plane 'z1'; it has one"):
        wk.open_slide(phantom.path, focal_plane="z1")


def test_time_series_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", np.zeros((4, H, W), np.uint8), "TYX")
    with pytest.raises(UnsupportedFormatError, match="not a brightfield RGB image but TYX"):
        wk.open_slide(path)


def test_a_channel_in_another_file_is_never_followed(tmp_path: Path) -> None:
    """The names of other files come from the file's own text."""
    pixels = np.random.default_rng(0).integers(0, 255, (2, H, W), dtype=np.uint8)
    path = write(tmp_path / "a.ome.tif", pixels, "CYX")
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
    here = '<TiffData IFD="0" PlaneCount="2"/>'
    assert here in xml
    there = '<TiffData FirstC="0" IFD="0"/><TiffData FirstC="1" IFD="0"><UUID FileName="other.tif">urn:uuid:0</UUID></TiffData>'
    tifffile.imwrite(tmp_path / "other.tif", pixels[1])
    tifffile.imwrite(tmp_path / "b.ome.tif", pixels[0], description=xml.replace(here, there).encode(), metadata=None, photometric="minisblack")
    with pytest.raises(UnsupportedFormatError, match=r"b\.ome\.tif: .*that are not in the file"):
        wk.open_slide(tmp_path / "b.ome.tif")


REAL = [("multi-channel-z-series.ome.tif", (439, 167), "3 channels of int8"), ("pathml-small_vectra.qptiff", (1920, 1440), "3 channels of uint8")]


@pytest.mark.parametrize(("name", "size", "what"), REAL)
def test_real_files(name: str, size: tuple[int, int], what: str, data: Path) -> None:
    path = data / "slides" / name
    check_reader(partial(wk.open_slide, path))
    with wk.open_slide(path, mpp=0.5) as slide:
        assert slide.size == size
        assert what in slide.facts.not_he
        assert slide.thumbnail(400).std() > 3
        with pytest.raises(UnsupportedFormatError, match="no brightfield H&E stain"):
            survey(slide)


def test_a_preview_is_no_slide(tmp_path: Path) -> None:
    """Olympus VSI: the TIFF that it begins with is a small picture, and would pass as the slide."""
    tifffile.imwrite(tmp_path / "a.vsi", np.full((300, 400, 3), 200, np.uint8), photometric="rgb", metadata=None)
    with pytest.raises(UnsupportedFormatError, match=r"a\.vsi: .*\.ets files.*convert it to OME-TIFF"):
        wk.open_slide(tmp_path / "a.vsi")


def test_isyntax_is_named_and_not_taken_for_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.isyntax").write_text('<DataObject ObjectType="DPUfsImport">' + " " * 600)
    with pytest.raises(UnsupportedFormatError, match=r"a\.isyntax: a Philips iSyntax.*convert it to OME-TIFF"):
        wk.open_slide(tmp_path / "a.isyntax", trusted=True)


def test_fluorescence_of_a_brightfield_scanner(data: Path) -> None:
    with wk.open_slide(data / "slides" / "hamamatsu-fluo-DAPI.ndpi") as slide:
        assert "fluorescence" in slide.facts.not_he
        with pytest.raises(UnsupportedFormatError, match="its scanner says fluorescence"):
            survey(slide)
