"""A slide's pixels are where they belong at every resolution, from every process and thread, and after an error."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms

import wsikit as wk
from wsikit.errors import DamagedSlideError, RegionError, ResolutionMismatchError, SlideNotFoundError, UnsupportedFormatError, UsageError
from wsikit.geometry import Region
from wsikit.slide import Slide

W, H, MPP = 1237, 971, 0.5


def ramp(width: int = W, height: int = H) -> np.ndarray:
    """Red says how far right, green how far down (0 … 250), blue is even."""
    rgb = np.full((height, width, 3), 90, np.uint8)
    rgb[..., 0] = np.rint((np.arange(width) + 0.5) * 250 / width)
    rgb[..., 1] = np.rint((np.arange(height)[:, None] + 0.5) * 250 / height)
    return rgb


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    """The ramp as a lossless OME-TIFF with a level whose downsamples are 4.003 and 4.012."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.ome.tif"
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(ramp(), subifds=1, metadata={"axes": "YXS", "PhysicalSizeX": MPP, "PhysicalSizeY": MPP}, **options)
        tif.write(ramp(W // 4, H // 4), subfiletype=1, **options)
    return wk.open_slide(path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, W - 60), st.integers(0, H - 60), st.integers(20, 300), st.floats(0.5, 6.0))
def test_pixels_are_where_they_belong(slide: Slide, x: int, y: int, side: int, mpp: float) -> None:
    region = Region(x, y, min(side, W - x), min(side, H - y))
    raster = slide.raster(mpp)
    dx, dy = raster.downsample
    found = slide.read(region, mpp=mpp).astype(float)
    h, w = found.shape[:2]
    assert abs(w - region.w / dx) <= 1
    assert abs(h - region.h / dy) <= 1
    i, j = round(region.x / dx) + np.arange(w), round(region.y / dy) + np.arange(h)
    right, down = (i + 0.5) * dx, (j + 0.5) * dy
    inside_x, inside_y = (i + 1) * dx <= W - 4, (j + 1) * dy <= H - 4
    inside = np.ix_(inside_y, inside_x)
    rounded = 0.5 + 0.5 + 1 / 32 + 0.01  # when the ramp was made, in two passes of resampling, and its positions
    assert np.abs(found[..., 0] - right * 250 / W)[inside].max(initial=0) <= rounded
    assert np.abs(found[..., 1] - (down * 250 / H)[:, None])[inside].max(initial=0) <= rounded
    assert (found[..., 2][inside] == 90).all()
    assert abs(i[0] * dx - region.x) <= dx / 2 + 1e-6


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 6.0), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_neighbours_have_no_seam(slide: Slide, mpp: float, x: int, left: int, right: int) -> None:
    raster = slide.raster(mpp)
    whole = slide.read_raster(raster, x, 3, left + right, 9)
    parts = [slide.read_raster(raster, x, 3, left, 9), slide.read_raster(raster, x + left, 3, right, 9)]
    assert np.array_equal(np.concatenate(parts, 1), whole)


def test_without_mpp_a_region_is_level_0(slide: Slide) -> None:
    assert np.array_equal(slide.read((11, 13, 40, 30)), ramp()[13:43, 11:51])
    assert np.array_equal(slide.read(Region(11, 13, 40, 30), mpp=MPP), ramp()[13:43, 11:51])


def test_beyond_the_slide_is_white_at_every_resolution(slide: Slide) -> None:
    assert (slide.read((W + 40, 0, 50, 50), mpp=2.0) == 255).all()
    edge = slide.read((-40, 100, 80, 40), mpp=1.0)
    assert (edge[:, :20] == 255).all()
    assert (edge[:, 20:, 2] == 90).all()


def test_finer_than_the_slide_is_refused(slide: Slide) -> None:
    with pytest.raises(ResolutionMismatchError):
        slide.read((0, 0, 50, 50), mpp=0.4)
    assert slide.read((0, 0, 50, 50), mpp=0.46).shape == (54, 54, 3)


