"""Slides of every format that can be written here, with the picture that went in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from scipy.ndimage import gaussian_filter

from wsikit.testing.dicom import write_dicom
from wsikit.testing.phantom import write_pyramid

MPP = 0.499
APERIO = "Aperio Image Library v11.2.1\r\n1037x771 [0,0 1037x771] (256x256) JPEG/RGB Q=90|AppMag = 20|MPP = 0.4990|Patient = Jane Roe"
JPEG_ERROR = 3.0


@dataclass(frozen=True)
class Made:
    """A slide on disk, the picture in it, and how far its codec may stray (grey levels on average)."""

    path: Path
    truth: np.ndarray
    error: float
    mpp: float | None


def half(rgb: np.ndarray) -> np.ndarray:
    h, w = rgb.shape[0] // 2, rgb.shape[1] // 2
    return rgb[: 2 * h, : 2 * w].reshape(h, 2, w, 2, 3).mean((1, 3)).round().astype(np.uint8)


def write_aperio(path: Path, rgb: np.ndarray) -> None:
    """As ScanScopes write: tiled levels with a stripped thumbnail behind the first, description and mpp in Aperio's words."""
    tiles: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 92}, "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(rgb, description=APERIO, **tiles)
        tif.write(half(half(rgb)), description="Aperio thumbnail", photometric="rgb", compression="jpeg", rowsperstrip=16, metadata=None)
        tif.write(half(rgb), description=APERIO, subfiletype=1, **tiles)