def test_low_power_does_not_depend_on_the_strips(slide: Slide) -> None:
    raster = slide.low_power(200)
    assert raster.downsample == pytest.approx((8, 8), rel=0.01)
    whole = slide.read_low_power(raster)
    assert whole.shape == (raster.size.h, raster.size.w, 3)
    assert np.array_equal(slide.read_low_power(raster, strip_px=1), whole)
    assert np.array_equal(slide.read_low_power(raster, strip_px=5000), whole)


@pytest.mark.parametrize("most", [1, 50, 300, 1237, 5000])
def test_thumbnails_fit(slide: Slide, most: int) -> None:
    found = slide.thumbnail(most)
    longer = max(found.shape[:2])
    assert most / 2 < longer <= most or (most >= W and found.shape == (H, W, 3))


def test_too_much_at_once_is_refused(slide: Slide) -> None:
    with pytest.raises(RegionError, match="at once"):
        slide.read((0, 0, 40_000, 40_000))
    with pytest.raises(RegionError, match="no level 7; levels are 0 to 1"):
        slide.read_level(7, Region(0, 0, 1, 1))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("most", [0, -5])
def test_a_thumbnail_of_nothing_is_refused(slide: Slide, most: int) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        slide.thumbnail(most)


@pytest.mark.parametrize("mpp", [None, 0.5, 2.0])
@pytest.mark.parametrize("region", [(5, 5, 0, 9), (5, 5, 9, 0), (5, 5, -9, 9)])
def test_a_region_without_pixels_is_refused(slide: Slide, region: tuple[int, int, int, int], mpp: float | None) -> None:
    with pytest.raises(RegionError, match="holds no pixel"):
        slide.read(region, mpp=mpp)


def test_the_override_travels(slide: Slide) -> None:
    other = pickle.loads(pickle.dumps(Slide(slide.path, mpp=0.25, mpp_source="csv", reader="tiff")))
    assert (other.mpp, other.mpp_source, other.reader) == ((0.25, 0.25), "csv", "tiff")
    assert repr(other) == "<Slide ramp.ome.tif: 1237 × 971 px, 0.25 × 0.25 µm/px, tiff>"


def _read_in_child(slide: Slide, handle: int, answer: Any) -> None:
    answer.send((slide.read((500, 400, 64, 64)), id(slide._handle().reader) == handle))


def test_a_forked_child_opens_the_file_itself(slide: Slide) -> None:
    """With its parent's handle it would share the position in the file."""
    expected = slide.read((500, 400, 64, 64))
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_read_in_child, args=(slide, id(slide._handle().reader), theirs))
    child.start()
    try:
        assert ours.poll(30)
        pixels, shared = ours.recv()
    finally:
        child.join(30)
    assert np.array_equal(pixels, expected)
    assert not shared


@pytest.mark.parametrize("reader", ["openslide", "native", "tiff"])
def test_one_damaged_tile_does_not_spoil_the_others(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(), tile=(256, 256), photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        at, size = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    whole = wk.open_slide(path, reader=reader).read((300, 300, 64, 64))
    data = bytearray(path.read_bytes())
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    with wk.open_slide(path, reader=reader) as slide:
        for _ in range(2):
            with pytest.raises(DamagedSlideError, match=r"a\.tif"):
                slide.read((0, 0, 64, 64))
            assert np.array_equal(slide.read((300, 300, 64, 64)), whole)


def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(SlideNotFoundError, match=r"gone\.svs: no such file"):
        wk.open_slide(tmp_path / "gone.svs")
    with pytest.raises(UnsupportedFormatError, match="a folder that is not one slide"):
        wk.open_slide(tmp_path)
    np.save(tmp_path / "a.npy", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UsageError, match=r"no reader is called 'magic'; there are: .*array.*openslide"):
        wk.open_slide(tmp_path / "a.npy", reader="magic")


def test_close_lets_go_in_every_thread(phantom) -> None:
    """Also of a thread that is still there, and reading goes on where it is wanted."""
    slide = wk.open_slide(phantom.path)
    box = wk.Region(0, 0, 64, 64)
    whole, go, stop = slide.read_level(0, box), threading.Event(), threading.Event()
    found = []

    def other() -> None:
        slide.read_level(0, box)
        go.set()
        stop.wait(10)
        found.append(slide.read_level(0, box))

    thread = threading.Thread(target=other)
    thread.start()
    go.wait(10)
    handles = list(slide._handles)
    assert len(handles) == 2
    slide.close()
    assert all(h.closed for h in handles)
    assert not slide._handles
    stop.set()
    thread.join()
    assert np.array_equal(found[0], whole)


def test_closing_while_others_read_is_no_error(phantom) -> None:
    slide = wk.open_slide(phantom.path)
    boxes = [wk.Region(x, y, 256, 256) for x in range(0, 1024, 256) for y in range(0, 1024, 256)]
    truth = [slide.read_level(0, b) for b in boxes]
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(slide.read_level, 0, b) for b in boxes * 4]
        for _ in range(20):
            slide.close()
        for future, expected in zip(futures, truth * 4, strict=True):
            assert np.array_equal(future.result(), expected)


def test_handles_of_threads_that_ended_are_let_go(phantom) -> None:
    slide = wk.open_slide(phantom.path)
    for _ in range(5):
        thread = threading.Thread(target=slide.read_level, args=(0, wk.Region(0, 0, 8, 8)))
        thread.start()
        thread.join()
    gc.collect()
    assert len(slide._handles) == 1


def test_an_objective_that_contradicts_the_mpp_is_a_warning(tmp_path) -> None:
    description = "Aperio Image Library v11\r\n400x300 (256x256) JPEG/RGB Q=90|AppMag = 40|MPP = 0.5"
    tifffile.imwrite(tmp_path / "a.svs", np.full((300, 400, 3), 200, np.uint8), tile=(256, 256), photometric="rgb", compression="jpeg",
                     description=description, metadata=None)  # fmt: skip
    for reader in ("native", "openslide", "tiff"):
        slide = wk.open_slide(tmp_path / "a.svs", reader=reader)
        assert slide.mpp == (0.5, 0.5)
        assert slide.warnings == ("an objective of 40x makes about 0.25 µm/px, the slide has 0.5 (file metadata): check which is right",)
        assert wk.open_slide(tmp_path / "a.svs", mpp=0.25, reader=reader).warnings == ()


def test_a_colour_profile_is_applied_when_asked_for(tmp_path) -> None:
    """Red and blue trade places in this profile's colours; Pillow is the oracle."""
    rgb = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    at = [profile.find(tag, 128) for tag in (b"rXYZ", b"bXYZ")]
    swapped = bytearray(profile)
    swapped[at[0] + 4 : at[0] + 8], swapped[at[1] + 4 : at[1] + 8] = profile[at[1] + 4 : at[1] + 8], profile[at[0] + 4 : at[0] + 8]
    tifffile.imwrite(tmp_path / "a.tif", rgb, tile=(256, 256), photometric="rgb", iccprofile=bytes(swapped), metadata=None)
    for reader in ("openslide", "tiff", "native"):
        assert np.array_equal(wk.open_slide(tmp_path / "a.tif", reader=reader).read((0, 0, 400, 300)), rgb)
        slide = wk.open_slide(tmp_path / "a.tif", reader=reader, icc="srgb")
        assert slide.icc == "srgb"
        found = slide.read((-10, 0, 410, 300))
        assert (found[:, :10] == 255).all()
        assert np.abs(found[:, 10:].astype(int) - rgb[..., ::-1]).max() <= 2
        assert np.array_equal(pickle.loads(pickle.dumps(slide)).read((0, 0, 400, 300)), found[:, 10:])


def test_a_slide_without_profile_says_that_none_was_applied(phantom, tmp_path) -> None:
    assert wk.open_slide(phantom.path, icc="srgb").icc == "keep"
    with pytest.raises(UsageError, match="choose keep or srgb"):
        wk.open_slide(phantom.path, icc="adobe")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((300, 400, 3), np.uint8), tile=(256, 256), photometric="rgb", iccprofile=b"none" * 50, metadata=None)
    with pytest.raises(DamagedSlideError, match=r"a\.tif: its colour profile cannot be used"):
        wk.open_slide(tmp_path / "a.tif", icc="srgb")