def write_ome(path: Path, rgb: np.ndarray, mpp_y: float = MPP) -> None:
    """OME-TIFF with its pyramid in SubIFDs, lossless."""
    tiles: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate"}
    sizes = {"PhysicalSizeX": MPP, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": mpp_y, "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(rgb, subifds=2, metadata={"axes": "YXS", **sizes}, **tiles)
        tif.write(half(rgb), subfiletype=1, **tiles)
        tif.write(half(half(rgb)), subfiletype=1, **tiles)


def write_zarr(path: Path, rgb: np.ndarray) -> None:
    """OME-Zarr 0.4 with two levels, as converters write it."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "micrometer"} for a in "yx")]
    datasets = []
    for i, picture in enumerate((rgb, half(rgb))):
        group.create_array(str(i), data=np.moveaxis(picture, -1, 0), chunks=(3, 200, 200))
        datasets.append({"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [1, MPP * 2**i, MPP * 2**i]}]})
    group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets, "version": "0.4"}]


def write_czi(path: Path, rgb: np.ndarray) -> None:
    """One piece, lossless, by the maker's library."""
    czi = pytest.importorskip("pylibCZIrw.czi")
    with czi.create_czi(str(path)) as doc:
        doc.write(data=np.ascontiguousarray(rgb[..., ::-1]), plane={"C": 0}, scene=0, compression_options="zstd1:ExplicitLevel=2")
        doc.write_metadata("phantom", scale_x=MPP * 1e-6, scale_y=MPP * 1e-6)


def cut(whole: Path, to: Path, share: float) -> None:
    """A copy that stops early; of a folder, each file does."""
    if whole.is_dir():
        for part in whole.iterdir():
            to.mkdir(exist_ok=True)
            cut(part, to / part.name, share)
    else:
        data = whole.read_bytes()
        to.write_bytes(data[: int(len(data) * share)])


def _tiff(**options: Any) -> Callable[[Path, np.ndarray], None]:
    resolution = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": "CENTIMETER"}
    return lambda path, rgb: tifffile.imwrite(path, rgb, photometric="rgb", metadata=None, **resolution, **options)


def _planes(path: Path, rgb: np.ndarray) -> None:
    _tiff(planarconfig="separate", tile=(128, 128), compression="deflate")(path, np.moveaxis(rgb, -1, 0))


def _alpha(path: Path, rgb: np.ndarray) -> None:
    """Unassociated alpha that is 0 over black wherever the picture is white."""
    shown = (rgb < 255).any(-1, keepdims=True)
    rgba = np.concatenate([np.where(shown, rgb, 0), np.where(shown, 255, 0)], -1).astype(np.uint8)
    _tiff(compression="lzw", rowsperstrip=40, extrasamples=["unassalpha"])(path, rgba)


def _png_alpha(path: Path, rgb: np.ndarray) -> None:
    shown = (rgb < 255).any(-1, keepdims=True)
    path.write_bytes(imagecodecs.png_encode(np.concatenate([np.where(shown, rgb, 0), np.where(shown, 255, 0)], -1).astype(np.uint8)))


# name → (how it is written, mean error of its codec, mpp that is read back)
FORMATS: dict[str, tuple[Callable[[Path, np.ndarray], None], float, float | None]] = {
    "pyramid.tif": (lambda path, rgb: write_pyramid(path, rgb, MPP, quality=92), JPEG_ERROR, MPP),
    "onelevel.tif": (lambda path, rgb: _tiff(tile=(256, 256), compression="jpeg", compressionargs={"level": 92})(path, rgb), JPEG_ERROR, MPP),
    "aperio.svs": (write_aperio, JPEG_ERROR, MPP),
    "subifds.ome.tif": (write_ome, 0, MPP),
    "bigtiff.tif": (lambda path, rgb: _tiff(bigtiff=True, tile=(256, 128), compression="lzw", predictor=True)(path, rgb), 0, MPP),
    "bigendian.tif": (lambda path, rgb: _tiff(byteorder=">", rowsperstrip=37)(path, rgb), 0, MPP),
    "planes.tif": (_planes, 0, MPP),
    "strip.tif": (lambda path, rgb: _tiff(rowsperstrip=rgb.shape[0])(path, rgb), 0, MPP),
    "stripplanes.tif": (lambda path, rgb: _tiff(planarconfig="separate", rowsperstrip=100)(path, np.moveaxis(rgb, -1, 0)), 0, MPP),
    "alpha.tif": (_alpha, 0, MPP),
    "picture.png": (lambda path, rgb: path.write_bytes(imagecodecs.png_encode(rgb)), 0, None),
    "alpha.png": (_png_alpha, 0, None),
    "picture.jpg": (lambda path, rgb: path.write_bytes(imagecodecs.jpeg8_encode(rgb, level=92)), JPEG_ERROR, None),
    "array.npy": (lambda path, rgb: np.save(path, rgb), 0, None),
    "dicom": (lambda path, rgb: write_dicom(path, [rgb, half(rgb)], MPP), JPEG_ERROR, MPP),
    "picture.czi": (lambda path, rgb: write_czi(path, rgb), 0, MPP),
    "levels.zarr": (lambda path, rgb: write_zarr(path, rgb), 0, MPP),
}


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """Odd-sided, smooth enough for JPEG, different everywhere, with a white margin: uint8 (771, 1037, 3)."""
    rng = np.random.default_rng(5)
    noise = gaussian_filter(rng.normal(0, 1, (771, 1037, 3)), (8, 8, 0))
    rgb = np.clip(150 + 40 * noise / noise.std(), 0, 250).astype(np.uint8)
    rgb[:16] = 255
    return rgb


@pytest.fixture(scope="session")
def made(picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """The slide of one of `FORMATS`, written when first asked for."""
    folder = tmp_path_factory.mktemp("formats")

    def make(name: str) -> Made:
        write, error, mpp = FORMATS[name]
        path = folder / name
        if not path.exists():
            write(path, picture)
        return Made(path, picture, error, mpp)

    return make


@pytest.fixture(scope="session")
def shorten() -> Callable[[Path, Path, float], None]:
    """See `cut`."""
    return cut


@pytest.fixture(scope="session")
def format_names() -> tuple[str, ...]:
    """All of `FORMATS`."""
    return tuple(FORMATS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``format_name`` is every format in turn."""
    if "format_name" in metafunc.fixturenames:
        metafunc.parametrize("format_name", FORMATS)
